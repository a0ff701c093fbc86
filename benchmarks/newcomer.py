"""Walk the README, the docs, the tutorial and the notebook word by word, in an empty home and a fresh environment.

Every line of shell is typed as it stands. Where a page says `data/train.parquet` and `mine.yaml`, the walk has written
small ones; where it names a model of the hub, the embedded one stands in; and what takes long is tried with `--quick`.
Lines that need an account, a GPU or the course's files are skipped, and said.

Example:
    python benchmarks/newcomer.py --out benchmarks/results/newcomer.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from empty_home import Done, Home

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "docs/notebook.ipynb"
# Pages, and where they are walked: in the clone, or in an empty folder.
CLONE, EMPTY = "clone", "empty"
WALK = (
    ("README.md", CLONE),
    ("docs/quick-start.md", CLONE),
    ("docs/reading-a-report.md", CLONE),
    ("docs/your-data.md", CLONE),
    ("docs/your-model.md", CLONE),
    ("docs/judges.md", CLONE),
    ("docs/assignment.md", CLONE),
    ("docs/your-method.md", CLONE),
    ("docs/python.md", CLONE),
    ("docs/trackers.md", CLONE),
    ("algorithms/README.md", EMPTY),
    (NOTEBOOK, CLONE),
)
SKIPPED = {
    r"^tox|&& tox|pip install tox": "it runs all tests",
    r"^pip install \.$": "installed by the first line of the README",
    r"publish": "it needs an account",
    r"--gguf": "llama.cpp does not know the embedded model's tokenizer",
    r"assignment-qwen": "it needs the course's files and a GPU",
}
# What is typed in another form, so that the walk ends soon.
SMALLER = (
    (r"align-bench run (suites/assignment\.yaml|assignment)(?! --quick)", r"align-bench run \1 --quick"),
    (r"(align-bench (?:report|verify) assignment)\b", r"\1-quick"),
    (r"(align-bench compare dpo simpo assignment)\b", r"\1-quick"),
    (r"--judge assignment\b", "--judge assignment-quick"),
    (r"^pytest ", "pip install --quiet pytest && pytest "),  # as the page says above it
    (r"Qwen/Qwen2\.5-0\.5B-Instruct", "embedded/tiny"),
)
SIZES = """
train: {max_length: 128}
generate: {prompts: 8, max_new_tokens: 8}
audit: {pairs: 8}
"""
ROWS = """
import json
import pandas as pd
from align_bench.data.planted import planted

for split, rows in (("train", 64), ("val", 24)):
    columns = ("prompt", "chosen", "rejected")
    frame = {name: [getattr(pair, name) for pair in planted(split, rows=rows)] for name in columns}
    pd.DataFrame(frame).to_parquet(f"data/{split}.parquet")
with open("answers.jsonl", "w") as file:
    for pair in planted("val", rows=8):
        file.write(json.dumps({"prompt": pair.prompt, "completion": pair.chosen}) + "\\n")
