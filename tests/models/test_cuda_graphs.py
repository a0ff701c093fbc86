"""Training passes as CUDA graphs, without a GPU: a stand-in computes the pass again into the same memory.

What CUDA alone can show (that a capture works, and what it gains) is for `tests/test_cuda.py` and `benchmarks/gpu.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from align_bench.api import OfflineAlgorithm
from align_bench.data.chat import tokenize
from align_bench.data.preferences import DataSource, read
from align_bench.evaluate.preference import mismatched_logps, prefix_logps, table_logps
from align_bench.models import cuda_graphs, layout
from align_bench.models.activation_checkpointing import checkpoint_activations
from align_bench.models.base import find_base
from align_bench.models.cuda_graphs import Graphs, Recorded, aside, graphs, padded
from align_bench.models.flat_weights import flattened
from align_bench.models.load import add_adapter, load_policy, load_scorer
from align_bench.models.logprobs import response_logps, scores
from align_bench.models.precision import Precision
from align_bench.plugins.registry import load_registry
from align_bench.suite.models import Lora, Train
from align_bench.train import steps
from align_bench.train.job import TrainingJob
from align_bench.train.loop import train
from tests.recorded import StandIn

FP32 = Precision("fp32", "float32", "cpu")
# Pairs of answers behind one prompt each, so that the rows have a mask of positions on a CPU as well.
ROWS = [
    (tuple(range(5, 5 + prompt)), tuple(range(9, 9 + answer)))
    for prompt, answers in ((20, (30, 15)), (9, (26, 4)), (5, (3, 8)))
    for answer in answers
]
IDS = tuple(range(3, 16))
REGISTRY = load_registry()
RECORD = cuda_graphs.record  # itself, where a stand-in takes its place
PAIRED = [
    name
    for name, plugin in REGISTRY.plugins.items()
    if isinstance(plugin.algorithm, OfflineAlgorithm) and plugin.algorithm.data in ("pairs", "scores")
]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Rows are padded as on a GPU, and the stand-in takes the place of a capture."""
    found = StandIn()
    monkeypatch.setattr(layout, "can_pack", lambda *_: False)
    monkeypatch.setattr(cuda_graphs, "record", found.record)
    return found


def trained(folder: Path, loader: Any = load_policy, **lora: Any) -> Any:
    model = add_adapter(loader(find_base(str(folder)), FP32), Lora(r=4, alpha=8, **lora), seed=0).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first, which hides every gradient of A
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    model.flat = flattened(parameter for parameter in model.parameters() if parameter.requires_grad)
    return model


def gradients(model: Any, rows: Any = ROWS) -> dict[str, Tensor]:
    """Of a sum over the rows."""
    measure = scores if hasattr(model, "score") else response_logps
    return gradients_of(model, lambda: measure(model, rows).sum().backward())


def gradients_of(model: Any, work: Callable[[], object]) -> dict[str, Tensor]:
    (flat,) = model.flat
    flat.forget()
    work()
    flat.gather()
    names = {parameter: name for name, parameter in model.named_parameters()}
    parts = flat.buffer.grad.split([weight.numel() for weight in flat.weights])
    return {names[weight]: part.view_as(weight) for weight, part in zip(flat.weights, parts, strict=True)}


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("loader", [load_policy, load_scorer])
def test_gradients_are_those_of_plain_passes(base_folder: Path, loader: Any, stand_in: StandIn) -> None:
    model, said = trained(base_folder, loader), list[str]()
    plain, fewer = gradients(model), gradients(model, ROWS[2:])
    used = Graphs(said.append, model.flat)
    with graphs(used):
        assert_close(gradients(model), plain)
        assert used.captured == stand_in.replays == 0  # the first time, padded rows pass plainly
        for replays in (4, 6):  # the first of them is held to the plain pass as well
            assert_close(gradients(model), plain)
            assert stand_in.replays == replays
        assert_close(gradients(model, ROWS[2:]), fewer)  # another shape
        assert_close(gradients(model, ROWS[2:]), fewer)
        assert_close(gradients(model), plain)  # nothing is left in the first one's memory
        assert used.captured == 2
    assert not said
    replays = stand_in.replays
    assert_close(gradients(model), plain)
    assert stand_in.replays == replays  # outside of the context, none is used


def test_rows_of_one_shape_do_not_see_each_other(base_folder: Path) -> None:
    """Rows that are shorter come after longer ones of the same padded shape."""
    model = trained(base_folder)
    longer = [((*range(5, 25),), tuple(range(9, 9 + answer))) for answer in (30, 13)]
    shorter = [((*range(7, 27),), tuple(range(3, 3 + answer))) for answer in (26, 14)]
    plain = [gradients(model, rows) for rows in (longer, shorter)]
    used = Graphs(print, model.flat)
    with graphs(used):
        for _ in range(3):
            for rows, expected in zip((longer, shorter), plain, strict=True):
                assert_close(gradients(model, rows), expected)
    assert used.captured == 1


