"""Digests of code: what can change a result changes them, and nothing else does."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from align_bench.sources import closure, module_digest, plugin_digest

LOOP = '''"""The loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import align_bench.models.lora
from align_bench.data import batches
from align_bench.errors import ModelError

if TYPE_CHECKING:
    from align_bench.views import View


def train(view: View) -> int:
    """Train it."""
    from . import feeds  # costs a second

    if not view:
        raise ModelError("none")
    return feeds.NUMBER + batches.SIZE
'''
FILES = {
    "__init__.py": "",
    "errors.py": "class ModelError(Exception): ...\n",
    "views.py": "class View: ...\n",
    "alone.py": "X = 1\n",
    "train/__init__.py": "ORDER = 1\n",
    "train/loop.py": LOOP,
    "train/feeds.py": "from ..data.chat import turn\n\nNUMBER = 3\n",
    "data/__init__.py": "",
    "data/batches.py": "SIZE = 4\n",
    "data/chat.py": "import align_bench.train.loop\n\n\ndef turn(): return 1\n",
    "models/__init__.py": "",
    "models/lora.py": "class Lora:\n    rank = 8\n",
    "cli/__init__.py": "from align_bench.cli.live import live\n",
    "cli/live.py": "live = 1\n",
    "report/__init__.py": "",
    "report/page.py": "import align_bench.cli.live\n",
    "report/own.css": "a {}\n",
    "report/templates/page.j2": "{{ a }}\n",
    "report/templates/notes.md": "a\n",
    "report/figures/__init__.py": "",
    "report/figures/bars.js": "1\n",
}
LOOP_CLOSURE = {
    "align_bench",
    *(f"align_bench.{name}" for name in ("train", "train.loop", "train.feeds", "data", "data.batches", "data.chat")),
    *(f"align_bench.{name}" for name in ("models", "models.lora")),
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package of the same name."""
    write(tmp_path / "align_bench", FILES)
    return tmp_path / "align_bench"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


def change(path: Path, old: str, new: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")


# -- modules -----------------------------------------------------------------------------------------------------------


def test_closure_holds_all_that_a_module_may_load(package: Path) -> None:
    assert closure("align_bench.train.loop", package=package) == LOOP_CLOSURE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""The loop."""', '"""Another loop."""'),
        ('"""The loop."""\n', ""),
        ('    """Train it."""\n', ""),
        ("  # costs a second", ""),
        ("return feeds.NUMBER + batches.SIZE", "return (\n        feeds.NUMBER\n        + batches.SIZE\n    )"),
        ('"none"', "'none'"),
        ("align_bench.views import View", "align_bench.alone import X as View"),
    ],
)
def test_what_does_not_run_changes_nothing(package: Path, old: str, new: str) -> None:
    before = module_digest("align_bench.train.loop", package=package)
    change(package / "train/loop.py", old, new)
    assert module_digest("align_bench.train.loop", package=package) == before


@pytest.mark.parametrize(
    "code", ["class A:\n    {}x = 1\n", "def f():\n    {}return 1\n", "async def f():\n    {}...\n"]
)
@pytest.mark.parametrize("docstring", ['"""One."""\n    ', '"""Two\n    lines."""\n\n    ', "'''Ü'''; "])
def test_docstrings_of_every_kind_change_nothing(package: Path, code: str, docstring: str) -> None:
    write(package, {"alone.py": code.format("")})
    before = module_digest("align_bench.alone", package=package)
    write(package, {"alone.py": code.format(docstring)})
    assert module_digest("align_bench.alone", package=package) == before


def test_a_string_that_is_no_docstring_counts(package: Path) -> None:
    write(package, {"alone.py": 'def f():\n    x = 1\n    "later"\n'})
    before = module_digest("align_bench.alone", package=package)
    write(package, {"alone.py": 'def f():\n    x = 1\n    "changed"\n'})
    assert module_digest("align_bench.alone", package=package) != before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("train/loop.py", "NUMBER +", "NUMBER -"),
        ("data/batches.py", "4", "5"),  # `from package import module`
        ("models/lora.py", "8", "16"),  # `import package.module`
        ("train/feeds.py", "3", "4"),  # relative, inside a function
        ("data/chat.py", "return 1", "return 2"),  # an import of an import, two levels up
        ("train/__init__.py", "1", "2"),
        ("__init__.py", "", "X = 1"),
        ("data/__init__.py", "", "X = 1"),
    ],
)
def test_code_that_is_loaded_counts(package: Path, name: str, old: str, new: str) -> None:
    before = module_digest("align_bench.train.loop", package=package)
    change(package / name, old, new)
    assert module_digest("align_bench.train.loop", package=package) != before


@pytest.mark.parametrize("name", ["errors.py", "views.py", "alone.py", "report/page.py", "cli/live.py"])
def test_code_outside_of_the_closure_does_not_count(package: Path, name: str) -> None:
    before = module_digest("align_bench.train.loop", package=package)
    write(package, {name: "CHANGED = True\n"})
    assert module_digest("align_bench.train.loop", package=package) == before


def test_progress_views_are_outside(package: Path) -> None:
    assert closure("align_bench.report.page", package=package) == {
        "align_bench",
        "align_bench.report",
        "align_bench.report.page",
    }


def test_what_runs_when_nothing_checks_types_counts(package: Path) -> None:
    write(
        package,
        {
            "alone.py": "import typing\nif typing.TYPE_CHECKING:\n    from align_bench.views import View\n"
            "else:\n    import align_bench.data.batches\n"
        },
    )
    found = closure("align_bench.alone", package=package)
    assert "align_bench.data.batches" in found
    assert "align_bench.views" not in found


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("report/own.css", True),
        ("report/templates/page.j2", True),
        ("report/templates/notes.md", False),
        ("report/figures/bars.js", False),  # of a package that is not loaded
    ],
)
def test_page_files_count_where_their_folder_does(package: Path, name: str, counts: bool) -> None:
    page, loop = (module_digest(f"align_bench.{one}", package=package) for one in ("report.page", "train.loop"))
    write(package, {name: "changed\n"})
    assert (module_digest("align_bench.report.page", package=package) != page) is counts
    assert module_digest("align_bench.train.loop", package=package) == loop


def test_page_file_of_another_system_is_the_same(package: Path) -> None:
    before = module_digest("align_bench.report.page", package=package)
    (package / "report/own.css").write_bytes(b"a {}\r\n")
    assert module_digest("align_bench.report.page", package=package) == before


def test_place_of_the_package_does_not_count(package: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", FILES)
    here, there = (module_digest("align_bench.report.page", package=one) for one in (package, tmp_path / "elsewhere"))
    assert here == there


def test_unknown_module_is_an_error(package: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"no module align_bench\.trian"):
        module_digest("align_bench.trian", package=package)


def test_module_that_cannot_be_parsed_is_hashed_as_it_is(package: Path) -> None:
    digests = set()
    for broken in ("def f(:\n", "def f(: # other\n", "\0"):
        write(package, {"data/batches.py": broken})
        digests.add(module_digest("align_bench.train.loop", package=package))
    assert len(digests) == 3


def test_each_content_is_parsed_once(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module_digest("align_bench.train.loop", package=package)

    def parse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(ast, "parse", parse)
    module_digest("align_bench.train.loop", package=package)


def test_own_package_is_seen_as_it_is_loaded() -> None:
    found = closure("align_bench.train.loop")
    assert "align_bench.models.logprobs" in found
    assert "align_bench.errors" not in found
    assert not [one for one in found if one.startswith("align_bench.report")], "a report's page retrains nothing"


# -- plugins -----------------------------------------------------------------------------------------------------------

PLUGIN = '''"""A method."""

