"""What a suite takes on hardware that is not here: by configurations alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from align_bench.cli.hardware_view import View, forecast
from align_bench.errors import SuiteError
from align_bench.models.precision import Precision
from align_bench.planning import memory
from align_bench.planning.estimate import utilisation
from align_bench.planning.fit import Peak, fits, proposal
from align_bench.planning.forecast import Forecast
from align_bench.planning.hardware import Hardware, parse_hardware
from align_bench.planning.inputs import Prepared, prepare
from align_bench.planning.memory import ROOM, expected_memory
from align_bench.plugins.registry import Registry, load_registry
from align_bench.records import Cost
from align_bench.stages.generate import Generate
from align_bench.stages.stage import Size
from align_bench.store.store import Store
from align_bench.suite.load import load_suite

PLANTED = ["data.train={path: embedded/planted, rows: 64}", "data.val={path: embedded/planted, rows: 20}"]
# Llama-3.1-8B's shape, with few words, so that the embedded tokenizer fits.
LARGE = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
PARAMETERS = 8_030_261_248


@pytest.fixture(scope="module")
def registry() -> Registry:
    """All methods."""
    return load_registry()


def planned(registry: Registry, hardware: str, overrides: Sequence[str], name: str = "real") -> Prepared:
    """A suite on the embedded base and rows, prepared for the hardware."""
    suite = load_suite(
        name, [*(["base=embedded/tiny", "train.max_length=512", *PLANTED] if name == "real" else []), *overrides]
    )
    return prepare(suite, registry, parse_hardware(hardware).device.precision)


def large(prepared: Prepared, folder: Path) -> Prepared:
    """The same on a base with the shape of a model of eight billion parameters."""
    tiny = prepared.inputs.frozen.base.folder
    for file in tiny.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_text(json.dumps(LARGE), encoding="utf-8")
    base = replace(prepared.inputs.frozen.base, folder=folder)
    return replace(prepared, inputs=replace(prepared.inputs, frozen=replace(prepared.inputs.frozen, base=base)))


def of_large(monkeypatch: pytest.MonkeyPatch, prepared: Prepared, folder: Path, hardware: str) -> Forecast:
    """Its forecast; the weights themselves are not there."""
    monkeypatch.setattr("align_bench.cli.hardware_view.base_parameters", lambda base: PARAMETERS)
    return forecast(large(prepared, folder), folder / "runs", parse_hardware(hardware))


def test_work_of_cells_and_what_they_share_is_that_of_all_stages(registry: Registry, tmp_path: Path) -> None:
    prepared = planned(registry, "h100x4", ["methods=[rm, dpo, kto]"])
    found = forecast(prepared, tmp_path, parse_hardware("h100x4"))
    assert [str(cell.cell) for cell in found.cells] == ["base", "judge", "rm", "dpo", "kto"]
    works = [*(cell.work for cell in found.cells), found.shared]
    tokens = sum(stage.estimate(found.estimate.size).tokens for stage in found.graph.stages)
    assert found.whole.tokens == sum(work.tokens for work in works) == tokens
    assert found.whole.seconds == pytest.approx(sum(work.seconds for work in works))
    assert found.whole.flops == pytest.approx(sum(map(found.estimate.flops, found.graph.stages)))
    assert found.schedule.chain_seconds <= found.schedule.seconds < found.whole.seconds
    one = forecast(prepared, tmp_path, parse_hardware("h100"))
    assert one.schedule.seconds == pytest.approx(one.whole.seconds)


def test_time_is_operations_by_the_assumed_share_of_the_peak(registry: Registry, tmp_path: Path) -> None:
    prepared = planned(registry, "l40s", ["methods=[dpo]"])
    assert prepared.inputs.frozen.precision == Precision("nf4", "bfloat16", "cuda")
    found = forecast(prepared, tmp_path, parse_hardware("l40s"))
    dpo = found.graph.cells[0].adapter
    assert dpo is not None
    peak, share = 362.05e12, utilisation("cuda", found.estimate.parameters)
    assert found.seconds(dpo) == pytest.approx(found.estimate.flops(dpo) / (peak * share))
    given = forecast(prepared, tmp_path, parse_hardware("l40s"), 0.5)
    assert given.seconds(dpo) == pytest.approx(found.estimate.flops(dpo) / (peak * 0.5))
    assert "assumed 50% of the dense bf16 peak for adapter, " in given.basis()
    assert "not measured, as --utilisation says" in given.basis()
    assert "a model of 2 million parameters does not fill a GPU" in found.basis()


def test_answers_take_a_pass_over_the_weights_for_each_token(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["methods=[dpo]", "generate.prompts=20", "generate.batch_size=8", "generate.max_new_tokens=100"]
    found = of_large(monkeypatch, planned(registry, "h100", settings), tmp_path, "h100")
    answers = found.graph.base.answers
    assert isinstance(answers, Generate)
    prompts = min(20, found.estimate.size(answers.table).prompts)
    passes = -(-prompts // 8) * 100
    assert found.seconds(answers) == pytest.approx(passes * PARAMETERS * 0.56 / 3350e9)


def test_rates_are_those_of_the_named_device(registry: Registry, tmp_path: Path) -> None:
    """Of two artefacts, that of an H100 counts."""
    prepared = planned(registry, "h100", ["methods=[dpo, kto]"])
    runs, hardware = tmp_path / "runs", parse_hardware("h100")
    store = Store(runs)
    found = forecast(prepared, runs, hardware)
    dpo, kto = (cell.adapter for cell in found.graph.cells)
    assert dpo is not None
    assert kto is not None
    for stage, device, seconds in ((dpo, "NVIDIA H100 80GB HBM3", 10.0), (kto, "NVIDIA A100-SXM4-80GB", 1.0)):
        with store.scratch(stage.address) as folder:
            store.put(stage.address, stage.owner, folder, Cost(seconds, 1000, 0, device=device), {})
    found = forecast(prepared, runs, hardware)
    assert found.estimate.rates == {"adapter": 100.0}
    assert found.seconds(dpo) == dpo.estimate(found.estimate.size).tokens / 100
    assert "measured on such a device, in this suite's own work, for adapter; assumed " in found.basis()
    assert forecast(prepared, runs, parse_hardware("h200")).estimate.rates == {}


def test_answers_take_as_long_per_answer_as_they_did(registry: Registry, tmp_path: Path) -> None:
    """Four answers, of one token each, took two seconds."""
    prepared = planned(registry, "h100", ["methods=[dpo]", "generate.prompts=10"])
    runs, hardware = tmp_path / "runs", parse_hardware("h100")
    answers = forecast(prepared, runs, hardware).graph.base.answers
    assert isinstance(answers, Generate)
    store = Store(runs)
    with store.scratch(answers.address) as folder:
        (folder / "answers.jsonl").write_text("{}\n" * 4, encoding="utf-8")
        store.put(answers.address, "base", folder, Cost(2.0, 4, 0, device="NVIDIA H100 PCIe"), {})
    found = forecast(prepared, runs, hardware)
    prompts = min(10, found.estimate.size(answers.table).prompts)
    assert found.seconds(answers) == pytest.approx(prompts * 0.5, rel=0.02)


def test_what_is_not_tuned_yet_waits_for_its_trials(registry: Registry, tmp_path: Path) -> None:
    """Trials, then the reward model, then what learns from it: on any number of devices."""
    small = ["data.train.rows=64", "data.val.rows=20", "data.test.rows=20", "methods=[rm, {ppo: {reward: rm}}]"]
    prepared = planned(registry, "h100x64", [*small, "judge=gold"], "assignment")
    found = forecast(prepared, tmp_path, parse_hardware("h100x64"))
    labels = [(stage.owner, stage.label) for stage in found.schedule.chain if found.estimate.flops(stage)]
    assert labels[0][0].startswith("rm trial ")
    assert [label for label in labels if label in (("rm", "train"), ("ppo", "train"))] == [
        ("rm", "train"),
        ("ppo", "train"),
    ]


@pytest.mark.parametrize(("precision", "proposed_precision"), [("bf16", None), ("fp32", "nf4"), ("auto", None)])
def test_settings_that_fit_are_proposed_where_a_cell_does_not(
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    proposed_precision: str | None,
) -> None:
    """Precision is changed only where a smaller micro-batch and a smaller batch of answers are not enough."""
    prepared = planned(registry, "rtx4090", ["methods=[rm, dpo]", f"precision={precision}"])
    longer = prepared.suite.train.model_copy(update={"batch_size": 512})
    prepared = replace(prepared, suite=prepared.suite.model_copy(update={"train": longer}))
    found = of_large(monkeypatch, prepared, tmp_path, "rtx4090")
    assert not all(cell.fits for cell in found.cells)
    better = proposal(found.all_cells, found.shapes, found.hardware.device)
    assert better is not None
    assert better.settings.get("precision") == proposed_precision
    assert int(better.settings["train.micro_batch_tokens"]) < 8192
    assert better.bytes * ROOM <= 24e9
    with pytest.raises(SuiteError) as caught:
        View(found).refuse()
    assert "do not fit into the 24 GB of rtx4090" in str(caught.value)
    assert better.line() in str(caught.value)
    proposed = load_suite("real", ["base=x", *PLANTED, *better.line().replace("--set ", "").split()])
    for key in ("precision", "train.micro_batch_tokens", "generate.batch_size"):
        section, _, name = key.rpartition(".")
        value = getattr(getattr(proposed, section) if section else proposed, name)
        assert str(value) == better.settings.get(key, str(value))


def test_activation_checkpointing_is_proposed_where_smaller_passes_are_not_enough(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = of_large(monkeypatch, planned(registry, "t4", ["methods=[dpo]"]), tmp_path, "t4")
    roomy, tight = (
        proposal(found.all_cells, found.shapes, replace(found.hardware.device, memory=memory))
        for memory in (16e9, 10e9)
    )
    assert roomy is not None
    assert tight is not None
    assert "train.activation_checkpointing" not in roomy.settings
    assert "--set train.activation_checkpointing=true" in tight.line()
    assert tight.settings["train.micro_batch_tokens"] == roomy.settings["train.micro_batch_tokens"]
    assert tight.bytes * ROOM <= 10e9 < roomy.bytes * ROOM
    proposed = load_suite("real", ["base=x", *PLANTED, *tight.line().replace("--set ", "").split()])
    assert proposed.train.activation_checkpointing


def test_where_nothing_fits_that_is_said(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = planned(registry, "t4", ["methods=[dpo]"])
    found = of_large(monkeypatch, prepared, tmp_path, "t4")
    tight = replace(found, hardware=Hardware(replace(found.hardware.device, memory=4e9)))
    with pytest.raises(SuiteError) as caught:
        View(tight).refuse()
    said = str(caught.value)
    assert "no smaller micro-batch or batch of answers is enough, nor are activation checkpointing and nf4; " in said
    assert "; as it is, it fits on " in said


def test_a_cell_that_fits_is_not_refused(registry: Registry, tmp_path: Path) -> None:
    prepared = planned(registry, "t4", ["methods=[dpo]"])
    found = forecast(prepared, tmp_path, parse_hardware("t4"))
    assert all(cell.fits for cell in found.cells)
    View(found).refuse()
    assert fits(None, found.hardware.device)
    assert not fits(Peak(training=13e9), found.hardware.device)  # of 16, a fifth is kept free


@pytest.mark.parametrize(
    ("precision", "avx512", "measured"),
    [
        (Precision("fp32", "float32", "cpu"), True, 0.709e9),
        (Precision("bf16", "bfloat16", "cpu"), True, 1.760e9),
        (Precision("bf16", "bfloat16", "cpu"), False, 0.644e9),
        (Precision("nf4", "float32", "cpu"), True, 0.719e9),
    ],
)
def test_training_the_embedded_model_takes_what_was_measured(
    registry: Registry, precision: Precision, avx512: bool, measured: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By benchmarks/plan_accuracy.py: DPO on 320 pairs of the suite `assignment`; without AVX-512, the reward model."""
    monkeypatch.setattr(memory, "has_avx512", lambda: avx512)
    suite = load_suite("assignment")
    base = planned(registry, "cpu", []).inputs.frozen.base
    found = expected_memory(suite, base, 2_000_000, precision, (2000, 30))
    assert found is not None
    assert found.training == pytest.approx(measured, rel=0.25)


def test_the_prompt_of_a_pair_passes_once(registry: Registry, tmp_path: Path) -> None:
    """Tables count it with each answer; a batch of single answers has it as often."""
    prepared = planned(registry, "h100", ["methods=[dpo, kto]", "judge=gold", "train.batch_size=8"])
    found = forecast(prepared, tmp_path, parse_hardware("h100"))
    of_pairs, of_answers = found.graph.cells
    suite = prepared.suite
    for cell, alike in ((of_pairs, True), (of_answers, False)):
        twice, once = (
            replace(found.shapes, sizes=lambda table, size=size: size).peak(cell, suite)
            for size in (Size(10, 2000, 900, 10), Size(10, 1100, 0, 10))
        )
        assert (twice == once) == alike
