"""What `plan` shows: each cell's stages, stored or estimated, and nothing done."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from align_bench.cli.plan_view import plan_tables
from align_bench.planning.graph import Graph, make_graph
from align_bench.planning.inputs import Prepared, prepare
from align_bench.planning.known import NothingKnown
from align_bench.plugins.registry import load_registry
from align_bench.records import CellId, Cost
from align_bench.stages.answers import Answers
from align_bench.stages.stage import Stage
from align_bench.stats.power import power_between_methods, seeds_needed
from align_bench.store.store import DAMAGED, MANIFEST, Store
from align_bench.suite.load import load_suite, read_layers

METHOD = '''
from align_bench.api import Loss, PairLogps, algorithm


@algorithm(data="pairs", paper="none", learning_rate=1e-5, reward="s")
def moody(logps: PairLogps, *, mood: str = "calm") -> Loss:
    """A method with a text parameter."""
    raise NotImplementedError
'''

Write = Callable[..., Path]


def make(path: Path) -> Prepared:
    """A suite file as the command line prepares it."""
    suite = load_suite(str(path))
    return prepare(suite, load_registry(suite.plugins))


@pytest.fixture
def prepared(write_suite: Write) -> Prepared:
    """A suite of all data kinds."""
    return make(write_suite(methods=["rm", "dpo", "kto", "simpo"], audit={"pairs": 20}))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder that does not exist yet."""
    return tmp_path / "runs"


def graph(prepared: Prepared) -> Graph:
    """What the suite asks for before any work."""
    return make_graph(prepared, NothingKnown())


def shown(prepared: Prepared, runs: Path) -> str:
    """The text that a wide terminal would show."""
    text = io.StringIO()
    console = Console(file=text, width=400)
    for renderable in plan_tables(prepared, runs):
        console.print(renderable)
    return text.getvalue()


def stages(text: str) -> dict[str, list[str]]:
    """Cell → what stands under each of the headings but the first, as shown."""
    return {row[0]: row[1:] for row in rows_of(text, -1)}


def rows_of(text: str, table: int) -> list[list[str]]:
    """The fields of one of the tables: settings, rows, cells."""
    part = re.split(r"^┏.*$", text, flags=re.MULTILINE)[1:][table]
    return [[field.strip() for field in line.split("│")[1:-1]] for line in part.splitlines() if line.startswith("│")]


def headings(text: str) -> list[str]:
    """What stands above the columns."""
    line = [line for line in text.splitlines() if line.startswith("┃")][-1]
    return [field.strip() for field in line.split("┃")[1:-1]]


def store_it(runs: Path, stage: Stage[object] | None, cost: Cost | None = None, label: str = "") -> Path:
    """Pretend that an artefact has been computed, in place of one that is there; returns its folder."""
    assert stage is not None
    store = Store(runs)
    if (there := store.get_unverified(stage.address)) is not None:
        shutil.rmtree(there.folder)
    with store.scratch(stage.address) as folder:
        return store.put(stage.address, label or stage.owner, folder, cost or Cost(0.0, 0, 0), {}).folder


def counts(text: str) -> tuple[int, int]:
    """Artefacts in all, and those not stored."""
    found = re.search(r"artefacts: (\d+) in all, (\d+) not stored", text)
    assert found is not None
    return int(found[1]), int(found[2])


def test_every_cell_is_a_row_with_its_stages(prepared: Prepared, runs: Path) -> None:
    text = shown(prepared, runs)
    assert "small: 4 cells" in text
    assert headings(text) == ["cell", "seed", "train", "validation", "generate", "drift", "judge", "audit"]
    assert list(stages(text)) == ["base", "judge", "rm", "dpo", "kto", "simpo"]
    estimated = re.compile(r"~[\d,.]+ (s|min|h)")
    has = {cell: [bool(estimated.fullmatch(stage)) for stage in row[1:]] for cell, row in stages(text).items()}
    assert has == {
        "base": [False, True, True, False, True, False],
        "judge": [True, True, False, False, False, True],
        "rm": [True, True, False, False, False, True],
        "dpo": [True, True, True, True, True, False],
        "kto": [True, True, True, True, True, False],
        "simpo": [True, True, True, True, True, False],
    }
    assert stages(text)["base"][1] == "–"


def test_what_a_selection_picks_among_is_one_column_with_its_choice(write_suite: Write, runs: Path) -> None:
    methods = ["rm", {"best_of_n": {"n": 2, "reward": "rm"}}]
    prepared = make(write_suite(methods=methods))
    best = graph(prepared).cells[1]

    def under(heading: str) -> str:
        text = shown(prepared, runs)
        return stages(text)["best_of_n"][headings(text).index(heading) - 1]

    *draws, pick = best.all(Answers)
    assert len(draws) == 2
    assert under("train") == under("validation") == "–"
    for draw in draws:
        store_it(runs, draw)
        assert under("generate").startswith("~")
    store_it(runs, pick)
    assert under("generate") == "stored"


