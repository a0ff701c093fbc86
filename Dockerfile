# The program in an image: for a CPU, or for CUDA (the GPU's driver and its container toolkit are the host's).
#   docker build --target cpu  -t align-bench:cpu  .
#   docker build --target cuda -t align-bench:cuda .
#   docker run --rm -v "$PWD:/work" align-bench:cpu run assignment
#   docker run --rm --gpus all -v "$PWD:/work" -v "$HOME/.cache/huggingface:/home/bench/.cache/huggingface" \
#     align-bench:cuda run mine.yaml
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY align_bench align_bench
COPY algorithms algorithms
COPY suites suites
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim AS start
RUN useradd --create-home --uid 1000 bench
WORKDIR /work
ENTRYPOINT ["align-bench"]
CMD ["--help"]

FROM start AS cpu
# Without CUDA's libraries, which PyPI's torch brings for Linux.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu /wheels/*.whl
USER 1000

FROM start AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir /wheels/*.whl
USER 1000
