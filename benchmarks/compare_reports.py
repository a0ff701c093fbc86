"""Compare two `report.json` of the same suite, number by number: `python benchmarks/compare_reports.py OLD NEW`.

What may differ is left out: costs and what follows from seconds (`cost`, `shared`, `pareto`), the machine
(`environment`), and how the report came about (`command`, `state`). Everything else has to be equal, and is named by
its path where it is not. Exit code 1 when anything differs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LEFT_OUT = frozenset({"command", "cost", "environment", "pareto", "shared", "state"})


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Every place where two JSON values differ, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key in LEFT_OUT:
                continue
            where = f"{path}.{key}" if path else key
            if key not in old or key not in new:
                yield f"{where}: only in the {'new' if key in new else 'old'} report"
            else:
                yield from differences(old[key], new[key], where)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{path}: {len(old)} entries, then {len(new)}"
        for place, (one, other) in enumerate(zip(old, new, strict=False)):
            yield from differences(one, other, f"{path}[{place}]")
    elif old != new or type(old) is not type(new):
        yield f"{path}: {old!r}, then {new!r}{_apart(old, new)}"


def numbers(value: Any) -> int:
    """How many numbers a JSON value holds, those that are left out aside."""
    if isinstance(value, dict):
        return sum(numbers(item) for key, item in value.items() if key not in LEFT_OUT)
    if isinstance(value, list):
        return sum(map(numbers, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _apart(old: Any, new: Any) -> str:
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in (old, new)):
        return ""
    return f" (by {abs(old - new):.3g})"


def main() -> int:
    """Print the differences and how many numbers were compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, help="a report.json, or the folder that holds it")
    parser.add_argument("new", type=Path, help="the other one")
    given = parser.parse_args()
    files = [path / "report.json" if path.is_dir() else path for path in (given.old, given.new)]
    old, new = (json.loads(path.read_bytes()) for path in files)
    found = list(differences(old, new))
    for line in found:
        print(line)
    print(f"{old['suite']['name']}: {numbers(old):,} numbers compared, {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
