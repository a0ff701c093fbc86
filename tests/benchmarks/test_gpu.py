"""`benchmarks/gpu.py` without a GPU: the whole command on a tiny shape, its order of work, and what its page claims."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gpu
import gpu_sides
import history
import pytest
import torch
import vs_trl_sides as sides
import vs_trl_table as table
from vs_trl import SideError

from align_bench.models.precision import Precision

pytestmark = pytest.mark.filterwarnings("ignore:`.*gradient_checkpointing.*` is deprecated:FutureWarning")
SETTINGS = {"shapes": ["tiny"], "precision": ["fp32"], "parts": ["dpo", "generation"], "repeats": 1, "graphs": False}
TURN: dict[str, Any] = {"seconds": 2.0, "tokens": 100, "peak_bytes": 10**9, "resting_bytes": 1}
SECONDS: dict[str, Any] = {**TURN, "seconds": [2.0], "tokens": [100]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of the tiny shape."""
    found = tmp_path_factory.mktemp("tiny")
    gpu_sides.draw("tiny", found)
    return found


class Turns(sides.Turns):
    """Always one's turn; keeps what is said."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def wait(self) -> None:
        """At once."""

    def say(self, **facts: Any) -> None:
        self.said.append(facts)


def bench(folder: Path, side: str, precision: str = "fp32") -> gpu_sides.DrawnBench:
    size = gpu.SIZES["tiny"]
    return gpu_sides.DrawnBench(
        {
            "side": side,
            "base": str(folder),
            "precision": precision,
            "device": "cpu",
            "vocabulary": gpu_sides.SHAPES["tiny"]["vocab_size"],
            "pairs_per_step": size.pairs,
            "max_length": size.max_length,
            "repeats": 1,
            "scored_pairs": size.scored_pairs,
            "prompts": size.prompts,
            "new_tokens": size.new_tokens,
            "train": "drawn",
            "val": "drawn",
            "checkpointing": False,
        }
    )


@pytest.mark.usefixtures("sides_are_copies")
def test_the_command_measures_a_part_on_a_cpu_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "sizes.json"
    words = ["--tiny", "--no-tests", "--parts", "generation", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    assert gpu.main() == 0
    measured = out.read_text(encoding="utf-8")
    (part,) = json.loads(measured)["parts"]
    assert part["sides"]["ours"]["tokens"] == part["sides"]["trl"]["tokens"]
    page = out.with_suffix(".md").read_text(encoding="utf-8")
    assert f"**{gpu.NOT_RUN}**" in page
    assert "MFU" in page
    assert "%" not in page  # no share of a GPU's peak is claimed
    monkeypatch.setattr(gpu, "lanes", lambda *_: pytest.fail("nothing was left to do"))
    assert gpu.main() == 0
    assert out.read_text(encoding="utf-8") == measured


def test_one_lane_plays_part_after_part_on_one_base(folder: Path) -> None:
    """What comes after another part is what it is alone, and the frozen weights are held once."""
    lane, alone = bench(folder, "ours"), bench(folder, "ours")
    said = []
    for one, parts in ((lane, ("simpo", "rm", "dpo")), (alone, ("dpo",))):
        for part in parts:
            turns = Turns()
            one.begin(part, "ours")
            sides.PARTS[part](one, turns)
        said.append(turns.said[0])
    assert said[0] == said[1]
    first, second = lane.model(), lane.model()
    assert first is not second
    assert first.model.embed_tokens.weight is second.model.embed_tokens.weight
    trained = lane.model(scalar=True).score.weight
    assert trained is not lane.model(scalar=True).score.weight


def test_trl_at_its_best_trains_the_same(folder: Path) -> None:
    said: dict[str, list[dict[str, Any]]] = {}
    for role in gpu.LANES["dpo"]:
        lane, turns = bench(folder, role), Turns()
        lane.begin("dpo", role)
        sides.PARTS["dpo"](lane, turns)
        said[role] = turns.said
    for role in ("trl", sides.BEST):
        found = table.check_training("dpo", "float32", said["ours"][0], said[role][0])
        assert max(found.values()) < 1e-3


def test_graphs_are_ours_alone_and_the_page_says_so(folder: Path) -> None:
    for role in gpu.LANES["dpo"]:
        lane = bench(folder, role)
        assert not lane.train_settings(2).cuda_graphs
        lane.settings = {**lane.settings, "graphs": True}
        assert lane.train_settings(2).cuda_graphs is (role == "ours")
    result: dict[str, Any] = {
        "command": "c",
        "tests": None,
        "parts": [],
        "failures": [],
        "settings": {**SETTINGS, "graphs": True},
    }
    where = {"device": "cpu", "commit": "c", "libraries": {}}
    assert "`cuda_graphs: true`" in gpu.markdown({**result, "environment": where})
    assert "cuda_graphs" not in gpu.markdown({**result, "settings": SETTINGS, "environment": where})


def test_best_options_need_what_they_run_on() -> None:
    on_cpu = sides.best_options(Precision("fp32", "float32", "cpu"))
    assert {name for name, on in on_cpu.items() if on} == {"optim", "precompute_ref_log_probs"}


def test_rows_are_drawn_once_for_all_sides(folder: Path) -> None:
    ours, theirs = bench(folder, "ours"), bench(folder, "trl")
    rows = ours.rows("train", 40)
    assert rows == theirs.rows("train", 40)
    assert rows[:10] == ours.rows("train", 10)
    assert rows != ours.rows("val", 40)
    lengths = [len(row.prompt) + len(answer or ()) for row in rows for answer in (row.chosen, row.rejected)]
    assert max(lengths) <= 64
    special = set(ours.tokenizer.all_special_ids)
    assert not special & {token for row in rows for token in (*row.prompt, *(row.chosen or ()), *(row.rejected or ()))}


@pytest.mark.parametrize("shape", list(gpu_sides.SHAPES))
def test_matrices_are_counted_as_the_model_has_them(shape: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    given = dict(gpu_sides.SHAPES[shape])
    config = AutoConfig.for_model(given.pop("model_type"), **given)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert gpu_sides.parameters_in_matrices(shape) == sum(one.weight.numel() for one in linear)


def test_each_lane_has_its_role_in_each_part() -> None:
    assert gpu.roles_of(("generation", "dpo", "scoring")) == [
        [("generation", "ours"), ("dpo", "ours"), ("scoring", "ours")],
        [("generation", "trl"), ("dpo", "trl"), ("scoring", "trl")],
        [("dpo", "trl, best"), ("scoring", "naive")],
    ]
    assert len(gpu.roles_of(("online",))) == 2


class Lane:
    """Says what a side would; fails in one part."""

    def __init__(self, turns: Sequence[Mapping[str, Any]]) -> None:
        self.name, self._turns = "lane", iter(turns)

    def heard(self) -> dict[str, Any]:
        return {"compute": "float32", "device": "cpu", "best": {"optim": True}}

    def turn(self) -> dict[str, Any]:
        found = next(self._turns, None)
        if found is None:
            raise SideError("out of memory")
        return dict(found)


def test_a_part_that_fails_is_noted_and_the_next_ones_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Sequence[str]] = []

    class Lanes:
        def __init__(self, group: gpu.Group, parts: Sequence[str], *_: Any) -> None:
            started.append(tuple(parts))
            answers = {**TURN, "answers": [[1]]}
            self.lanes = [Lane([] if parts[0] == "dpo" else [answers, answers]) for _ in range(3)]

        def __enter__(self) -> list[Lane]:
            return self.lanes

        def __exit__(self, *_: Any) -> None:
            """Ended."""

    monkeypatch.setattr(gpu, "lanes", Lanes)
    results = gpu.Results(tmp_path / "sizes.json", SETTINGS)
    gpu.measure(gpu.Group("tiny", "fp32", ("dpo", "generation")), tmp_path, SETTINGS, results, gpu.Budget(1))
    assert started == [("dpo", "generation"), ("generation",)]
    again = gpu.Results(tmp_path / "sizes.json", SETTINGS)
    assert again.done("tiny", "fp32") == {"dpo", "generation"}
    assert again.content["failures"][0]["why"] == "out of memory"
    with pytest.raises(SystemExit, match="other settings"):
        gpu.Results(tmp_path / "sizes.json", {**SETTINGS, "repeats": 2})
    here = str(again.content["environment"]["commit"]).removesuffix("-dirty")
    again.content["environment"]["commit"] = f"{here}-dirty"
    again.write()
    gpu.Results(tmp_path / "sizes.json", SETTINGS)
    again.content["environment"]["commit"] = "another"
    again.write()
    with pytest.raises(SystemExit, match=f"was made by commit another on cpu, now commit {here} on cpu; move it away"):
        gpu.Results(tmp_path / "sizes.json", SETTINGS)


def test_no_part_begins_without_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "lanes", lambda *_: pytest.fail("begun"))
    results = gpu.Results(tmp_path / "sizes.json", SETTINGS)
    gpu.measure(gpu.Group("tiny", "fp32", ("dpo",)), tmp_path, SETTINGS, results, gpu.Budget(0))
    gpu.run_tests(results, gpu.Budget(0))
    assert results.content["tests"] is None


def measured(device: str) -> dict[str, Any]:
    ours = {**SECONDS, "seconds": [1.0], "reference_seconds": [0.5], "mismatched_seconds": [0.0]}
    part = {
        "shape": "Llama-3.1-8B",
        "precision": "bf16",
        "part": "dpo",
        "best": {"optim": True, "padding_free": False},
        "compute": "bfloat16",
        "device": "cpu" if device == "cpu" else "cuda",
        "equal": {},
        "sides": {"ours": ours, "trl": {**SECONDS, "seconds": [6.0]}, sides.BEST: SECONDS},
    }
    where = {
        "device": device,
        "libraries": {"torch": "2"},
        "commit": "abc",
        "processor": "p",
        "threads": 1,
        "system": "s",
    }
    return {
        "command": "python benchmarks/gpu.py",
        "environment": where,
        "settings": {**SETTINGS, "shapes": ["Llama-3.1-8B"], "precision": ["bf16"], "parts": ["dpo", "rm"]},
        "tests": None,
        "parts": [part],
        "failures": [],
    }


def test_a_page_holds_like_against_like() -> None:
    """TRL as it comes computes the reference: 6 / (1 + 0.5); at its best it has done so before: 2 / 1."""
    page = gpu.markdown(measured("NVIDIA H200"))
    row = next(line for line in page.splitlines() if line.startswith("| dpo |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:7] == ["67", "17", "50", "4.00 (4.00–4.00)", "2.00 (2.00–2.00)", "1.5"]
    flops = 4 * gpu_sides.parameters_in_matrices("Llama-3.1-8B") * 100
    assert cells[8] == f"{flops / 989e12:.0%} / {flops / 2 / 989e12:.0%}"
    assert f"| rm | {gpu.NOT_RUN} |" in page
    assert "`optim`" in page
    assert "`padding_free`" not in page


def test_no_share_of_a_peak_without_a_gpu() -> None:
    page = gpu.markdown(measured("cpu"))
    assert "%" not in page
    assert f"| {gpu.NOT_RUN} |" in page


def test_its_rows_of_the_log_are_ratios() -> None:
    (row,) = gpu.rows_of(measured("NVIDIA H200"), "2026-12-24-gpu-sizes.json")
    assert row["setting"]["base"] == "Llama-3.1-8B, weights drawn at random"
    medians = {name: ratio["median"] for name, ratio in row["times_faster"].items()}
    assert medians == {"dpo, TRL as it comes": 4.0, "dpo, TRL at its best": 2.0}
    assert history.with_rows([], [row]) == [row]