from align_bench.models.lora import Lora

from ._shared import scale


def loss(x):
    """Its loss."""
    from ._pkg.deep import deep

    return scale(x) + deep
'''
PLUGIN_FILES = {
    "method.py": PLUGIN,
    "_shared.py": "from . import _more, _missing\n\n\ndef scale(x): return x * _more.FACTOR\n",
    "_more.py": "from .method import loss\n\nFACTOR = 2\n",
    "_pkg/__init__.py": "",
    "_pkg/deep.py": "from .._up import deep\n",
    "_up.py": "deep = 1\n",
    "_other.py": "x = 1\n",
}


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A plugin with files of its own."""
    write(tmp_path / "algorithms", PLUGIN_FILES)
    return tmp_path / "algorithms" / "method.py"


Digest = Callable[[], str]


@pytest.fixture
def digest(plugin: Path, package: Path) -> Digest:
    return lambda: plugin_digest(plugin, package=package)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("method.py", "+ deep", "- deep"),
        ("_shared.py", "x *", "x /"),
        ("_more.py", "2", "3"),  # a helper's helper, in a circle with the plugin
        ("_pkg/__init__.py", "", "X = 1"),
        ("_pkg/deep.py", "deep\n", "deep  as deep, x\n"),  # imported inside a function
        ("_up.py", "1", "2"),
    ],
)
def test_plugin_depends_on_its_own_files(plugin: Path, digest: Digest, name: str, old: str, new: str) -> None:
    before = digest()
    change(plugin.parent / name, old, new)
    assert digest() != before


def test_plugin_depends_on_a_file_that_was_missing(plugin: Path, digest: Digest) -> None:
    before = digest()
    write(plugin.parent, {"_missing.py": ""})
    assert digest() != before


@pytest.mark.parametrize(
    ("name", "counts"), [("models/lora.py", True), ("models/__init__.py", True), ("alone.py", False)]
)
def test_plugin_depends_on_what_it_imports_of_the_package(
    package: Path, digest: Digest, name: str, counts: bool
) -> None:
    before = digest()
    write(package, {name: "CHANGED = True\n"})
    assert (digest() != before) is counts


def test_plugin_s_errors_and_words_do_not_count(plugin: Path, package: Path, digest: Digest) -> None:
    before = digest()
    change(plugin, '"""A method."""', '# No docstring.\n"""A famous method."""')
    change(plugin, '"""Its loss."""', '"""Its loss, in nats."""')
    write(plugin.parent, {"_other.py": "x = 2\n"})
    assert digest() == before
    change(plugin, "from ._shared", "from align_bench.errors import ModelError\nfrom ._shared")
    with_errors = digest()
    write(package, {"errors.py": "class ModelError(ValueError): ...\n"})
    assert digest() == with_errors != before


def test_plugin_is_the_same_elsewhere(plugin: Path, package: Path, tmp_path: Path, digest: Digest) -> None:
    write(tmp_path / "deeper" / "elsewhere", PLUGIN_FILES)
    assert plugin_digest(tmp_path / "deeper" / "elsewhere" / "method.py", package=package) == digest()


def test_plugin_that_cannot_be_parsed_is_hashed_as_it_is(plugin: Path, digest: Digest) -> None:
    plugin.write_text("def f(:\n", encoding="utf-8")
    before = digest()
    plugin.write_text("def f(: # other\n", encoding="utf-8")
    assert digest() != before


def test_invalid_escape_is_left_to_the_import(plugin: Path, digest: Digest) -> None:
    change(plugin, "return scale(x)", "return '\\d' and scale(x)")
    assert digest()


@pytest.mark.parametrize(
    "line",
    ["import my_pkg.helpers", "from my_pkg.helpers import x", "from my_pkg import helpers", "from . import helpers"],
)
@pytest.mark.parametrize("name", ["__init__.py", "helpers.py", "_deep.py"])
def test_distribution_s_own_modules_count(tmp_path: Path, package: Path, line: str, name: str) -> None:
    files = {"__init__.py": "", "helpers.py": "from my_pkg._deep import x\n", "_deep.py": "x = 1\n"}
    write(tmp_path / "my_pkg", {**files, "method.py": f"{line}\n"})
    method, top = tmp_path / "my_pkg" / "method.py", ("my_pkg", tmp_path)
    before = plugin_digest(method, package=package, top=top)
    write(tmp_path / "my_pkg", {name: files[name] + "y = 2\n"})
    assert plugin_digest(method, package=package, top=top) != before


def test_package_above_a_distribution_s_plugin_counts(tmp_path: Path, package: Path) -> None:
    write(tmp_path / "my_pkg", {"__init__.py": "", "methods/__init__.py": "", "methods/method.py": "x = 1\n"})
    digests = []
    for name in ("__init__.py", "methods/__init__.py"):
        for content in ("", "y = 1\n"):
            write(tmp_path / "my_pkg", {name: content})
            path = tmp_path / "my_pkg/methods/method.py"
            digests.append(plugin_digest(path, package=package, top=("my_pkg", tmp_path)))
    assert len(set(digests)) == 3, "the second file was written as it was"


def test_foreign_absolute_imports_do_not_count(plugin: Path, digest: Digest) -> None:
    change(plugin, "from ._shared", "import _other\nfrom ._shared")
    before = digest()
    write(plugin.parent, {"_other.py": "x = 2\n"})
    assert digest() == before