"""
BLOCK = re.compile(r"^```(\w+)\n([\s\S]*?)^```$", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """A line of a page, and how it ended.

    Attributes:
        page: the page.
        line: what it says.
        skipped: why it was not typed, if so.
        done: how it ended, if it was.
    """

    page: str
    line: str
    skipped: str = ""
    done: Done | None = None

    @property
    def told(self) -> str:
        """How it ended, in a cell of a table."""
        if self.done is None:
            return f"skipped: {self.skipped}"
        return f"{'ended' if self.as_said else 'FAILED'} with {self.done.code}, {self.done.seconds:.0f} s"

    @property
    def as_said(self) -> bool:
        """Whether it ended as the page says, which is with 0 unless it says `exit code 1`."""
        return self.done is None or self.done.code == int("exit code 1" in self.line)


class Newcomer:
    """Somebody with an empty home, who types what pages say."""

    def __init__(self, folder: Path) -> None:
        """Make the home, and a clone of what is committed."""
        self.home = Home.made(folder / "self")
        self.places = {name: folder / name for name in (CLONE, EMPTY)}
        subprocess.run(["git", "clone", "--quiet", ROOT, self.places[CLONE]], check=True)
        self.places[EMPTY].mkdir()

    def walk(self, page: str, place: str) -> Iterator[Step]:
        """Type every block of a page, in order."""
        at = self.places[place]
        if page != WALK[0][0] and not (self.places[CLONE] / "data").is_dir():  # the README has installed the package
            self.bring_rows(self.places[CLONE])
        if page == NOTEBOOK:
            yield self.exec_notebook(at)
            return
        for number, (language, code) in enumerate(BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))):
            if language == "sh":
                yield from (self.type(page, line, at) for line in code.splitlines())
            elif language == "python" and "# " not in code.partition("\n")[0]:
                yield self.exec_python(page, code, at, number)
            elif language in ("python", "yaml") and (name := re.match(r"# (\S+)\n", code)):
                (at / name[1]).parent.mkdir(exist_ok=True)
                (at / name[1]).write_text(code, encoding="utf-8")

    def type(self, page: str, line: str, at: Path) -> Step:
        """Type one line."""
        typed = line.partition(" #")[0].strip()
        for pattern, reason in SKIPPED.items():
            if re.search(pattern, typed):
                return Step(page, line, reason)
        for pattern, other in SMALLER:
            typed = re.sub(pattern, other, typed)
        return Step(page, line, done=self.home.run(typed, at))

    def exec_python(self, page: str, code: str, at: Path, number: int) -> Step:
        """Run a block of Python: a plugin through `check`, anything else as a script after the blocks before it."""
        if "@algorithm" in code:
            (at / "my_dpo.py").write_text(code, encoding="utf-8")
            return Step(page, "the plugin", done=self.home.run("align-bench show my_dpo --plugin my_dpo.py", at))
        if "mine.yaml" in code:
            return Step(page, "a block of Python", "the notebook runs the same")
        script = at / f"so_far_{page.replace('/', '_')}.py"
        script.write_text((script.read_text(encoding="utf-8") if script.is_file() else "") + code, encoding="utf-8")
        return Step(page, f"block {number} of Python", done=self.home.run(f"python {script.name}", at))

    def exec_notebook(self, at: Path) -> Step:
        """Run the cells of the notebook, one after the other."""
        cells = json.loads((ROOT / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        (at / "notebook.py").write_text(code, encoding="utf-8")
        return Step(NOTEBOOK, "all cells", done=self.home.run("python notebook.py", at))

    def bring_rows(self, at: Path) -> None:
        """Write the rows, the suite and the plugin that somebody has of their own."""
        (at / "data").mkdir()
        (at / "rows.py").write_text(ROWS, encoding="utf-8")
        done = self.home.run("python rows.py", at)
        if done.code:
            raise SystemExit(done.last_words)
        ((_, suite),) = [found for found in BLOCK.findall((ROOT / "README.md").read_text()) if found[0] == "yaml"]
        for pattern, other in SMALLER:
            suite = re.sub(pattern, other, suite)
        (at / "mine.yaml").write_text(suite + SIZES, encoding="utf-8")


def where() -> str:
    """The commit that is walked, and the machine."""
    asked = ["git", "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    info = Path("/proc/cpuinfo")
    models = (
        re.findall(r"^model name\s*: (.+)$", info.read_text(encoding="utf-8"), re.MULTILINE) if info.is_file() else []
    )
    processor = models[0] if models else platform.processor() or platform.machine()
    return f"the code of commit {commit}, on {processor}, {os.cpu_count()} cores, Python {platform.python_version()}"


def page_of(steps: Sequence[Step], command: str, where: str) -> str:
    """What happened, as Markdown."""
    failed = sum(not step.as_said for step in steps)
    typed = sum(step.done is not None for step in steps)
    lines = [
        "# The newcomer's walk",
        "",
        f"Made by `{command}`, with {where}: {typed} lines typed in an empty home and a fresh environment, {failed} "
        f"failed, {len(steps) - typed} skipped. Seconds are of a shared machine.",
        "",
        "| page | line | |",
        "|---|---|---|",
    ]
    for step in steps:
        line = " ".join(step.line.partition(" #")[0].split()).replace("|", "\\|")
        lines.append(f"| {step.page} | `{line}` | {step.told} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Walk every page, say how each line ends, and end with 1 if one did not as the page says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a Markdown file to write")
    parser.add_argument("--keep", type=Path, help="the folder to walk in, which stays")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp())
    newcomer, steps = Newcomer(folder), []
    for page, place in WALK:
        for step in newcomer.walk(page, place):
            steps.append(step)
            print(f"{page}: {step.line.strip()}: {step.told}", flush=True)
            if step.done and not step.as_said:
                print(step.done.last_words, flush=True)
    if arguments.out:
        command = f"python benchmarks/newcomer.py {' '.join(sys.argv[1:])}".strip()
        arguments.out.write_text(page_of(steps, command, where()), encoding="utf-8")
    if not arguments.keep:
        shutil.rmtree(folder)
    sys.exit(int(any(not step.as_said for step in steps)))


if __name__ == "__main__":
    main()
