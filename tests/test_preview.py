"""What `plan` shows: each cell's stages, stored or estimated, and nothing done."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from align_bench.pipeline import Folders, Prepared, prepare
from align_bench.plan import Address
from align_bench.preview import plan_tables
from align_bench.records import Cost
from align_bench.registry import load_registry
from align_bench.store import MANIFEST, Store
from align_bench.suite.load import load_suite

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
    return prepare(suite, load_registry(path, suite.plugins))


@pytest.fixture
def prepared(write_suite: Write) -> Prepared:
    """A suite of all data kinds."""
    return make(write_suite(methods=["rm", "dpo", "kto", "simpo"]))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Folders that do not exist yet."""
    return Folders(tmp_path / "runs", tmp_path / "reports")


def shown(prepared: Prepared, folders: Folders) -> str:
    """The text that a wide terminal would show."""
    console = Console(file=io.StringIO(), width=400)
    for renderable in plan_tables(prepared, folders):
        console.print(renderable)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def stages(text: str) -> dict[str, list[str]]:
    """Cell → seed, train, validation, generate, judge, audit, as shown."""
    rows = [[field.strip() for field in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in rows}


def store_it(prepared: Prepared, folders: Folders, address: Address | None, cost: Cost | None = None) -> None:
    """Pretend that an artefact has been computed."""
    assert address is not None
    store = Store(folders.runs / prepared.suite.name)
    with store.scratch(address.kind, address.key) as folder:
        store.put(address.kind, address.key, folder, cost or Cost(0.0, 0, 0), {})


def counts(text: str) -> tuple[int, int]:
    """Artefacts in all, and those not stored."""
    found = re.search(r"artefacts: (\d+) in all, (\d+) not stored", text)
    assert found is not None
    return int(found[1]), int(found[2])


def test_every_cell_is_a_row_with_its_stages(prepared: Prepared, folders: Folders) -> None:
    text = shown(prepared, folders)
    assert "small: 4 cells" in text
    assert list(stages(text)) == ["base", "judge", "rm", "dpo", "kto", "simpo"]
    estimated = re.compile(r"~[\d,.]+ (s|min|h)")
    has = {cell: [bool(estimated.fullmatch(stage)) for stage in row[1:]] for cell, row in stages(text).items()}
    assert has == {
        "base": [False, True, True, True, False, False],
        "judge": [True, True, False, False, False, True],
        "rm": [True, True, False, False, False, True],
        "dpo": [True, True, True, True, True, False],
        "kto": [True, True, True, True, True, False],
        "simpo": [True, True, True, True, True, False],
    }
    assert stages(text)["base"][1] == "–"


def test_unusual_parameters_are_told(write_suite: Write, folders: Folders) -> None:
    text = shown(make(write_suite(methods=[{"dpo": {"beta": 5}}], seeds=[0, 1])), folders)
    assert text.count("dpo: beta=5 is outside the range 0.01–0.5") == 1


def test_plan_writes_nothing(prepared: Prepared, folders: Folders, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    shown(prepared, folders)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_stored_at_first(prepared: Prepared, folders: Folders) -> None:
    in_all, missing = counts(shown(prepared, folders))
    assert in_all == len(list(prepared.plan.addresses()))
    assert missing == in_all


def test_stored_artefacts_are_told(prepared: Prepared, folders: Folders) -> None:
    dpo = next(cell for cell in prepared.plan.cells if cell.id == "dpo")
    before = counts(shown(prepared, folders))
    for address in (dpo.adapter, dpo.val):
        store_it(prepared, folders, address)
    text = shown(prepared, folders)
    assert counts(text) == (before[0], before[1] - 2)
    assert stages(text)["dpo"][1:3] == ["stored", "stored"]
    assert stages(text)["dpo"][3].startswith("~")
    assert "stored" not in stages(text)["simpo"]


def test_finished_suite_has_no_work_left(prepared: Prepared, folders: Folders) -> None:
    for _, address in prepared.plan.addresses():
        store_it(prepared, folders, address)
    text = shown(prepared, folders)
    assert counts(text)[1] == 0
    assert "missing work: 0.0 TFLOP, about 0 s" in text
    assert {stage for row in stages(text).values() for stage in row[1:]} == {"stored", "–"}


def test_estimate_follows_the_rates_of_this_suite(prepared: Prepared, folders: Folders) -> None:
    rm, dpo = prepared.plan.cells[:2]

    def estimated(tokens_per_second: float) -> float:
        store_it(prepared, folders, rm.adapter, Cost(seconds=10.0, tokens=int(10 * tokens_per_second), peak_bytes=0))
        text = shown(prepared, folders)
        assert "own rates (adapter)" in text
        amount, unit = stages(text)[dpo.id][1].strip("~").split()
        return float(amount.replace(",", "")) * {"s": 1, "min": 60, "h": 3600}[unit]

    slow, fast = estimated(0.1), estimated(0.2)
    assert slow > 1000
    assert slow / fast == pytest.approx(2, rel=0.03)


def test_times_are_told_in_the_unit_that_suits_them(prepared: Prepared, folders: Folders) -> None:
    rm, dpo = prepared.plan.cells[:2]
    told = []
    for seconds in (12, 98, 100, 5900, 6000, 360000):
        store_it(prepared, folders, rm.adapter, Cost(seconds=seconds, tokens=10**4, peak_bytes=0))
        told.append(stages(shown(prepared, folders))[dpo.id][1])
    units = [one.split()[1] for one in told]
    assert units == sorted(units, key=["s", "min", "h"].index)
    assert set(units) == {"s", "min", "h"}, told


def test_a_methods_own_epochs_are_counted(write_suite: Write, folders: Folders) -> None:
    prepared = make(write_suite(methods=[{"dpo": {"epochs": [1, 3]}}]))
    one, three = prepared.plan.cells
    store_it(prepared, folders, prepared.plan.judges[0].adapter, Cost(seconds=9.0, tokens=1, peak_bytes=0))
    lasting = stages(shown(prepared, folders))
    assert lasting[one.id][1].endswith("h")
    hours = [float(lasting[cell.id][1].strip("~ h").replace(",", "")) for cell in (one, three)]
    assert hours[1] / hours[0] == pytest.approx(3, rel=0.03)


def test_estimate_says_what_it_rests_on(prepared: Prepared, folders: Folders) -> None:
    text = shown(prepared, folders)
    assert "none yet" in text
    assert "matrix product" in text


def test_steps_are_those_of_the_effective_batch(write_suite: Write, folders: Folders) -> None:
    train = {"batch_size": 10, "epochs": 3, "max_length": 128}
    assert "; 9 optimizer steps" in shown(make(write_suite(train=train)), folders)
    swept = [{"dpo": {"batch_size": [5, 10]}}, {"simpo": {"epochs": 1}}]
    assert "; 3–15 optimizer steps" in shown(make(write_suite(train=train, methods=swept)), folders)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_damaged_manifest_does_not_stop_the_plan(prepared: Prepared, folders: Folders, content: bytes) -> None:
    """A run moves a damaged artefact aside, manifest and all; the next `plan` still works."""
    store = Store(folders.runs / prepared.suite.name)
    address = prepared.plan.base.val
    store_it(prepared, folders, address)
    (store.path(address.kind, address.key) / MANIFEST).write_bytes(content)
    before = shown(prepared, folders)
    assert stages(before)["base"][2] == "stored", "what lies under its own name is checked when it is read"
    store.path(address.kind, address.key).rename(store.folder / f"damaged-{address.kind}-{address.key}-1")
    assert stages(shown(prepared, folders))["base"][2].startswith("~")


def test_rates_do_not_rest_on_what_was_moved_aside(prepared: Prepared, folders: Folders) -> None:
    store_it(prepared, folders, prepared.plan.cells[0].adapter, Cost(10.0, 10, 0))
    store = Store(folders.runs / prepared.suite.name)
    (folder,) = store.folder.iterdir()
    folder.rename(store.folder / f"damaged-{folder.name}-1")
    manifest = json.loads((store.folder / f"damaged-{folder.name}-1" / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["kind"] == "adapter"
    assert "none yet" in shown(prepared, folders)


def test_hostile_text_is_shown_and_not_obeyed(write_suite: Write, folders: Folders) -> None:
    path = write_suite(methods=["rm", {"moody": {"mood": ["[/red]", "[bold]x", "calm"]}}], plugins=["moody.py"])
    (path.parent / "moody.py").write_text(METHOD, encoding="utf-8")
    prepared = make(path)
    prepared = replace(prepared, base=replace(prepared.base, name="some/[red]base[/]"))
    text = shown(prepared, folders)
    assert "some/[red]base[/]" in text
    assert {"moody[mood=[/red]]", "moody[mood=[bold]x]", "moody[mood=calm]"} <= set(stages(text))
