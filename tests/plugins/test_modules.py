"""Plugins that are executed: once, when needed, with the files beside them, and anew when these were edited."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from align_bench.api import OfflineAlgorithm, PairLogps
from align_bench.errors import PluginError
from align_bench.plugins.registry import Plugin, load_file, load_registry

LOSS = '''
from align_bench.api import Loss, PairLogps, algorithm


@algorithm(paper="none", learning_rate=1e-5, reward="s")
def {name}(logps: PairLogps, *, beta: float = 0.1) -> Loss:
    """A method of the tests."""
    return Loss(-{scale} * logps.chosen, logps.chosen, logps.rejected)
'''

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file below the test's folder."""

    def written(place: str, text: str) -> Path:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return written


def plugin_text(first: str = "", *, name: str = "mine", scale: str = "1") -> str:
    """A plugin whose loss is `scale` at a log-probability of −1, after some first lines."""
    return first + LOSS.replace("{name}", name).replace("{scale}", scale)


def loaded(path: Path, name: str = "mine") -> Plugin:
    return load_registry(extra=[str(path)])[name]


def value(plugin: Plugin) -> float:
    """The loss of one pair whose chosen answer has a log-probability of −1."""
    one = torch.ones(1)
    assert isinstance(plugin.algorithm, OfflineAlgorithm)
    return float(plugin.algorithm(PairLogps(-one, -2 * one, one, one)).values)


def modules_of(folder: Path) -> list[str]:
    """Modules in memory that come from a folder's files."""
    return [name for name, module in sys.modules.items() if str(folder) in str(getattr(module, "__file__", None))]


def test_file_is_executed_once_and_not_before_it_is_called(write: Write, tmp_path: Path) -> None:
    trace = f"with open({str(tmp_path / 'trace')!r}, 'a') as file:\n    file.write('x')\n"
    path = write("mine.py", "from . import _traced\n" + plugin_text())
    write("_traced.py", trace)
    plugin = loaded(path)
    assert plugin.algorithm.resolve({}) == {"beta": 0.1}
    assert not (tmp_path / "trace").exists()
    assert value(plugin) == 1
    plugin.load()
    assert value(plugin) == 1
    assert (tmp_path / "trace").read_text() == "x"


def test_plugins_share_a_file_beside_them(write: Write) -> None:
    write("_shared.py", "CALLS = []\n\n\ndef scale():\n    CALLS.append(1)\n    return len(CALLS)\n")
    one = write("one.py", plugin_text("from ._shared import scale\n", name="one", scale="scale()"))
    write("two.py", plugin_text("from . import _shared as shared\n", name="two", scale="shared.scale()"))
    registry = load_registry(extra=[str(one.parent)])
    assert not registry.broken
    assert [value(registry[name]) for name in ("one", "two", "one")] == [1, 2, 3]


def test_plugin_imports_from_a_package_beside_it(write: Write) -> None:
    write("_parts/__init__.py", "from .deep import SCALE\n")
    write("_parts/deep.py", "from .._other import TWO\nSCALE = 2 * TWO\n")
    write("_other.py", "TWO = 2\n")
    assert value(loaded(write("mine.py", plugin_text("from ._parts import SCALE\n", scale="SCALE")))) == 4


def test_files_of_one_name_in_two_folders_are_two(write: Write) -> None:
    paths = []
    for number, folder in enumerate(("a", "b"), start=1):
        write(f"{folder}/_shared.py", f"SCALE = {number}\n")
        paths.append(
            write(f"{folder}/mine.py", plugin_text("from ._shared import SCALE\n", name=folder, scale="SCALE"))
        )
    registry = load_registry(extra=[str(path) for path in paths])
    assert [value(registry[name]) for name in ("a", "b")] == [1, 2]


def test_method_that_is_imported_from_beside_belongs_to_its_own_file(write: Write) -> None:
    base = write("base.py", plugin_text(name="shared"))
    write("user.py", plugin_text("from .base import shared\n", name="own", scale="shared(logps).values / logps.chosen"))
    registry = load_registry(extra=[str(base.parent)])
    assert (registry["shared"].path.name, registry["own"].path.name) == ("base.py", "user.py")
    assert (value(registry["own"]), value(registry["shared"])) == (-1, 1)


@pytest.mark.parametrize("edited", ["mine.py", "_shared.py"])
def test_edit_is_seen_by_the_next_reading_alone(write: Write, edited: str) -> None:
    """Of equal size and time, which is all that Python's own cache of compiled files looks at."""
    texts = {"mine.py": plugin_text("from ._shared import SCALE\n", scale="1 * SCALE"), "_shared.py": "SCALE = 1\n"}
    for place, text in texts.items():
        os.utime(write(place, text), (1, 1))
    before = loaded(write("mine.py", texts["mine.py"]))
    assert value(before) == 1
    changed = texts[edited].replace("1 * SCALE", "2 * SCALE").replace("SCALE = 1", "SCALE = 2")
    os.utime(write(edited, changed), (1, 1))
    after = loaded(before.path)
    assert (value(after), value(before)) == (2, 1)


def test_digest_covers_what_is_imported_from_beside(write: Write) -> None:
    write("_shared.py", "SCALE = 1\n")
    path = write("mine.py", plugin_text("from ._shared import SCALE\n", scale="SCALE"))
    before = loaded(path).digest
    assert loaded(path).digest == before
    write("_shared.py", "SCALE = 2\n")
    assert loaded(path).digest != before


