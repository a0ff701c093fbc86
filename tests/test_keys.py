"""What a suite's keys depend on beside the code: a method's files, data, weights, templates and libraries."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from align_bench.planning.graph import Graph, make_graph
from align_bench.planning.inputs import Prepared, prepare
from align_bench.planning.known import Known, NothingKnown
from align_bench.plugins.registry import load_registry
from align_bench.runner.environment import REPORT_LIBRARIES
from align_bench.runner.report import report_key
from align_bench.stages import stage as stages
from align_bench.stages.stage import MODEL_LIBRARIES
from align_bench.store import remembered
from align_bench.suite.load import load_suite

PLUGIN = '''
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, PairLogps, algorithm

from ._scale import scaled


@algorithm(data="pairs", reference=False, paper="none", learning_rate=1e-2, reward="s")
def mine(logps: PairLogps) -> Loss:
    """A method with a file beside it."""
    return Loss(
        -logsigmoid(scaled(logps.chosen - logps.rejected)), chosen_rewards=logps.chosen, rejected_rewards=logps.rejected
    )
'''
HELPER = '"""Beside the plugin."""\n\n\ndef scaled(margin):\n    return {factor} * margin\n'
METHODS = ["rm", "dpo", "kto", "mine", "trl_dpo", {"ppo": {"reward": "rm"}}, {"best_of_n": {"reward": "rm", "n": 2}}]

# Stages, as `CELL: LABEL`.
TOKENS = {"train: tokens", "val: tokens", "judge: tokens"}
OVERLAP = "judge: rows shared with train"
BY_JUDGE, BY_LOADED = ": judge", ": judge (judge2)"


class Everything:
    """A `Known` after all work."""

    def facts(self, stage: Any) -> Mapping[str, Any]:
        return {"kept": 0}

    def failure(self, stage: Any) -> None:
        return None


class Suite:
    """A suite with files of its own, planned and never run."""

    def __init__(self, folder: Path, base: Path, judge: Path) -> None:
        self.folder = folder
        shutil.copytree(base, folder / "base")
        shutil.copytree(judge, folder / "loaded")
        write(folder / "algorithms" / "method.py", PLUGIN)
        write(folder / "algorithms" / "_scale.py", HELPER.format(factor=1))
        for split in ("train", "val", "judge"):
            row = {"prompt": f"{split}: 1 + 1?", "chosen": "2", "rejected": "3"}
            write(folder / f"{split}.jsonl", json.dumps(row) + "\n")

    def plan(self, known: Known | None = None, name: str = "keyed", **changes: Any) -> tuple[Prepared, Graph]:
        suite = {
            "name": name,
            "base": str(self.folder / "base"),
            "precision": "fp32",
            "data": {split: {"path": str(self.folder / f"{split}.jsonl")} for split in ("train", "val")},
            "judge": [
                {"method": "rm", "data": {"path": str(self.folder / "judge.jsonl")}},
                {"model": str(self.folder / "loaded")},
            ],
            "generate": {"prompts": 2, "max_new_tokens": 2},
            "methods": METHODS,
            **changes,
        }
        path = self.folder / f"{name}.yaml"
        write(path, yaml.safe_dump(suite))
        prepared = prepare(load_suite(str(path)), load_registry(extra=[str(self.folder / "algorithms")]))
        return prepared, make_graph(prepared, known or NothingKnown())

    def addresses(self, known: Known | None = None, name: str = "keyed", **changes: Any) -> dict[str, str]:
        """`CELL: LABEL` → address, and `report` → the finished report's key."""
        prepared, graph = self.plan(known, name, **changes)
        found = {f"{stage.owner}: {stage.label}": str(stage.address) for stage in graph.stages}
        assert len(found) == len(graph.stages)
        return found | {"report": report_key(prepared, graph)}

    def changed(self, change: Callable[[], object], **more: Any) -> set[str]:
        """What has other keys once something has changed, the report aside, which then has one as well."""
        before = self.addresses(**more)
        change()
        after = self.addresses(**more)
        assert before.keys() == after.keys()
        found = {what for what in before if before[what] != after[what]}
        assert ("report" in found) == bool(found)
        return found - {"report"}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def replace_in_place(path: Path, old: bytes, new: bytes) -> None:
    """Change a file's bytes where they are; its size and its time of change stay."""
    before = path.stat()
    content = path.read_bytes()
    assert len(old) == len(new)
    assert old in content
    time.sleep(0.05)  # longer than a tick of the file system's clock
    with path.open("r+b") as stream:
        stream.seek(content.index(old))
        stream.write(new)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


