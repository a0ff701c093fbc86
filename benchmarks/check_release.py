"""Build a wheel and a source distribution, check both, and run the main job with each from an empty environment.

`twine check --strict` holds their metadata; then each is installed into an environment of its own, in a home and a
folder that are empty, where `align-bench run assignment --quick` has to end with exit code 0 and a report.

Example:
    python benchmarks/check_release.py --out dist
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from empty_home import Home

ROOT = Path(__file__).resolve().parents[1]
JOB = "align-bench --version && align-bench run assignment --quick --quiet"
REPORT = "reports/assignment-quick/report.html"


def built(folder: Path) -> list[Path]:
    """The source distribution, and the wheel that is built from it, checked by twine."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True)
    files = sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])
    if len(files) != 2:
        raise SystemExit(f"{folder} holds {[file.name for file in files]}; expected one wheel and one .tar.gz")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True)
    return files


def try_out(file: Path, folder: Path) -> None:
    """Install a distribution into an empty environment, and run the main job there."""
    home, work = Home.made(folder / "self"), folder / "work"
    work.mkdir()
    for line in (f"pip install --quiet {file.resolve()}", JOB):
        done = home.run(line, work)
        print(f"{file.name}: {line}: exit code {done.code}, {done.seconds:.0f} s", flush=True)
        if done.code:
            raise SystemExit(done.last_words)
    if not (work / REPORT).is_file():
        raise SystemExit(f"{file.name}: the run left no {REPORT}")


def main() -> None:
    """Build, check, install, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("dist"), help="where the files are left")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for file in built(out):
        with tempfile.TemporaryDirectory() as folder:
            try_out(file, Path(folder))


if __name__ == "__main__":
    main()
