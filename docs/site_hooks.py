"""What mkdocs does not know: links from pages to files of the repository outside docs/.

On GitHub a link such as `../algorithms/README.md` leads to that file. On the site, every file that pages link to in
this way is copied to `repository/`, with the files that those link to, and the links are turned there.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
COPIES = "repository"
NAMED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CODE_OF_CONDUCT.md",
    "algorithms/README.md",
    "reports/README.md",
)
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
_FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the files of the repository that pages link to, and those that these link to."""
    from mkdocs.structure.files import File  # here, so that the rest can be tested without mkdocs

    waiting = [*NAMED]
    for page in sorted((ROOT / "docs").rglob("*.md")):
        waiting += outside(page.relative_to(ROOT).as_posix())
    found: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in found or path.startswith("docs/"):
            continue
        found.add(path)
        files.append(File.generated(config, f"{COPIES}/{path}", abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            waiting += outside(path)
    return files


def outside(page: str) -> list[str]:
    """The files of the repository that a page links to, but for those below docs/."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [path for path in _targets(page, text) if (ROOT / path).is_file() and not path.startswith("docs/")]


def _targets(page: str, text: str) -> Iterator[str]:
    for _, target, _ in _LINK.findall(_FENCED.sub("", text)):
        if "://" not in target and not target.startswith("mailto:"):
            yield posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links to files of the repository to their copies."""
    own = page.file.src_uri
    here = own.removeprefix(f"{COPIES}/") if own.startswith(f"{COPIES}/") else f"docs/{own}"

    def turned(link: re.Match[str]) -> str:
        target = link[2]
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        place = path.removeprefix("docs/") if path.startswith("docs/") else f"{COPIES}/{path}"
        return f"{link[1]}{posixpath.relpath(place, posixpath.dirname(own) or '.')}{link[3]}"

    parts = _FENCED.split(markdown)
    return "".join(part if place % 2 else _LINK.sub(turned, part) for place, part in enumerate(parts))
