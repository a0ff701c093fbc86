"""A stage is a file: one new file and one line of the layout make it planned, shown, run, stored and resumed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import Command, StartCommand

ROOT = Path(__file__).parents[1]
NAME = "verbosity"
FILE = '''"""How many words each answer has."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align_bench.stages.answers import Answers
from align_bench.stages.stage import Desk, Made, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.store.store import Artefact


@dataclass(frozen=True, kw_only=True, eq=False)
class Verbosity(Stage["list[int]"]):
    """Words of each answer."""

    answers: Answers
    kind = "verbosity"
    column = "words said"
    libraries = ()

    @property
    def label(self) -> str:
        return "count words"

    def needs(self) -> tuple[Stage[object], ...]:
        return (self.answers,)

    def identity(self) -> dict[str, Any]:
        return {}

    def run(self, desk: Desk, folder: Path) -> Made:
        lines, words = desk.load(self.answers), []
        for number, line in enumerate(lines, 1):
            words.append(len(line["text"].split()))
            (folder / "words.json").write_text(json.dumps(words), encoding="utf-8")
            desk.update(number, len(lines))
            if number == 2 and "WAITS" in os.environ:
                time.sleep(600)
        return Made(facts={"answers": len(lines)})

    def load(self, artefact: Artefact) -> list[int]:
        return json.loads((artefact / "words.json").read_text(encoding="utf-8"))
'''
# Each line is put before what it stands beside here.
LINES = {
    "from align_bench.stages.validate_judge import": "from align_bench.stages.verbosity import Verbosity\n",
    "        if adapter is not None:\n            yield from self": "        yield Verbosity(**own, answers=answers)\n",
}


@dataclass(frozen=True)
class Grown:
    """A copy of the package with one stage more, and a suite that it runs."""

    folder: Path
    suite: Path
    start_command: StartCommand

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def start(self, *arguments: str, **environment: str) -> Command:
        """A command of the copy, in its folder."""
        variables = {"COLUMNS": "200", **environment}
        return self.start_command(*arguments, cwd=self.folder, packages=self.folder, environment=variables)

    def call(self, *arguments: str) -> str:
        """What a command of the copy printed."""
        command = self.start(*arguments)
        assert command.wait() == 0, command.said
        return command.printed

    def stages_of_run(self) -> list[str]:
        """The kinds of what a run has made, in the order in which it was stored."""
        before = set(self.runs.glob("*/*/manifest.json"))
        self.call("run", str(self.suite))
        made = set(self.runs.glob("*/*/manifest.json")) - before
        return [path.parent.parent.name for path in sorted(made, key=lambda path: path.stat().st_mtime_ns)]

    def stored(self, kind: str) -> list[Path]:
        return sorted((self.runs / kind).glob("*/manifest.json"))


@pytest.fixture
def grown(tmp_path: Path, small_suite: dict[str, Any], start_command: StartCommand) -> Grown:
    folder = tmp_path
    shutil.copytree(ROOT / "align_bench", folder / "align_bench", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("algorithms", "suites"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "align_bench" / "stages" / f"{NAME}.py").write_text(FILE, encoding="utf-8")
    layout = folder / "align_bench" / "planning" / "layout.py"
    text = layout.read_text(encoding="utf-8")
    for beside, line in LINES.items():
        assert text.count(beside) == 1, beside
        text = text.replace(beside, line + beside)
    layout.write_text(text, encoding="utf-8")
    generate = {"prompts": 4, "max_new_tokens": 3}
    suite = folder / "grown.yaml"
    small = {**small_suite, "name": "grown", "judge": "gold", "methods": ["dpo"], "generate": generate}
    suite.write_text(yaml.safe_dump(small), encoding="utf-8")
    return Grown(folder, suite, start_command)


def test_its_name_is_nowhere_else(grown: Grown) -> None:
    naming = {
        path.relative_to(grown.folder).as_posix(): len(
            re.findall(NAME, path.read_text(encoding="utf-8"), re.IGNORECASE)
        )
        for path in (grown.folder / "align_bench").rglob("*.py")
        if re.search(NAME, path.read_text(encoding="utf-8"), re.IGNORECASE)
    }
    # Two lines of the layout: the import names the module and the class.
    assert naming == {f"align_bench/stages/{NAME}.py": FILE.lower().count(NAME), "align_bench/planning/layout.py": 3}


def test_it_is_planned_shown_run_stored_and_resumed(grown: Grown) -> None:
    """One test, for each part goes on from the one before it."""
    planned = grown.call("plan", str(grown.suite))
    heading, row = plan_row(planned, "dpo")
    assert row[heading.index("words said")].startswith("~")
    assert plan_row(planned, "base")[1][heading.index("words said")] == "–", "it is not asked for there"

    killed = grown.start("run", str(grown.suite), WAITS="1")
    half = wait_for(grown.runs / ".writing", f"{NAME}-*/words.json", killed)
    assert len(json.loads(half.read_text(encoding="utf-8"))) == 2
    killed.process.kill()
    assert killed.wait() == -signal.SIGKILL
    assert not grown.stored(NAME)
    before = {path: json.loads(path.read_bytes()) for path in grown.runs.glob("*/*/manifest.json")}
    assert {manifest["kind"] for manifest in before.values()} >= {"tokens", "adapter", "generations"}

    done = grown.stages_of_run()
    assert done == [NAME, "drift"], "what the killed run had stored is not made again"
    assert {path: json.loads(path.read_bytes()) for path in before} == before
    (manifest,) = grown.stored(NAME)
    assert re.fullmatch(r"dpo-0-[0-9a-f]{20}", manifest.parent.name)
    assert json.loads(manifest.read_bytes())["facts"] == {"answers": 4}
    assert len(json.loads((manifest.parent / "words.json").read_bytes())) == 4
    assert not list((grown.runs / ".writing").iterdir())

    assert grown.stages_of_run() == []
    heading, row = plan_row(grown.call("plan", str(grown.suite)), "dpo")
    assert row[heading.index("words said")] == "stored"


def plan_row(planned: str, cell: str) -> tuple[list[str], list[str]]:
    """The headings of the plan's table, and a cell's row."""
    lines = [re.split(r"[┃│]", line) for line in planned.splitlines() if re.search(r"[┃│]", line)]
    rows = [[part.strip() for part in line[1:-1]] for line in lines]
    heading = next(place for place, row in enumerate(rows) if row[:1] == ["cell"])
    return rows[heading], next(row for row in rows[heading:] if row[:1] == [cell])


def wait_for(folder: Path, pattern: str, command: Command) -> Path:
    """The file of a running process that holds two numbers."""
    for _ in range(3000):
        for path in folder.glob(pattern):
            if path.read_text(encoding="utf-8").count(",") == 1:
                return path
        assert command.running(), command.said
        time.sleep(0.1)
    raise AssertionError(f"no {pattern} in {folder}")