@pytest.fixture
def suite(tmp_path: Path, base_folder: Path, make_judge: Callable[..., Path]) -> Suite:
    return Suite(tmp_path, base_folder, make_judge(tmp_path / "made", "llama"))


@pytest.fixture(params=["every file is read", "digests are remembered"])
def digests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files as small as here are read each time; large ones are not, as long as they seem to be what they were."""
    monkeypatch.setenv(remembered.CACHE_VARIABLE, str(tmp_path / "cache"))
    if request.param == "digests are remembered":
        monkeypatch.setattr(remembered, "SMALLEST_BYTES", 0)
        monkeypatch.setattr(remembered, "SETTLED_SECONDS", -1.0)


def of_cells(keys: Mapping[str, Any], *cells: str) -> set[str]:
    return {what for what in keys if what.partition(":")[0] in cells}


def everything(suite: Suite) -> set[str]:
    return {*suite.addresses()} - {"report"}


def test_a_suite_asks_for_every_kind_of_stage(suite: Suite) -> None:
    """The suite below is one in which every dependency can be seen."""
    kinds = {stage.kind for stage in suite.plan()[1].stages}
    others = {"reference", "mismatched", "adapter", "validation", "generations", "drift", "judged", "proxy", "audit"}
    assert kinds == {"tokens", "overlap"} | others


def test_nothing_changes_by_itself(suite: Suite) -> None:
    assert suite.changed(lambda: None) == set()


def test_the_name_of_a_suite_is_in_no_key_but_its_report_s(suite: Suite) -> None:
    one, other = suite.addresses(), suite.addresses(name="another")
    assert one.pop("report") != other.pop("report")
    assert one == other


def test_what_has_no_effect_is_in_no_key_but_the_report_s(suite: Suite) -> None:
    one, other = suite.addresses(), suite.addresses(train={"checkpoint_minutes": 0.5})
    assert one.pop("report") != other.pop("report")
    assert one == other


def test_a_plugin_s_file_beside_it(suite: Suite) -> None:
    helper = suite.folder / "algorithms" / "_scale.py"
    found = suite.changed(lambda: write(helper, HELPER.format(factor=2)))
    assert found == of_cells(suite.addresses(), "mine")
    assert found == {"mine: train", "mine: validation pairs", "mine: generate", "mine: drift"} | {
        f"mine{judged}" for judged in (BY_JUDGE, BY_LOADED)
    }


def test_a_plugin_s_docstring(suite: Suite) -> None:
    helper = suite.folder / "algorithms" / "_scale.py"
    assert suite.changed(lambda: write(helper, HELPER.format(factor=1).replace("Beside", "Near"))) == set()


@pytest.mark.usefixtures("digests")
def test_training_rows_changed_in_place(suite: Suite) -> None:
    found = suite.changed(lambda: replace_in_place(suite.folder / "train.jsonl", b'"2"', b'"4"'))
    cells = of_cells(suite.addresses(), "rm", "dpo", "kto", "mine", "trl_dpo", "ppo", "best_of_n")
    draws = {"best_of_n: draw 1 of 2", "best_of_n: draw 2 of 2"}
    assert draws < cells
    assert found == cells - draws | {"train: tokens", "base: proxy rm", OVERLAP}


@pytest.mark.usefixtures("digests")
def test_validation_rows_changed_in_place(suite: Suite) -> None:
    found = suite.changed(lambda: replace_in_place(suite.folder / "val.jsonl", b'"2"', b'"4"'))
    trained = {"train", "tokens", "reference log-probs", "mismatched log-probs", "rows shared with train"}
    measured = {what for what in suite.addresses() if what.partition(": ")[2] not in trained} - {"report"}
    assert found == measured | {"val: tokens"}


@pytest.mark.usefixtures("digests")
def test_a_judge_s_rows_changed_in_place(suite: Suite) -> None:
    found = suite.changed(lambda: replace_in_place(suite.folder / "judge.jsonl", b'"2"', b'"4"'))
    assert found == of_cells(suite.addresses(), "judge") | {
        what for what in suite.addresses() if what.endswith(BY_JUDGE)
    }


@pytest.mark.usefixtures("digests")
@pytest.mark.parametrize(
    ("file", "old", "new"), [("model.safetensors", None, None), ("chat_template.jinja", b"<|end|>", b"<|and|>")]
)
def test_a_base_changed_in_place(suite: Suite, file: str, old: bytes | None, new: bytes | None) -> None:
    """Tables too are written by its tokenizer and template; and a loaded judge reads the rows that a table kept."""
    path = suite.folder / "base" / file
    last = path.read_bytes()[-4:]
    found = suite.changed(lambda: replace_in_place(path, old or last, new or bytes(255 - one for one in last)))
    assert found == everything(suite)


@pytest.mark.usefixtures("digests")
def test_a_loaded_judge_changed_in_place(suite: Suite) -> None:
    path = suite.folder / "loaded" / "model.safetensors"
    last = path.read_bytes()[-4:]
    found = suite.changed(lambda: replace_in_place(path, last, bytes(255 - one for one in last)))
    judged = {what for what in suite.addresses() if what.endswith(BY_LOADED)}
    assert found == of_cells(suite.addresses(), "judge2") | judged


@pytest.fixture
def update(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a library seem to be of another version."""
    known = stages._version

    def updated(library: str) -> None:
        monkeypatch.setattr(stages, "_version", lambda name: "0.0.1" if name == library else known(name))

    return updated


