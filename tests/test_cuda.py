"""On a CUDA device, where there is one: the same numbers as on a CPU, NF4, and a whole suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from align_bench.models import generate as generation
from align_bench.models.base import find_base
from align_bench.models.cuda_graphs import Graphs, graphs
from align_bench.models.flat_weights import flattened
from align_bench.models.layout import lay_out
from align_bench.models.load import add_adapter, load_policy
from align_bench.models.logprobs import response_logps
from align_bench.models.precision import Compute, Precision, resolve_precision
from align_bench.models.transfer import OnItsWay
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.runner.progress import NoProgress
from align_bench.runner.run import Folders, run
from align_bench.suite.load import load_suite
from align_bench.suite.models import Generate, Lora

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# Three answers to one prompt, which share its tokens, and one that stands alone.
ROWS = [((5, 6, 7, 8), (9, 10, 11)), ((5, 6, 7, 8), (12, 13)), ((5, 6, 7, 8), (14,)), ((20, 21), (22, 23, 24, 25))]


def on(device: str, storage: str, compute: Compute, name: str = "embedded/tiny") -> Any:
    return load_policy(find_base(name), Precision(storage, compute, device))


def gradient(model: Any) -> torch.Tensor:
    adapted = add_adapter(model, Lora(), seed=0)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = (0.02 * torch.randn(parameter.shape)).to(parameter.device)
    response_logps(adapted, ROWS).sum().backward()
    return torch.cat([value.grad.flatten().cpu() for value in adapted.parameters() if value.grad is not None])


def test_auto_is_nf4_computed_in_bf16() -> None:
    assert str(resolve_precision("auto")) == "nf4/bfloat16/cuda"


def test_log_probabilities_and_gradients_equal_those_of_the_cpu() -> None:
    gpu, cpu = on("cuda", "fp32", "float32"), on("cpu", "fp32", "float32")
    with torch.no_grad():
        found, expected = response_logps(gpu, ROWS).cpu(), response_logps(cpu, ROWS)
    assert torch.allclose(found, expected, atol=1e-3)
    found, expected = gradient(gpu), gradient(cpu)
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_numbers_on_their_way_are_those_that_were_there_when_they_left() -> None:
    values = torch.arange(4.0, device="cuda")
    coming = OnItsWay(values)
    values.fill_(9)
    assert coming.read().tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("storage", ["fp32", "bf16", "nf4"])
def test_passes_as_graphs_have_the_gradients_of_plain_ones(storage: str) -> None:
    compute: Compute = "float32" if storage == "fp32" else "bfloat16"
    model = add_adapter(on("cuda", storage, compute), Lora(), seed=0).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0, 0.02)

    (flat,) = flattened(value for value in model.parameters() if value.requires_grad)
    held: list[torch.Tensor] = []  # as a training holds the loss of one pass while it computes the next

    def line() -> torch.Tensor:
        flat.forget()
        loss = response_logps(model, ROWS).sum()
        loss.backward()
        held[:] = [loss]
        flat.gather()
        assert flat.buffer.grad is not None
        return flat.buffer.grad

    plain, said = line(), list[str]()
    used = Graphs(said.append, [flat])
    with graphs(used):
        for _ in range(4):
            assert (line() - plain).norm() < (1e-4 if storage == "fp32" else 0.05) * plain.norm()
    assert not said
    assert used.captured == 1


@pytest.mark.parametrize(("storage", "tolerance"), [("fp32", 1e-4), ("bf16", 0.05), ("nf4", 0.05)])
def test_a_shared_prompt_changes_nothing(storage: str, tolerance: float) -> None:
    """Per token, in nats; bf16 keeps eight bits of each number."""
    compute: Compute = "float32" if storage == "fp32" else "bfloat16"
    model = on("cuda", storage, compute)
    assert lay_out(model, ROWS).inputs["input_ids"].shape[0] == 2
    with torch.no_grad():
        together = response_logps(model, ROWS)
        alone = torch.cat([response_logps(model, [row]) for row in ROWS])
    tokens = torch.tensor([len(response) for _, response in ROWS], device="cuda")
    assert ((together - alone) / tokens).abs().max() < tolerance


def test_nf4_holds_the_same_weights_as_on_a_cpu() -> None:
    with torch.no_grad():
        found = response_logps(on("cuda", "nf4", "float32"), ROWS).cpu()
        expected = response_logps(on("cpu", "nf4", "float32"), ROWS)
    assert torch.allclose(found, expected, atol=5e-3)


def test_answers_equal_those_of_transformers() -> None:
    model = on("cuda", "fp32", "float32")
    assert generation._continues(model, 0)
    prompts, settings = [[3, 4, 5, 6, 7], [10], [11, 12]], Generate(max_new_tokens=12)
    expected = generation._generate(model, 0, frozenset({-1}), prompts, settings)
    end = frozenset({expected[1][3]})
    found, _ = generation._decode(model, 0, end, prompts, settings)
    assert [generation._until_end(ids, end) for ids in expected] == [generation._until_end(ids, end) for ids in found]


def test_answers_that_graphs_write_are_the_same(recwarn: pytest.WarningsRecorder) -> None:
    model = on("cuda", "fp32", "float32")
    prompts, settings = [[3, 4, 5, 6, 7], [10], [11, 12]], Generate(max_new_tokens=24)
    plain, _ = generation._decode(model, 0, frozenset(), prompts, settings)
    graphed = settings.model_copy(update={"cuda_graphs": True})
    found, _ = generation._decode(model, 0, frozenset(), prompts, graphed)
    assert found == plain
    assert not [one for one in recwarn if "CUDA graphs" in str(one.message)]


def test_a_suite_of_every_kind_of_method(tmp_path: Path) -> None:
    suite = {
        "extends": "assignment",
        "name": "cuda",
        "precision": "auto",
        "data": {split: {"path": "embedded/planted", "rows": 48} for split in ("train", "val")},
        "judge": {"data": {"path": "embedded/planted", "rows": 48}},
        "generate": {"prompts": 8, "max_new_tokens": 8, "temperature": 1.0, "samples": 2},
        "methods": ["rm", "poe_rm", "robust_rm", "sft", "dpo", "kto", "simpo", "orpo", {"ppo": {"reward": "rm"}}],
    }
    path = tmp_path / "cuda.yaml"
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    loaded = load_suite(str(path))
    prepared = prepare(loaded, load_registry(loaded.plugins))
    report = run(
        prepared, NoProgress(), Folders(tmp_path / "runs", tmp_path / "reports"), command="align-bench run cuda"
    )
    assert {result.name: result.reason for result in report.results if result.status != "done"} == {}
    assert report.base.precision == "nf4/bfloat16/cuda"
