"""What runs before a model is loaded imports no torch: it alone takes longer than all the rest."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import align_bench

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "accelerate", "datasets", "peft", "pandas", "sklearn", "matplotlib")
MODULES = (
    "align_bench.data.answers",
    "align_bench.data.batches",
    "align_bench.data.chat",
    "align_bench.data.fingerprint",
    "align_bench.data.planted",
    "align_bench.data.preferences",
    "align_bench.data.summary",
    "align_bench.data.tables",
    "align_bench.export.choose",
    "align_bench.export.publish",
    "align_bench.judge.edits",
    "align_bench.judge.ensemble",
    "align_bench.judge.find",
    "align_bench.judge.gold",
    "align_bench.judge.overlap",
    "align_bench.models.base",
    "align_bench.models.exported",
    "align_bench.models.precision",
    "align_bench.models.weights",
    "align_bench.report.build",
    "align_bench.report.compare",
    "align_bench.report.export",
    "align_bench.report.formats",
    "align_bench.report.history",
    "align_bench.report.render.html",
    "align_bench.report.render.terminal",
    "align_bench.suite.load",
)
PRINT = """
import io
from pathlib import Path
from rich.console import Console
from align_bench.report.export import read_report
from align_bench.report.formats import Format, report_text
from align_bench.report.render.terminal import comparison_tables
report = read_report(Path({folder!r}))
console = Console(file=io.StringIO(), width=120)
console.print(*comparison_tables(report))
assert "dpo" in console.file.getvalue()
assert all(report_text(report, form) for form in Format)
"""
READ = """
from pathlib import Path
from align_bench.data.fingerprint import fingerprint
from align_bench.data.preferences import DataSource, read
for path in {paths!r}:
    fingerprint(DataSource(path)), read(DataSource(path))
fingerprint(DataSource("embedded/planted", split="val")), read(DataSource("embedded/planted", split="val", rows=5))
"""
FIND = """
from align_bench.models.base import base_parameters, find_base
from align_bench.models.precision import has_amx, has_no_accelerator, resolve_precision
base_parameters(find_base("embedded/tiny"))
resolve_precision("fp32", "cpu"), resolve_precision("bf16", "cpu")
if has_no_accelerator():
    resolve_precision("fp32")
    if has_amx() is not None:
        resolve_precision("auto")
"""

PLAN = """
import contextlib, io
from align_bench.cli.main import app
with contextlib.redirect_stdout(io.StringIO()) as printed:
    app(["plan", "assignment", "--runs", {runs!r}], standalone_mode=False)
assert "seeds needed" in printed.getvalue()
"""


def loaded_by(code: str, names: tuple[str, ...] = HEAVY) -> list[str]:
    """Which of these packages a fresh interpreter has loaded after running the code."""
    code += f"\nimport sys\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_search_finds_what_is_loaded() -> None:
    assert "torch" in loaded_by("import align_bench.models.load")


@pytest.mark.parametrize("module", MODULES)
def test_importing_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}") == []


def test_printing_a_stored_report_computes_nothing() -> None:
    never = (*HEAVY, "scipy", "statsmodels", "pyarrow", "yaml")
    assert loaded_by(PRINT.format(folder=str(ROOT / "reports" / "published" / "assignment")), never) == []


def test_reading_pairs_loads_nothing_heavy(tmp_path: Path) -> None:
    row = '{"prompt": "q", "chosen": "good", "rejected": "bad"}'
    texts = {"a.jsonl": row, "a.json": f"[{row}]", "a.csv": "prompt,chosen,rejected\nq,good,bad\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    pq.write_table(pa.table({"prompt": ["q"], "chosen": ["a"], "rejected": ["b"]}), tmp_path / "a.parquet")
    paths = [str(tmp_path / name) for name in (*texts, "a.parquet")]
    assert loaded_by(READ.format(paths=paths)) == []


def test_finding_a_base_and_the_precision_loads_no_torch() -> None:
    assert loaded_by(FIND) == []


def test_a_plan_loads_transformers_for_its_tokenizer_and_nothing_else_heavy(tmp_path: Path) -> None:
    assert loaded_by(PLAN.format(runs=str(tmp_path)), (*HEAVY, "scipy.stats", "statsmodels")) == ["transformers"]


def test_no_module_needs_what_only_unix_has_to_be_imported() -> None:
    """Windows can import every module: what it lacks is imported where it is used, or not at all."""
    unix = {"fcntl", "grp", "posix", "pwd", "resource", "termios", "tty"}
    package = Path(align_bench.__file__).parent
    needed: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        found: set[str] = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
        if found & unix:
            needed[path.relative_to(package).as_posix()] = found & unix
    assert needed == {}