def test_every_setting_is_shown_with_where_it_comes_from(base_folder: Path, tmp_path: Path, runs: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: real\nname: mine\nbase: {base_folder}\ngenerate: {{prompts: 7}}\n", encoding="utf-8")
    planted = {"train": "{path: embedded/planted, rows: 40}", "val": "embedded/planted"}
    overrides = ["methods=[rm, dpo: {learning_rate: 1e-5}]", *(f"data.{key}={value}" for key, value in planted.items())]
    prepared = prepare(load_suite(str(path), overrides), load_registry())
    text = io.StringIO()
    console = Console(file=text, width=400)
    for renderable in plan_tables(prepared, runs, read_layers(str(path), overrides)):
        console.print(renderable)
    settings = {row[0]: row[1:] for row in rows_of(text.getvalue(), 0)}
    assert settings["base"] == [str(base_folder), "mine.yaml"]
    assert settings["train.max_length"] == ["1,024 tokens", "real.yaml"]
    assert settings["generate.max_new_tokens"] == ["256", "real.yaml"]
    assert settings["generate.temperature"] == ["0 (greedy)", "real.yaml"]
    assert settings["generate.prompts"] == ["7", "mine.yaml"]
    assert settings["lora"][1] == "default"
    assert settings["data.train"] == ["embedded/planted, first 40 rows, 80% of the prompts", "--set"]
    assert settings["judge"] == ["rm, trained on 20% of train's prompts, held out of train", "real.yaml"]
    assert settings["methods"] == ["rm at 0.0001 (its default); dpo at 1e-05", "--set"]
    assert settings["precision"][0].startswith("auto: here ")
    splits = {row[0]: row[1:] for row in rows_of(text.getvalue(), 1)}
    assert list(splits) == ["train", "val", "judge"]
    assert int(splits["train"][0]) + int(splits["judge"][0]) == 40
    assert [row[4] for row in splits.values()] == ["0.0%"] * 3


def test_graphs_are_told_with_what_they_do_here(write_suite: Write, runs: Path) -> None:
    asked = {"train": {"cuda_graphs": True}, "generate": {"cuda_graphs": True, "prompts": 4, "max_new_tokens": 4}}
    settings = {row[0]: row[1] for row in rows_of(shown(make(write_suite(**asked)), runs), 0)}
    for key in ("train.cuda_graphs", "generate.cuda_graphs"):
        assert settings[key] == "true, without effect on cpu"
    plain = {row[0] for row in rows_of(shown(make(write_suite()), runs), 0)}
    assert not plain & {"train.cuda_graphs", "generate.cuda_graphs"}


def test_what_would_be_cut_is_told_before_anything_runs(write_suite: Write, runs: Path) -> None:
    """Of twenty rows, the answers of seventeen do not fit."""
    short, long = {"chosen": "yes.", "rejected": "no."}, {"chosen": "word " * 90, "rejected": "no."}
    path = write_suite(methods=["rm", "dpo"], train={"max_length": 64}, generate={"max_new_tokens": 30, "prompts": 5})
    rows = [{"prompt": f"question {number}", **(short if number % 7 == 0 else long)} for number in range(20)]
    (path.parent / "real.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {split: str(path.parent / "real.jsonl") for split in ("train", "val")}
    text = shown(make(write_suite(**yaml.safe_load(path.read_text()) | {"data": data})), runs)
    splits = {row[0]: row[1:] for row in rows_of(text, 1)}
    assert splits["train"][0] == "20"
    assert splits["train"][4:] == ["85.0%", "85.0%"]
    assert "train: 85% of its rows have an answer that does not fit into train.max_length = 64 tokens" in text
    assert "val: 85% of its preferred answers are longer than generate.max_new_tokens = 30" in text
    assert "train: 15%" not in text


def test_memory_is_that_of_the_shape_until_it_was_measured(prepared: Prepared, runs: Path) -> None:
    assert re.search(r"memory at the peak: about 0\.\d GB \(training 0\.\d, writing", shown(prepared, runs))
    store_it(runs, graph(prepared).cells[0].adapter, Cost(1.0, 1, 2_300_000_000))
    assert "memory at the peak: 2.3 GB, measured here" in shown(prepared, runs)


def test_unusual_parameters_are_told(write_suite: Write, runs: Path) -> None:
    text = shown(make(write_suite(methods=[{"dpo": {"beta": 5}}], seeds=[0, 1])), runs)
    assert text.count("dpo: beta=5 is outside the range 0.01–0.5") == 1
    few = shown(make(write_suite(methods=[{"dpo": {"beta": [0.1, 7, 5]}}])), runs)
    assert few.count("dpo: beta=5, 7 is outside") == few.count(": beta=") == 1
    many = shown(make(write_suite(methods=[{"dpo": {"beta": [1, 2, 3, 4, 5]}}])), runs)
    assert many.count("dpo: beta=1 … 5 (5 values) is outside") == many.count(": beta=") == 1


def test_plan_writes_nothing(prepared: Prepared, runs: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    shown(prepared, runs)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_stored_at_first(prepared: Prepared, runs: Path) -> None:
    in_all, missing = counts(shown(prepared, runs))
    assert in_all == len(graph(prepared).stages)
    assert missing == in_all


def test_stored_artefacts_are_told(prepared: Prepared, runs: Path) -> None:
    dpo = next(cell for cell in graph(prepared).cells if cell.id == CellId("dpo"))
    before = counts(shown(prepared, runs))
    for stage in (dpo.adapter, dpo.validation):
        store_it(runs, stage)
    text = shown(prepared, runs)
    assert counts(text) == (before[0], before[1] - 2)
    assert stages(text)["dpo"][1:3] == ["stored", "stored"]
    assert stages(text)["dpo"][3].startswith("~")
    assert "stored" not in stages(text)["simpo"]


def test_finished_suite_has_no_work_left(prepared: Prepared, runs: Path) -> None:
    for stage in graph(prepared).stages:
        store_it(runs, stage)
    text = shown(prepared, runs)
    assert counts(text)[1] == 0
    assert "missing work: 0.0 TFLOP, about 0 s" in text
    assert {stage for row in stages(text).values() for stage in row[1:]} == {"stored", "–"}


def test_estimate_follows_the_rates_of_this_suite(prepared: Prepared, runs: Path) -> None:
    rm, dpo = graph(prepared).cells[:2]

    def estimated(tokens_per_second: float) -> float:
        store_it(runs, rm.adapter, Cost(seconds=10.0, tokens=int(10 * tokens_per_second), peak_bytes=0))
        text = shown(prepared, runs)
        assert "own work, for adapter; not measured yet for " in text
        amount, unit = stages(text)[str(dpo.id)][1].strip("~").split()
        return float(amount.replace(",", "")) * {"s": 1, "min": 60, "h": 3600}[unit]

    slow, fast = estimated(0.1), estimated(0.2)
    assert slow > 1000
    assert slow / fast == pytest.approx(2, rel=0.03)


def test_times_are_told_in_the_unit_that_suits_them(prepared: Prepared, runs: Path) -> None:
    rm, dpo = graph(prepared).cells[:2]
    told = []
    for seconds in (12, 98, 100, 5900, 6000, 360000):
        store_it(runs, rm.adapter, Cost(seconds=seconds, tokens=10**4, peak_bytes=0))
        told.append(stages(shown(prepared, runs))[str(dpo.id)][1])
    units = [one.split()[1] for one in told]
    assert units == sorted(units, key=["s", "min", "h"].index)
    assert set(units) == {"s", "min", "h"}, told


def test_a_methods_own_epochs_are_counted(write_suite: Write, runs: Path) -> None:
    prepared = make(write_suite(methods=[{"dpo": {"epochs": [1, 3]}}]))
    made = graph(prepared)
    one, three = made.cells
    store_it(runs, made.judges[0].adapter, Cost(seconds=9.0, tokens=1, peak_bytes=0))
    lasting = stages(shown(prepared, runs))
    assert lasting[str(one.id)][1].endswith("h")
    hours = [float(lasting[str(cell.id)][1].strip("~ h").replace(",", "")) for cell in (one, three)]
    assert hours[1] / hours[0] == pytest.approx(3, rel=0.03)


def test_estimate_says_what_it_rests_on(prepared: Prepared, runs: Path) -> None:
    text = shown(prepared, runs)
    assert "times: not measured yet for adapter, audit, " in text
    assert "by the speed of a matrix product here, may be off by a factor of 3" in text


def test_steps_are_those_of_the_effective_batch(write_suite: Write, runs: Path) -> None:
    train = {"batch_size": 10, "epochs": 3, "max_length": 128}
    assert "; 9 optimizer steps" in shown(make(write_suite(train=train)), runs)
    swept = [{"dpo": {"batch_size": [5, 10]}}, {"simpo": {"epochs": 1}}]
    assert "; 3–15 optimizer steps" in shown(make(write_suite(train=train, methods=swept)), runs)


def test_one_seed_is_told_what_it_can_claim(prepared: Prepared, runs: Path) -> None:
    text = shown(prepared, runs)
    assert "one seed says which checkpoint is better, not which method: claims about methods take 3 seeds" in text
    assert "power of this suite's" not in text
    # dpo, kto, simpo and the base in pairs, by mean log-probability, judge and gold; the three by the log-ratio too.
    assert "in a family of 21 tests, for a seed noise of dz 0.1 (assumed" in text


def test_methods_that_are_tested_against_one_are_fewer_tests(write_suite: Write, runs: Path) -> None:
    suite = write_suite(methods=["dpo", "kto", "simpo"], report={"against": ["dpo"]})
    # kto and simpo against dpo, and the three against the base, by mean log-probability, judge and gold; the two by
    # the log-ratio too.
    assert "in a family of 17 tests, " in shown(make(suite), runs)


@pytest.mark.parametrize("noise", [None, 0.02])
def test_seeds_needed_are_those_of_the_suites_size(write_suite: Write, runs: Path, noise: float | None) -> None:
    methods, report = ["rm", "dpo", "kto"], {} if noise is None else {"seed_noise": noise}
    prepared = make(write_suite(methods=methods, seeds=[0, 1, 2], report=report))
    prompts = len({row.prompt for row in prepared.inputs.rows["val"].read().rows})
    prompts = min(prompts, prepared.suite.generate.prompts)
    text = shown(prepared, runs)
    tests = 9 + 1  # dpo, kto and the base by mean log-probability, judge and gold; dpo and kto by the log-ratio
    counts = [seeds_needed(dz, noise or 0.1, prompts, tests) for dz in (0.1, 0.2, 0.5)]
    needed = ", ".join(
        f"{count or 'more than 20'} for dz {dz}" for count, dz in zip(counts, (0.1, 0.2, 0.5), strict=True)
    )
    assert f"with 80% power: {needed} (in" in text
    power = power_between_methods(0.2, noise or 0.1, 3, prompts, tests)
    assert power is not None
    assert f"{power:.0%} for dz 0.2" in text
    assert "one seed" not in text
    source = "assumed: `report: {seed_noise: …}` declares another" if noise is None else "by `report: seed_noise`"
    assert (
        f"on {prompts} prompts, in a family of {tests} tests, for a seed noise of dz {noise or 0.1} ({source})" in text
    )


def test_a_suite_without_two_methods_has_no_claims(write_suite: Write, runs: Path) -> None:
    assert "seed" not in shown(make(write_suite(methods=["rm"])), runs).rpartition("└")[2]
    two = shown(make(write_suite(methods=["rm", "poe_rm"], seeds=[0, 1])), runs)
    assert "two seeds say which checkpoint is better" in two
    assert "in a family of 2 tests," in two  # of all pairs, and of those whose right answer is the shorter


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_damaged_manifest_does_not_stop_the_plan(prepared: Prepared, runs: Path, content: bytes) -> None:
    """It is not stored; a run moves it aside, manifest and all, and the next `plan` still works."""
    base = graph(prepared).base.validation
    assert base is not None
    folder = store_it(runs, base)
    assert stages(shown(prepared, runs))["base"][2] == "stored"
    (folder / MANIFEST).write_bytes(content)
    assert stages(shown(prepared, runs))["base"][2].startswith("~")
    assert Store(runs).get(base.address) is None
    assert not folder.exists()
    assert stages(shown(prepared, runs))["base"][2].startswith("~")


def test_rates_do_not_rest_on_what_was_moved_aside(prepared: Prepared, runs: Path) -> None:
    adapter = graph(prepared).cells[0].adapter
    assert adapter is not None
    folder = store_it(runs, adapter, Cost(10.0, 10, 0))
    assert "times: measured here, in this suite's own work, for adapter;" in shown(prepared, runs)
    aside = runs / DAMAGED / str(adapter.address)
    aside.parent.mkdir()
    folder.rename(aside)
    assert json.loads((aside / MANIFEST).read_text(encoding="utf-8"))["kind"] == "adapter"
    assert "times: not measured yet for adapter, " in shown(prepared, runs)


def test_hostile_text_is_shown_and_not_obeyed(write_suite: Write, runs: Path) -> None:
    path = write_suite(methods=["rm", {"moody": {"mood": ["[/red]", "[bold]x", "calm"]}}], plugins=["moody.py"])
    (path.parent / "moody.py").write_text(METHOD, encoding="utf-8")
    prepared = make(path)
    frozen = prepared.inputs.frozen
    renamed = replace(frozen, base=replace(frozen.base, name="some/[red]base[/]"))
    prepared = replace(prepared, inputs=replace(prepared.inputs, frozen=renamed))
    text = shown(prepared, runs)
    assert "some/[red]base[/]" in text
    assert {"moody[mood=[/red]]", "moody[mood=[bold]x]", "moody[mood=calm]"} <= set(stages(text))