def test_weights_that_learn_are_read_anew(base_folder: Path, stand_in: StandIn) -> None:
    model = trained(base_folder)
    used = Graphs(print, model.flat)
    with graphs(used):
        for _ in range(2):
            gradients(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5)
    plain = gradients(model)
    replays = stand_in.replays
    with graphs(used):
        assert_close(gradients(model), plain)
    assert stand_in.replays > replays
    for parameter in model.parameters():  # elsewhere in memory, a graph would not see them
        if parameter.requires_grad:
            parameter.data = 2 * parameter.data
    plain, replays = gradients(model), stand_in.replays
    with graphs(used):
        assert_close(gradients(model), plain)
    assert stand_in.replays == replays


def leaves(states: Tensor) -> set[Any]:
    """Where autograd adds up the gradients of weights: the nodes that end what computed these states."""
    found, left = set(), [states.grad_fn]
    seen = set(left)
    while left:
        node = left.pop()
        assert node is not None
        if hasattr(node, "variable"):
            found.add(node)
        left += [below for below, _ in node.next_functions if below is not None and below not in seen]
        seen |= set(left)
    return found


def test_a_capture_meets_nothing_of_a_loss_that_is_still_held(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What adds a weight's gradient up lives as long as a loss does, and keeps the stream of the pass that made it."""
    computed: list[Tensor] = []
    forward = cuda_graphs._Pass._forward

    def noted(one: cuda_graphs._Pass) -> Tensor:
        computed.append(forward(one))
        return computed[-1]

    monkeypatch.setattr(cuda_graphs._Pass, "_forward", noted)
    model = trained(base_folder)
    used = Graphs(print, model.flat)
    with graphs(used):
        held = response_logps(model, ROWS).sum()
        response_logps(model, ROWS).sum().backward()
    assert used.captured == 1
    assert leaves(held)
    for states in computed:
        assert len(leaves(states)) == len(leaves(held))
        assert not leaves(states) & leaves(held)


def test_gradients_of_several_passes_add_up(base_folder: Path) -> None:
    model = trained(base_folder)
    used = Graphs(print, model.flat)
    alike = [((*range(7, 27),), tuple(range(3, 3 + answer))) for answer in (29, 14)]  # of the same padded shape

    def added() -> None:
        for rows in (ROWS[:2], alike, ROWS[2:4]):
            response_logps(model, rows).sum().backward()

    plain = gradients_of(model, added)
    with graphs(used):
        for _ in range(3):
            assert_close(gradients_of(model, added), plain)
    assert used.captured == 2


def test_what_a_pass_gave_stays_when_the_next_one_comes(base_folder: Path) -> None:
    model = trained(base_folder)
    used = Graphs(print, model.flat)
    inner = layout.inner_of(model)
    inputs = [layout.lay_out(inner, [(ids[:4], ids[4:9]), (ids[:4], ids[9:])]).inputs for ids in (IDS, IDS[::-1])]
    decoder = inner.get_decoder()
    for _ in range(2):
        used.states(decoder, inputs[0]).sum().backward()
    first = used.states(decoder, inputs[0])
    expected = first.detach().clone()
    first.sum().backward()
    assert not torch.equal(used.states(decoder, inputs[1]), expected)
    assert used.captured == 1
    assert torch.equal(first, expected)


def test_a_step_begins_with_no_pass_under_way(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch, stand_in: StandIn
) -> None:
    monkeypatch.setattr(steps, "can_capture", lambda _: True)
    model = trained(base_folder)
    plain = gradients(model)
    with steps.Budget(model, 512, print, checkpointed=False, graphed=True, flat=model.flat) as budget:
        for _ in range(2):
            budget.run(lambda _: gradients(model))
        budget.run(lambda _: response_logps(model, ROWS))  # nobody asks for its gradient
        replays = stand_in.replays
        assert_close(budget.run(lambda _: gradients(model)), plain)
        assert stand_in.replays == replays + 2
        used, tries = budget._graphs, list[int]()
        assert used is not None

        def too_much(tokens: int) -> int:
            tries.append(used.captured)
            if len(tries) == 1:
                raise torch.OutOfMemoryError("no memory left")
            return tokens

        assert budget.run(too_much) == 256
        assert tries == [1, 0]  # their memory is given back
    assert cuda_graphs._GRAPHS.get() is None


def test_a_second_pass_before_the_first_went_back_is_a_plain_one(base_folder: Path, stand_in: StandIn) -> None:
    """Both would compute into the same memory."""
    model = trained(base_folder)
    used = Graphs(print, model.flat)

    def product() -> None:
        (response_logps(model, ROWS).sum() * response_logps(model, ROWS).mean()).backward()

    plain = gradients_of(model, product)
    with graphs(used):
        for _ in range(3):
            used.begin()
            replays = stand_in.replays
            assert_close(gradients_of(model, product), plain)
    assert stand_in.replays - replays == 2  # forward and backward of one of the two


def test_nothing_is_captured_that_draws_or_computes_again(base_folder: Path, stand_in: StandIn) -> None:
    dropping, again, evaluating = (trained(base_folder, **more) for more in ({"dropout": 0.5}, {}, {}))
    checkpoint_activations(again)
    evaluating.eval()
    for model in (dropping, again, evaluating):
        used = Graphs(print, model.flat)
        with graphs(used):
            for _ in range(3):
                gradients(model)
        assert used.captured == stand_in.replays == 0
    with graphs(Graphs(print, again.flat)), torch.no_grad():
        for _ in range(3):
            response_logps(again, ROWS)
    assert stand_in.replays == 0


SPOILS: Mapping[str, tuple[Callable[[int, Tensor], object], str]] = {
    "forward": (
        lambda number, result: result.mul_(1.01),
        "hidden states of a graph differ from the plain ones by 0.01",
    ),
    "backward": (
        lambda number, result: result.mul_(1.01) if number % 2 == 0 else None,
        "gradients of a graph differ from the plain ones by 0.01 of their norm",
    ),
    "numbers": (
        lambda number, result: result.fill_(torch.nan),
        "hidden states of a graph differ from the plain ones by nan",
    ),
}


def refused(*_: Any) -> Recorded:
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


@pytest.mark.parametrize("what", ["capture", *SPOILS])
def test_what_cannot_be_captured_passes_plainly_and_that_is_said(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch, stand_in: StandIn, what: str
) -> None:
    if what == "capture":
        monkeypatch.setattr(cuda_graphs, "record", refused)
        why = "a pass could not be captured (operation not permitted when stream is capturing)"
    else:
        stand_in.spoil, why = SPOILS[what]
    model, said = trained(base_folder), list[str]()
    plain, used = gradients(model), Graphs(said.append, model.flat)
    with graphs(used):
        for _ in range(4):
            assert_close(gradients(model), plain)
    (line,) = said
    assert line.startswith("train.cuda_graphs has no effect from here on: ")
    assert why in line
    assert used.captured == 0


@pytest.mark.parametrize("ends", [True, False])
def test_a_capture_that_fails_says_why_and_leaves_the_stream_as_it_was(
    monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """torch's `__exit__` raises where the capture's end fails, before it sets the stream back."""
    streams = ["usual"]

    class Capture:
        def __init__(self, graph: Any, **_: Any) -> None:
            """Of a graph."""

        def __enter__(self) -> None:
            streams.append("of the capture")

        def __exit__(self, *_: object) -> None:
            if not ends:
                raise RuntimeError("operation failed due to a previous error during capture")
            streams.append("usual")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)

    def work() -> Tensor:
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        RECORD(work)
    assert streams[-1] == "usual"


def test_one_stream_serves_for_all_that_is_done_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[tuple[Any, Any]] = []
    made: list[Any] = []

    class Stream:
        def __init__(self, device: Any) -> None:
            made.append(self)

        def wait_stream(self, other: Any) -> None:
            waited.append((self, other))

    usual = Stream("usual")
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: usual)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    cuda_graphs._beside.cache_clear()
    assert [aside(lambda: "done", torch.device("cuda")) for _ in range(2)] == ["done"] * 2
    cuda_graphs._beside.cache_clear()
    _, other = made
    assert waited == 2 * [(other, usual), (usual, other)]


