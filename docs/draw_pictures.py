"""Draw the pictures of the README and of the pages, from the published report of the packaged suite `assignment`.

`terminal.svg` is the last screen of a run, `reading.svg` the same with numbers beside its lines, `page.png` the top of
`report.html` in chromium, which is drawn only with `--page`.

Example:
    python docs/draw_pictures.py --page
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from align_bench.report.export import read_report
from align_bench.report.render.screen import last_screen
from align_bench.report.schema import Report

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
PUBLISHED = ROOT / "reports" / "published" / "assignment"
COMMAND = "align-bench run assignment"
COLUMNS = 80
# What `docs/reading-a-report.md` explains, by the first line of the screen that matches, each once.
MARKED = (
    r"^• Alarm",
    r"^• These checkpoints",
    r"^• Answers of",
    r"^• Read the judge",
    r"^ +judge +gold",
    r"^ base ",
    r"^±",
    r"^report:",
)
_FONT_FACE = re.compile(r"^ *@font-face \{.*?^ *\}\n", re.DOTALL | re.MULTILINE)


def screen(report: Report) -> list[Text]:
    """The last screen of a run, at 80 columns."""
    return last_screen(report, f"reports/{report.suite.name}/report.html", Console(file=io.StringIO(), width=COLUMNS))


def numbered(lines: Sequence[Text]) -> list[Text]:
    """The lines, with the number of what is explained in front of those that `MARKED` finds."""
    places: dict[int, int] = {}
    for number, pattern in enumerate(MARKED, start=1):
        place = next((place for place, line in enumerate(lines) if re.search(pattern, line.plain)), None)
        if place is not None:
            places[place] = number
    return [
        Text.assemble((f"{places[place]}  " if place in places else "   ", "bold yellow"), line)
        for place, line in enumerate(lines)
    ]


def terminal_svg(lines: Sequence[Text], title: str, columns: int = COLUMNS) -> str:
    """The lines in a terminal's window; it refers to no font of the network."""
    console = Console(file=io.StringIO(), width=columns, record=True, force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(line)
    return _FONT_FACE.sub("", console.export_svg(title=title, unique_id="align-bench"))


def drawings() -> dict[str, str]:
    """The drawings of the terminal, by the names of their files."""
    lines = screen(read_report(PUBLISHED))
    return {
        "terminal.svg": terminal_svg(lines, COMMAND),
        "reading.svg": terminal_svg(numbered(lines), COMMAND, COLUMNS + 3),
    }


def photograph(page: Path, picture: Path) -> None:
    """The top of a report's page, as chromium shows it."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1100, "height": 760}, color_scheme="light")
        shown.goto(page.as_uri())
        shown.screenshot(path=picture)
        browser.close()


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="also photograph the page; needs playwright and chromium")
    arguments = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    for name, drawing in drawings().items():
        (PICTURES / name).write_text(drawing, encoding="utf-8")
    if arguments.page:
        photograph(PUBLISHED / "report.html", PICTURES / "page.png")


if __name__ == "__main__":
    main()