@pytest.mark.parametrize("hashed_first", [True, False])
def test_code_is_never_other_than_its_digest(write: Write, hashed_first: bool) -> None:
    write("_shared.py", "SCALE = 1\n")
    plugin = loaded(write("mine.py", plugin_text("from ._shared import SCALE\n", scale="SCALE")))
    if hashed_first:
        assert plugin.digest
    else:
        plugin.load()
    write("_shared.py", "SCALE = 2\n")
    ask: Callable[[], object] = plugin.load if hashed_first else lambda: plugin.digest
    with pytest.raises(PluginError, match="was changed after it was read"):
        ask()


def test_what_a_function_imports_is_executed_as_it_was_hashed(write: Write) -> None:
    """A run goes on for hours after its keys were made, and the file may be edited meanwhile."""
    write("_late.py", "from ._later import SCALE\n")
    write("_later.py", "SCALE = 1\n")
    late = "    from ._late import SCALE\n    return"
    plugin = loaded(write("mine.py", plugin_text(scale="SCALE").replace("    return", late)))
    before = plugin.digest
    plugin.load()
    write("_later.py", "SCALE = 2\n")
    assert value(plugin) == 1
    after = loaded(plugin.path)
    assert after.digest != before
    assert value(after) == 2


def test_copies_beside_other_files_are_not_one_method(write: Write) -> None:
    paths = []
    for folder in ("a", "b"):
        write(f"{folder}/_shared.py", "SCALE = 1\n")
        paths.append(str(write(f"{folder}/mine.py", plugin_text("from ._shared import SCALE\n", scale="SCALE"))))
    assert load_registry(extra=paths)["mine"]
    write("b/_shared.py", "SCALE = 2\n")
    with pytest.raises(PluginError, match="two plugins are called 'mine'"):
        load_registry(extra=paths)


@pytest.mark.parametrize("plain", [True, False])
def test_broken_file_leaves_no_module_behind(write: Write, tmp_path: Path, plain: bool) -> None:
    write("_whole.py", "X = 1\n")
    write("_broken.py", "raise RuntimeError('no luck')\n")
    imports = "from . import _whole\nfrom ._broken import SCALE\n"
    path = write("mine.py", plugin_text(imports + ("" if plain else "print\n"), scale="SCALE"))
    if plain:
        registry = load_registry(extra=[str(path)])
        with pytest.raises(PluginError, match=r"mine\.py cannot be loaded: RuntimeError: no luck"):
            registry["mine"].load()
        with pytest.raises(PluginError, match=r"mine\.py cannot be loaded: RuntimeError: no luck"):
            value(registry["mine"])
    else:
        with pytest.raises(PluginError, match="RuntimeError: no luck"):
            load_registry(extra=[str(path)])
    assert not modules_of(tmp_path)
    write("_broken.py", "SCALE = 3\n")
    assert value(loaded(path)) == 3


def test_load_file_executes_it(write: Write) -> None:
    path = write("mine.py", plugin_text("from torch import no_such_name\n"))
    assert "mine" in load_registry(extra=[str(path)]).plugins, "that is not seen without importing torch"
    with pytest.raises(PluginError, match="cannot be loaded: ImportError: cannot import name 'no_such_name'"):
        load_file(path)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import not_there_at_all", ["No module named 'not_there_at_all'", "pip install not_there_at_all"]),
        ("from not_there_at_all.deep import x", ["No module named 'not_there_at_all", "pip install not_there_at_all"]),
        ("import beside_it", ["No module named 'beside_it'", "write `from . import beside_it`"]),
        ("from .absent import x", ["No module named", "put what it imports with a dot beside it"]),
        ("from . import absent", ["cannot import name 'absent'", "put what it imports with a dot beside it"]),
    ],
)
def test_an_import_that_fails_is_told_with_its_line(write: Write, line: str, words: list[str], plain: bool) -> None:
    write("beside_it.py", "")
    path = write("mine.py", plugin_text(f"import math\n{line}\n" + ("" if plain else "print\n")))
    with pytest.raises(PluginError, match=rf"mine\.py cannot be loaded: .*\({path}, line 2\)\n") as caught:
        load_registry(extra=[str(path)])["mine"].load()
    assert all(each in str(caught.value) for each in words)
    with pytest.raises(PluginError, match=rf"\({path}, line 2\)\n"):
        load_file(path)
    with pytest.raises(PluginError, match=rf"\({path}, line 2\)\n"):
        load_registry(extra=[str(path.parent)])["mine"].load()


def test_file_whose_name_is_no_identifier_is_executed(write: Write) -> None:
    write("_shared.py", "SCALE = 3\n")
    assert value(loaded(write("my-method 1.2.py", plugin_text("from ._shared import SCALE\n", scale="SCALE")))) == 3


def test_method_that_is_not_what_it_reads_as_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math, "log2", math.log2)  # put back in the end
    write("_sly.py", "import math\nmath.log2 = lambda x: 7.0\n")
    text = plugin_text("import math\nfrom . import _sly\n").replace("= 0.1", "= math.log2(8)")
    plugin = loaded(write("mine.py", text))
    with pytest.raises(PluginError, match=r"declares mine otherwise than it reads: parameters is .*3\.0.*7\.0"):
        plugin.load()


def test_traceback_names_the_line_of_the_file(write: Write) -> None:
    plugin = loaded(write("mine.py", plugin_text(scale="(1 / 0)")))
    with pytest.raises(ZeroDivisionError) as caught:
        value(plugin)
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno) == (plugin.path, 7)
    assert plugin.algorithm.function.__code__.co_filename == str(plugin.path)