def test_memory_is_given_back(base_folder: Path) -> None:
    model = trained(base_folder)
    used = Graphs(print, model.flat)
    plain = gradients(model)
    with graphs(used):
        for _ in range(2):
            gradients(model)
        assert used.captured == 1
        used.forget()
        assert used.captured == 0
        assert_close(gradients(model), plain)


@pytest.mark.parametrize(
    ("number", "halves", "quarters"),
    [
        (1, 1, 1),
        (2, 2, 2),
        (3, 3, 3),
        (5, 6, 5),
        (7, 8, 7),
        (9, 12, 10),
        (33, 48, 40),
        (64, 64, 64),
        (1000, 1024, 1024),
    ],
)
def test_shapes_are_few(number: int, halves: int, quarters: int) -> None:
    assert cuda_graphs._bucket(number) == halves
    assert cuda_graphs._bucket(number, steps=4) == quarters


def test_padding_is_seen_by_itself_alone() -> None:
    lowest = torch.finfo(torch.float32).min
    causal = torch.zeros(2, 1, 3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), lowest)
    given = {"input_ids": torch.full((2, 3), 7), "position_ids": torch.arange(3).repeat(2, 1), "attention_mask": causal}
    large = padded(given, (3, 4))
    for name, value in large.items():  # what was there before does not matter
        value.fill_(5 if name != "attention_mask" else 0.0)
    again = padded(given, (3, 4), large)
    assert all(again[name] is large[name] for name in large)
    assert again["input_ids"].tolist() == [[7, 7, 7, 0], [7, 7, 7, 0], [0, 0, 0, 0]]
    assert again["position_ids"].tolist() == [[0, 1, 2, 0], [0, 1, 2, 0], [0, 0, 0, 0]]
    seen = again["attention_mask"][:, 0] == 0
    assert seen[0].tolist() == seen[1].tolist()
    assert seen[0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    assert torch.equal(seen[2], torch.eye(4).bool())


HOST = 156  # operators of a step that are no part of a graph; those of views not counted
SETTINGS = Train(batch_size=4, epochs=3, max_length=128, micro_batch_tokens=512)


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> Sequence[Any]:
    found = read(DataSource("embedded/planted", split="train", rows=8))
    preferences = tuple(replace(row, margin=0.3 + row.pair % 5) for row in found.rows)  # for the methods that read it
    return tokenize(tokenizer, replace(found, rows=preferences), max_length=128).rows


@pytest.fixture
def build(
    base_folder: Path, rows: Sequence[Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Mapping[str, float]]]:
    def run(
        name: str, *, folder: Path = base_folder, update: Any = lambda *_: None, **settings: Any
    ) -> list[Mapping[str, float]]:
        """The log of a training."""
        method: Any = REGISTRY[name].algorithm
        model = trained(folder, load_scorer if method.kind == "reward" else load_policy)
        reference: dict[str, Tensor] = {}
        if method.reference:
            frozen = load_policy(find_base(str(folder)), FP32)
            for measure in (table_logps, mismatched_logps, prefix_logps):
                reference |= measure(frozen, rows, max_tokens=512)
        job = TrainingJob(
            model=model,
            rows=rows,
            algorithm=method,
            parameters=method.resolve({}),
            learning_rate=1e-3,
            settings=SETTINGS.model_copy(update=settings),
            seed=0,
            update=update,
        )
        return list(train(job, reference or None).steps)

    monkeypatch.setattr(steps, "can_capture", lambda _: True)
    return run


@pytest.mark.parametrize("name", PAIRED)
def test_the_training_is_that_of_plain_passes(
    build: Callable[..., list[Mapping[str, float]]], name: str, stand_in: StandIn
) -> None:
    plain = build(name)
    assert stand_in.replays == 0
    found = build(name, cuda_graphs=True)
    assert stand_in.replays > 4 or name == "robust_rm"  # whose passes are attacked, and stay plain
    for one, other in zip(plain, found, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4, abs=1e-6)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)


