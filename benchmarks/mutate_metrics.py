"""Which changes of a formula no test notices: every function of the metrics and statistics, mutated by mutmut.

mutmut (settings: `[tool.mutmut]` in pyproject.toml) changes one operator, number, argument or condition at a time, and
runs the tests of tests/metrics and tests/stats that pass through the changed function. A mutant that they all pass
survives. What survives is listed with its change, so that a reader can judge whether it matters; a section "Judged"
that the file already has is kept. Not a part of the test run.

Example:
    pip install mutmut && mutmut run && python benchmarks/mutate_metrics.py benchmarks/results/mutation.md
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

MUTANTS = Path("mutants")
KILLED, SURVIVED, UNTESTED, TIMED_OUT = "killed", "survived", "no test", "timed out"
# What mutmut stores: the exit code of pytest, or of the process that it had to end.
ENDS = {1: KILLED, 3: KILLED, 0: SURVIVED, 5: UNTESTED, 33: UNTESTED} | dict.fromkeys(
    (36, 24, -24, 152, 255), TIMED_OUT
)


def main() -> None:
    """Write the table of all mutants, and the change of each that survives, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the Markdown file to write")
    output = parser.parse_args().output
    found = {
        str(path.relative_to(MUTANTS)).removesuffix(".meta"): json.loads(path.read_text())["exit_code_by_key"]
        for path in sorted(MUTANTS.rglob("*.py.meta"))
    }
    if not found:
        sys.exit("nothing mutated yet: run `mutmut run` first")
    output.parent.mkdir(parents=True, exist_ok=True)
    judged = re.search(r"## Judged\n.*?(?=\n## |\Z)", output.read_text("utf-8") if output.exists() else "", re.DOTALL)
    output.write_text(written(found, judged[0].strip() if judged else ""), encoding="utf-8")


def written(found: dict[str, dict[str, int | None]], judged: str) -> str:
    """The page, from module → mutant → exit code of its tests (None: not run), and a section that a person wrote."""
    kinds = (KILLED, TIMED_OUT, SURVIVED, UNTESTED)
    lines = [
        "# Mutants of the metrics and statistics",
        "Made by `mutmut run && python benchmarks/mutate_metrics.py benchmarks/results/mutation.md`, "
        f"mutmut {version('mutmut')}.",
        "| module | mutants | " + " | ".join(kinds) + " | not run |\n|:---|" + "---:|" * (len(kinds) + 2),
    ]
    survivors = []
    total: Counter[str] = Counter()
    for module, codes in found.items():
        ends = Counter("not run" if code is None else ENDS.get(code, f"exit {code}") for code in codes.values())
        if not ends:
            continue
        total += ends
        lines[-1] += (
            f"\n| {module} | {ends.total()} | " + " | ".join(str(ends[kind]) for kind in (*kinds, "not run")) + " |"
        )
        survivors += [
            mutant for mutant, code in codes.items() if code is not None and ENDS.get(code) in (SURVIVED, UNTESTED)
        ]
    lines[-1] += f"\n| all | {total.total()} | " + " | ".join(str(total[kind]) for kind in (*kinds, "not run")) + " |"
    lines += [judged] * bool(judged)
    shown = {mutant: change(mutant) for mutant in survivors}
    guards = sum(map(is_guard, shown.values()))
    lines.append(
        f"## What survived\n\n{guards} change nothing but `strict=` or `dtype=`, which guard a formula; the others:"
    )
    lines += [f"`{mutant}`\n\n```diff\n{made}\n```" for mutant, made in shown.items() if not is_guard(made)]
    return "\n\n".join(lines) + "\n"


def is_guard(made: str) -> bool:
    """Whether a change is to nothing but a check of lengths or a type."""
    before, *after = (
        re.sub(r"(,\s*)?(strict|dtype)=[\s\w.]*|[\s,]", "", line[1:]) for line in made.splitlines() or [""]
    )
    return after == [before]


def change(mutant: str) -> str:
    """The lines that a mutant changes."""
    shown = subprocess.run(["mutmut", "show", mutant], capture_output=True, text=True, check=True).stdout
    changed = [
        line for line in shown.splitlines() if line.startswith(("-", "+")) and not line.startswith(("---", "+++"))
    ]
    return "\n".join(changed)


if __name__ == "__main__":
    main()