@pytest.mark.parametrize("library", MODEL_LIBRARIES)
def test_a_library_that_computes(suite: Suite, update: Callable[[str], None], library: str) -> None:
    found = suite.changed(lambda: update(library))
    writes = library == "transformers"  # tokenizers too
    assert found == everything(suite) - (set() if writes else {*TOKENS, OVERLAP})


@pytest.mark.parametrize("library", ["tokenizers", "jinja2"])
def test_a_library_that_writes_tokens(suite: Suite, update: Callable[[str], None], library: str) -> None:
    assert suite.changed(lambda: update(library)) == everything(suite)


def test_a_library_that_trains_for_one_method(suite: Suite, update: Callable[[str], None]) -> None:
    assert suite.changed(lambda: update("trl")) == of_cells(suite.addresses(), "trl_dpo")


@pytest.mark.parametrize("library", sorted({*REPORT_LIBRARIES} - {*MODEL_LIBRARIES}))
def test_a_library_of_the_report_alone(suite: Suite, update: Callable[[str], None], library: str) -> None:
    before = suite.addresses()
    update(library)
    after = suite.addresses()
    assert {what for what in before if before[what] != after[what]} == {"report"}


def test_a_library_that_chooses_among_trials(suite: Suite, update: Callable[[str], None]) -> None:
    tuned: dict[str, Any] = {"known": Everything(), "methods": ["rm", "dpo"], "tune": {"trials": 2, "holdout": 0.5}}
    assert "dpo: choice among trials" in suite.addresses(**tuned)
    assert suite.changed(lambda: update("scipy"), **tuned) == {
        "rm: choice among trials",
        "dpo: choice among trials",
    }


def test_every_key_is_a_key(suite: Suite) -> None:
    _, graph = suite.plan()
    assert all(re.fullmatch(r"[a-z]+-[0-9a-f]{20}", str(stage.address)) for stage in graph.stages)
    assert len({stage.address for stage in graph.stages}) == len(graph.stages)