def test_on_a_cpu_the_setting_has_no_effect(
    build: Callable[..., list[Mapping[str, float]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert [step["loss"] for step in build("simpo")] == [step["loss"] for step in build("simpo", cuda_graphs=True)]


class Operators(TorchDispatchMode):
    """Counts those that the host starts itself, and that are more than a view."""

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stand_in = stand_in
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (self.stand_in.at_work or func.is_view)
        return func(*args, **(kwargs or {}))


def test_no_layer_is_left_to_the_host(
    build: Callable[..., list[Mapping[str, float]]],
    base_folder: Path,
    tokenizer: Any,
    tmp_path: Path,
    stand_in: StandIn,
) -> None:
    """Of a DPO step: layout, padding, head, loss, clipping and the optimizer are, however many layers there are."""
    config = AutoConfig.from_pretrained(base_folder, num_hidden_layers=5)  # of two
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    def per_step(**settings: Any) -> int:
        counter, after = Operators(stand_in), list[int]()
        with counter:
            build("dpo", update=lambda *_: after.append(counter.count), micro_batch_tokens=4096, **settings)
        return min(two - one for one, two in itertools.pairwise(after))

    graphed = per_step(cuda_graphs=True)
    assert graphed == per_step(folder=tmp_path, cuda_graphs=True)
    assert graphed <= HOST < per_step() / 2
