"""README and docs/: made parts are up to date, links are whole, and every block of code runs or says why not."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import cast

import pytest
import typer.main
import yaml
from draw_pictures import PICTURES, drawings
from fill_pages import METHODS, PAGES, SECTIONS, SITE, example_suite, filled, listed, methods_written
from suite_examples import EXAMPLES

import align_bench
from align_bench.cli.app import console
from align_bench.cli.main import app, main
from align_bench.plugins.registry import load_registry
from align_bench.records import Json
from align_bench.report.schema import AuditMetrics, Metrics
from align_bench.suite.load import load_suite
from align_bench.suite.models import Suite

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(?:^<!-- (not executed|pinned|made): (.+) -->\n+)?^```(\w*)\n([\s\S]*?)^```$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]


@dataclass(frozen=True)
class Block:
    """A block of code on a page.

    Attributes:
        mark: `not executed`, `pinned` or `made`, where a comment before it says so.
        reason: what that comment says.
        language, code: its language and its text.
    """

    mark: str
    reason: str
    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def sections(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_what_is_made_is_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == filled(text), "python docs/fill_pages.py writes it anew"


def test_pages_of_methods_are_what_the_code_writes_and_none_is_left_over() -> None:
    new = methods_written()
    assert {DOCS / "methods.md", *METHODS.glob("*.md")} == set(new)
    old = [path.name for path, text in new.items() if path.read_text(encoding="utf-8") != text]
    assert old == [], "python docs/fill_pages.py writes them anew"


def test_the_site_lists_every_page_of_a_method() -> None:
    text = SITE.read_text(encoding="utf-8")
    assert text == listed(text), "python docs/fill_pages.py lists them anew"
    assert text.count(": methods/") == len(list(METHODS.glob("*.md")))


def test_the_pictures_are_up_to_date() -> None:
    for name, drawing in drawings().items():
        assert (PICTURES / name).read_text(encoding="utf-8") == drawing, "python docs/draw_pictures.py draws it anew"


def test_the_photograph_is_small() -> None:
    assert 10_000 < (PICTURES / "page.png").stat().st_size < 200_000


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_to_a_file_and_a_heading_of_it(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in LINK.findall(text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.is_file(), target
        assert not anchor or anchor in sections(file), target


def test_every_page_is_in_the_navigation() -> None:
    shown = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    names = [page.relative_to(DOCS).as_posix() for page in PAGES[1:]]
    assert [name for name in names if f": {name}\n" not in shown] == []


def test_every_key_of_a_suite_has_an_example() -> None:
    assert set(EXAMPLES) == {prefix + name for _, prefix, model in SECTIONS for name in model.model_fields}


def test_every_part_of_a_suite_has_a_section() -> None:
    parts = set(Suite.model_json_schema()["$defs"]) - {"JsonValue", "Method"}  # methods have a section of words
    assert parts == {model.__name__ for _, _, model in SECTIONS} - {"Suite"}


@pytest.mark.parametrize("key", EXAMPLES)
def test_an_example_says_its_key_in_a_suite_that_is_read(key: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(example_suite(EXAMPLES[key])), encoding="utf-8")
    load_suite(str(path))
    name = key.rpartition(".")[2]
    assert name in keys(yaml.safe_load(EXAMPLES[key])) or key == "[gold].method"  # written `gold`


def keys(value: Json) -> set[str]:
    """Every key in a value, however deep."""
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def test_every_metric_is_explained() -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    scored = {"accuracy", "tie_rate", "longer_wins", "accuracy_chosen_longer", "accuracy_chosen_shorter"}
    names = [*Metrics.model_fields, *AuditMetrics.model_fields]
    aside = {"length_one_sided", "accuracy_audited"} | scored
    assert [name for name in names if f"`{name}`" not in page and name not in aside] == []


def test_every_name_of_the_python_interface_is_explained() -> None:
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    assert is_dataclass(align_bench.Report)
    public = {name for name in vars(align_bench.Report) if not name.startswith("_")}
    public |= {field.name for field in fields(align_bench.Report)} - {"folder", "runs"}
    assert [name for name in sorted(public) if f"report.{name}" not in page] == []


def test_every_package_is_in_the_architecture() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    packages = sorted(path.parent.name for path in (ROOT / "align_bench").glob("[a-z]*/__init__.py"))
    assert len(packages) > 10
    assert [name for name in packages if f"`{name}`" not in page and name != "suite"] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_block_is_of_a_kind_that_is_tested(page: Path) -> None:
    found = blocks(page)
    assert len(found) * 2 == len(re.findall(r"^```", page.read_text(encoding="utf-8"), re.MULTILINE))
    for block in found:
        assert block.language in ("sh", "yaml", "python", "text"), block.code
        whole = page.parent == METHODS  # made as a whole, from what the methods declare
        assert block.language != "text" or whole or block.mark in ("made", "pinned"), block.code
        assert block.mark != "pinned" or block.reason.startswith("tests/"), block.code


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_blocks_of_yaml_are_read_as_suites(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.language == "yaml":
            said = cast("dict[str, Json]", yaml.safe_load(block.code))
            path = tmp_path / "mine.yaml"
            path.write_text(block.code if "extends" in said else yaml.safe_dump(example_suite(block.code)), "utf-8")
            load_suite(str(path))


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_blocks_of_python_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "published").symlink_to(ROOT / "reports" / "published")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks(page)):
        if block.language == "python" and block.mark == "not executed":
            compile(block.code, page.name, "exec")
        elif block.language == "python" and "@algorithm" in block.code:
            plugin = tmp_path / f"plugin_{number}.py"
            plugin.write_text(block.code, encoding="utf-8")
            assert load_registry(extra=[str(plugin)])["my_dpo"].algorithm.name == "my_dpo"
        elif block.language == "python":
            exec(block.code, names)


def lines(block: Block) -> Iterator[list[str]]:
    """The calls of align-bench in a block of shell, as arguments."""
    for line in block.code.splitlines():
        for part in line.partition(" #")[0].split("&&"):
            words = shlex.split(part)
            while words and re.match(r"[A-Z_0-9]+=", words[0]):
                words = words[1:]
            if words and words[0] == "align-bench":
                yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_exist_and_take_these_options(page: Path) -> None:
    group = typer.main.get_command(app)
    for block in blocks(page):
        for name, *arguments in lines(block) if block.language == "sh" else ():
            group.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


def has_shell(page: Path) -> bool:
    return any(block.language == "sh" and block.mark != "not executed" for block in blocks(page))


SHELL = [page for page in PAGES if has_shell(page)]


@pytest.mark.parametrize("page", SHELL, ids=lambda page: page.name)
def test_blocks_of_shell_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_width", 200)
    for block in blocks(page):
        if block.language == "sh" and block.mark != "not executed":
            for arguments in lines(block):
                monkeypatch.setattr(sys, "argv", ["align-bench", *arguments])
                with pytest.raises(SystemExit) as ended:
                    main()
                assert not ended.value.code, arguments
