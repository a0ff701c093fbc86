"""Plugins: where they are found, what breaks them, and what every built-in one owes its readers."""

from __future__ import annotations

import ast
import pickle
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from align_bench.api import Algorithm, OfflineAlgorithm, PairLogps, Recipe, Selection
from align_bench.errors import PluginError
from align_bench.plugins import registry as registry_module
from align_bench.plugins.registry import load_registry
from align_bench.sources import plugin_digest
from align_bench.suite.load import builtin_folder
from align_bench.suite.models import Method, MethodEntry

BUILT_IN = sorted(builtin_folder("algorithms").glob("[!_]*.py"))
SHARED = sorted(builtin_folder("algorithms").glob("_*.py"))
METHOD = '''
from align_bench.api import Loss, PairLogps, algorithm


@algorithm(paper="none", learning_rate=1e-5, reward="s")
def {name}(logps: PairLogps, *, beta: float = 0.1) -> Loss:
    """A method of the tests."""
    return Loss(-logps.chosen, logps.chosen, logps.rejected)
'''

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a plugin file that declares a method of the given name, or holds the given text."""

    def written(place: str, name: str = "mine", text: str = METHOD) -> Path:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{name}", name), encoding="utf-8")
        return path

    return written


# -- where methods are found -------------------------------------------------------------------------------------------


def test_built_in_methods_are_found() -> None:
    found = load_registry()
    assert not found.broken
    assert set(found.plugins) >= {"rm", "dpo", "kto", "simpo", "orpo"}
    assert {plugin.origin for plugin in found.plugins.values()} == {"built-in"}
    assert sorted({plugin.path for plugin in found.plugins.values()}) == [path.resolve() for path in BUILT_IN]
    assert list(found.plugins) == sorted(found.plugins)


@pytest.mark.parametrize("folder", ["project/suites/algorithms", "project/algorithms"])
def test_file_that_nobody_named_is_not_loaded_and_its_method_tells_how(write: Write, folder: str) -> None:
    path = write(f"{folder}/dropped.py", "dropped", "raise SystemExit('executed')\n" + METHOD)
    found = load_registry(beside=[path.parent])
    assert "dropped" not in found.plugins
    with pytest.raises(PluginError, match=r"dropped\.py is not loaded, since only files that you name are") as caught:
        found["dropped"]
    assert caught.value.fix == f"add --plugin {path}"


def test_private_and_other_files_are_passed_over(write: Write) -> None:
    path = write("project/algorithms/_helper.py", "helper")
    write("project/algorithms/notes.txt", "notes")
    write("project/algorithms/deeper/inner.py", "inner")
    found = load_registry(extra=[str(path.parent)])
    assert not found.broken
    assert {plugin.origin for plugin in found.plugins.values()} == {"built-in"}


@pytest.mark.parametrize("origin", ["suite", "option"])
def test_plugin_is_named_as_a_file_or_as_a_folder(write: Write, origin: str) -> None:
    one = write("more/one.py", "one")
    two = write("more/two.py", "two")

    def load(named: Path) -> dict[str, str]:
        given = {"suite_plugins" if origin == "suite" else "extra": [str(named)]}
        found = load_registry(**given).plugins  # type: ignore[arg-type]
        return {name: plugin.origin for name, plugin in found.items() if plugin.origin != "built-in"}

    assert load(one) == {"one": origin}
    assert load(two.parent) == {"one": origin, "two": origin}


def test_file_that_is_named_twice_is_loaded_once(write: Write) -> None:
    path = write("project/algorithms/mine.py")
    found = load_registry([str(path)], [str(path.parent), str(path.parent / ".." / "algorithms" / "mine.py")])
    assert found["mine"].origin == "option"


def test_suites_files_are_approved_before_any_of_them_is_executed(write: Write, tmp_path: Path) -> None:
    """A file that is not plainly declared has to be executed to be read."""
    mark = tmp_path / "executed"
    text = f"from pathlib import Path\nPath({str(mark)!r}).touch()\nfor _ in range(1):\n    pass\n{METHOD}"
    path = write("mailed/plugin.py", "mailed", text)
    asked: list[Mapping[Path, str]] = []

    def refuse(files: Mapping[Path, str]) -> None:
        asked.append(files)
        raise PluginError("no")

    with pytest.raises(PluginError, match="no"):
        load_registry([str(path)], approve=refuse)
    assert asked == [{path.resolve(): plugin_digest(path)}]
    assert not mark.exists()
    announced: list[Path] = []
    found = load_registry([str(path)], approve=asked.append, announce=lambda file: announced.append(file.place))
    found["mailed"].load()
    assert mark.exists()
    assert announced == [path.resolve()], "built-in files are not named"


def test_named_file_that_cannot_be_loaded_is_an_error(write: Write) -> None:
    path = write("broken.py", text="raise RuntimeError('no luck')\n")
    for given in ([[str(path)], []], [[], [str(path)]]):
        with pytest.raises(PluginError, match="cannot be loaded: RuntimeError: no luck"):
            load_registry(*given)
    assert [one.name for one in load_registry(extra=[str(path.parent)]).broken] == ["broken"]


@pytest.mark.parametrize("which", ["suite_plugins", "extra"])
def test_missing_path_is_told(which: str) -> None:
    with pytest.raises(PluginError, match=r"the plugin not/there\.py does not exist"):
        load_registry(**{which: ["not/there.py"]})  # type: ignore[arg-type]


def test_entry_point_is_found(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("site/installed_method.py", "installed")
    monkeypatch.syspath_prepend(path.parent)
    point = EntryPoint("installed", "installed_method", registry_module.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [point])
    assert load_registry()["installed"].origin == "entry point"


def test_entry_point_in_a_package_imports_from_it(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    imports = "from ..scales import SCALE\nfrom installed_package import scales\nfrom . import signs\n"
    loss = METHOD.replace("-logps.chosen", "signs.SIGN * SCALE * logps.chosen + scales.SHIFT")
    path = write("site/installed_package/methods/mine.py", text=imports + loss)
    write("site/installed_package/__init__.py", text="")
    write("site/installed_package/methods/__init__.py", text="")
    write("site/installed_package/methods/signs.py", text="SIGN = -1")
    write("site/installed_package/scales.py", text="SCALE, SHIFT = 3, 1")
    monkeypatch.syspath_prepend(path.parents[2])
    point = EntryPoint("mine", "installed_package.methods.mine", registry_module.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [point])
    plugin = load_registry()["mine"]
    assert "installed_package" not in sys.modules, "listing it imports nothing of it"
    try:
        plugin.load()
        assert isinstance(plugin.algorithm, OfflineAlgorithm)
        assert plugin.algorithm(pairs()).values.tolist() == [4.0, 7.0]
        before = plugin.digest
        write("site/installed_package/scales.py", text="SCALE, SHIFT = 3, 2")
        assert load_registry()["mine"].digest != before
    finally:
        for name in [name for name in sys.modules if name.startswith("installed_package")]:
            del sys.modules[name]


def pairs() -> PairLogps:
    """Two pairs, with log-probabilities −1 and −2 of the chosen answers."""
    tokens = torch.ones(2, dtype=torch.long)
    return PairLogps(torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -4.0]), tokens, tokens)


def test_entry_point_of_a_missing_package_does_not_stop_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("gone", "no_such_package.method", registry_module.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [point])
    found = load_registry()
    assert "dpo" in found.plugins
    assert "no_such_package" in str(found.broken)


# -- one name, one file ------------------------------------------------------------------------------------------------


def test_two_of_one_name_are_an_error_that_names_both_files(write: Write) -> None:
    first, second = write("a/first.py", "same"), write("b/second.py", "same", METHOD + "# another version\n")
    with pytest.raises(PluginError, match="two plugins are called 'same'") as caught:
        load_registry(extra=[str(first), str(second)])
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


def test_built_in_methods_have_no_privilege(write: Write) -> None:
    path = write("dpo.py", "dpo")
    with pytest.raises(PluginError, match="two plugins are called 'dpo'") as caught:
        load_registry(extra=[str(path)])
    assert str(path) in str(caught.value)
    assert str(builtin_folder("algorithms").resolve() / "dpo.py") in str(caught.value)


def test_same_file_lying_in_two_places_is_one_method(tmp_path: Path) -> None:
    """A clone of the project beside an installed package holds every built-in file a second time."""
    folder = shutil.copytree(builtin_folder("algorithms"), tmp_path / "algorithms")
    assert set(load_registry(extra=[str(folder)]).plugins) == set(load_registry().plugins)


def test_imported_method_is_not_counted_twice(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write("site/shared_method.py", "shared")
    monkeypatch.syspath_prepend(base.parent)
    monkeypatch.setitem(sys.modules, "shared_method", None)  # forget it afterwards
    monkeypatch.delitem(sys.modules, "shared_method")
    user = write("user.py", "own", "from shared_method import shared\n" + METHOD)
    found = load_registry(extra=[str(user), str(base)])
    assert (found["own"].path, found["shared"].path) == (user.resolve(), base.resolve())


def test_second_name_of_a_method_is_not_a_second_method(write: Write) -> None:
    path = write("mine.py", "mine", METHOD + "\nalias = {name}\n")
    assert load_registry(extra=[str(path)])["mine"].path == path.resolve()


def test_one_file_may_declare_several_methods(write: Write) -> None:
    path = write("both.py", text=METHOD.replace("{name}", "one") + METHOD.replace("{name}", "two"))
    found = load_registry(extra=[str(path)])
    assert found["one"].digest == found["two"].digest
    assert found["one"].path == found["two"].path == path.resolve()


def test_digest_is_that_of_the_code(write: Write) -> None:
    path = write("mine.py")
    before = load_registry(extra=[str(path)])["mine"].digest
    write("mine.py", text=METHOD + "# more\n")
    assert load_registry(extra=[str(path)])["mine"].digest == before
    write("mine.py", text=METHOD.replace("-logps.chosen", "-2 * logps.chosen"))
    assert load_registry(extra=[str(path)])["mine"].digest != before


def test_method_without_a_file_is_given_its_digest() -> None:
    plugin = replace(load_registry()["dpo"], given_digest="edited")
    assert plugin.digest == "edited"


def test_digest_of_a_file_that_was_edited_since_is_refused(write: Write) -> None:
    path = write("mine.py")
    plugin = load_registry(extra=[str(path)])["mine"]
    write("mine.py", text=METHOD.replace("-logps.chosen", "-2 * logps.chosen"))
    with pytest.raises(PluginError, match="was changed after it was read"):
        _ = plugin.digest


def test_changed_file_is_read_anew(write: Write) -> None:
    path = write("mine.py")
    assert load_registry(extra=[str(path)])["mine"].algorithm.parameters["beta"].default == 0.1
    write("mine.py", text=METHOD.replace("beta: float = 0.1", "beta: float = 0.2"))
    assert load_registry(extra=[str(path)])["mine"].algorithm.parameters["beta"].default == 0.2


# -- broken files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("def broken(:", "SyntaxError"),
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("raise SystemExit('needs another Python')", "SystemExit: needs another Python"),
        ("x = 1", "declares no method"),
        ("", "declares no method"),
        (METHOD.replace('    """A method of the tests."""\n', ""), "mine has no docstring"),
        (METHOD.replace('reward="s"', 'reward="s", data="pears"'), "Did you mean pairs"),
        (METHOD.replace('reward="s"', 'reward="s", reference=True'), "is PairLogps, which is reference=False"),
        (METHOD.replace("beta: float = 0.1", "beta: float"), "must be keyword-only with a default"),
        (METHOD.replace('paper="none", ', ""), "PluginError: algorithm: algorithm(…) missing 1 required"),
        (METHOD.replace("{name}", "base"), "'base' is a reserved name"),
        (METHOD.replace("{name}", "judge"), "'judge' is a reserved name"),
        (METHOD.replace("{name}", "judge2"), "'judge2' is a reserved name"),  # the second judge's cell
        ("\0", ""),
    ],
)
def test_broken_file_is_a_row_with_its_reason(write: Write, text: str, reason: str) -> None:
    path = write("broken.py", text=text.replace("{name}", "mine"))
    found = load_registry(extra=[str(path.parent)])
    assert "dpo" in found.plugins, "the others are there"
    (broken,) = found.broken
    assert (broken.name, broken.path) == ("broken", path)
    assert reason in broken.reason
    with pytest.raises(PluginError, match=r"the plugin .* cannot be loaded: ") as caught:
        found["broken"]
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)


def test_reason_is_one_line(write: Write) -> None:
    path = write("broken.py", text="raise ValueError('first\\nsecond')")
    (broken,) = load_registry(extra=[str(path.parent)]).broken
    assert "first" in broken.reason
    assert "\n" not in broken.reason


def test_broken_file_leaves_no_module_behind(write: Write) -> None:
    load_registry(extra=[str(write("half_done.py", text="raise RuntimeError").parent)])
    assert not [name for name in sys.modules if "half_done" in name]


def test_file_that_is_not_text_is_broken(write: Write) -> None:
    path = write("broken.py")
    path.write_bytes(b"\xff\xfe\x00")
    assert [broken.path for broken in load_registry(extra=[str(path.parent)]).broken] == [path]


def test_file_that_is_not_python_is_broken(write: Write) -> None:
    path = write("notes.txt", text="hello")
    with pytest.raises(PluginError, match="is not a Python file"):
        load_registry(extra=[str(path)])


def test_unknown_method_suggests_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"no method 'simppo'\. Did you mean simpo") as caught:
        load_registry()["simppo"]
    assert "orpo" in str(caught.value)


def test_unknown_method_points_at_the_files_that_might_have_held_it(write: Write) -> None:
    path = write("my_file.py", text="raise RuntimeError('no luck')\n" + METHOD)
    with pytest.raises(PluginError, match="no method 'mine'") as caught:
        load_registry(extra=[str(path.parent)])["mine"]
    assert str(path) in str(caught.value)


# -- what a built-in method owes its readers ---------------------------------------------------------------------------

ALLOWED = {"math", "torch", "annotated_types", "typing", "align_bench.api"}
BESIDE = {"._trl"}  # for recipes
FOREIGN = {"trl", "transformers", "accelerate", "datasets"}  # for what recipes share, and only inside functions


@pytest.mark.parametrize("path", [*BUILT_IN, *SHARED], ids=lambda path: path.stem)
def test_built_in_imports_no_more_than_a_plugin_may(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_import = imported([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)])
    later = imported([*ast.walk(tree)]) - at_import
    takes_trainings = path.stem in recipes()
    assert at_import <= ALLOWED | (BESIDE if takes_trainings else set())
    assert later <= (FOREIGN if path in SHARED else set())


def imported(nodes: Sequence[ast.AST]) -> set[str]:
    """What the nodes import beyond the standard library: packages, modules of this one, and files beside, as `._x`."""
    found, beside = set(), set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            beside.add("." * node.level + (node.module or ""))
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    named = {name if name.startswith("align_bench") else name.partition(".")[0] for name in found}
    return (named - sys.stdlib_module_names) | beside


def recipes() -> set[str]:
    """The built-in recipes' names."""
    return {method.name for method in built_in_methods() if isinstance(method, Recipe)}


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: path.stem)
def test_built_in_file_is_one_method_of_its_name(path: Path) -> None:
    assert [name for name, plugin in load_registry().plugins.items() if plugin.path == path.resolve()] == [path.stem]


def test_code_that_trls_methods_share_is_a_part_of_their_digests_and_of_no_others(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(builtin_folder("algorithms"), tmp_path / "algorithms"))

    def digests() -> dict[str, str]:
        return {path.stem: plugin_digest(path) for path in folder.glob("[!_]*.py")}

    before = digests()
    assert len({before[name] for name in recipes()}) == len(recipes()) == 7
    with (folder / "_trl.py").open("a", encoding="utf-8") as file:
        file.write("MORE = 1\n")
    assert {name for name, digest in digests().items() if digest != before[name]} == recipes()


def built_in_methods() -> list[Algorithm]:
    """Every built-in method."""
    return [plugin.algorithm for plugin in load_registry().plugins.values()]


@pytest.mark.parametrize("method", built_in_methods(), ids=lambda method: method.name)
def test_built_in_docstring_is_whole(method: Algorithm) -> None:
    sections = [line for line in method.doc.splitlines() if line.endswith(":") and not line.startswith(" ")]
    *required, differences = sections
    if isinstance(method, Recipe):  # it returns nothing, and may rather differ from the method that it repeats
        assert required == ["Equation:", "Args:", "Source:"]
        assert differences.startswith("Differs from ")
    else:
        assert required == ["Equation:", "Args:", "Returns:", "Source:"]
        assert differences == "Differs from the source:"
    assert method.summary.endswith(".")
    args = method.doc.partition("\nArgs:\n")[2].partition("\n\n")[0]
    described = [
        line.strip().partition(":")[0] for line in args.splitlines() if line.startswith("    ") and line[4] != " "
    ]
    assert described == list(method.arguments)
    assert described == list(method.descriptions)
    assert all(parameter.description for parameter in method.parameters.values())


@pytest.mark.parametrize("method", built_in_methods(), ids=lambda method: method.name)
def test_built_in_declaration_is_whole(method: Algorithm) -> None:
    assert method.paper.startswith("arXiv:")
    if isinstance(method, Selection):  # it trains nothing
        assert method.learning_rate is None
    else:
        assert method.reward
        assert method.learning_rate is not None and 0 < method.learning_rate < 1  # noqa: PT018
    assert all(parameter.bounds for parameter in method.parameters.values() if parameter.type is float)


def test_a_sum_is_the_same_method_in_a_worker_process() -> None:
    terms = {"dpo.weight": [0.8], "bco.weight": [0.2], "bco.beta": [0.2], "sft.weight": [1.0]}
    plugin = load_registry().with_sums([Method(name="mpo", grid=terms)])["mpo"]
    found = pickle.loads(pickle.dumps(plugin))
    assert (found.digest, found.origin, found.path) == (plugin.digest, plugin.origin, plugin.path)
    assert (found.algorithm.parameters, found.algorithm.doc) == (plugin.algorithm.parameters, plugin.algorithm.doc)
    assert [part.algorithm.name for part in found.parts] == ["bco", "dpo", "sft"]
    found.load()


@pytest.mark.parametrize("entry", [{"mpo": {"sum": ["dpo", "sft"]}}, {"mpo": {"sum": None}}, {"sum": ["dpo", "sft"]}])
def test_what_is_no_mapping_is_no_sum(entry: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"`sum: \{dpo: 0\.8, sft: 1\.0\}`"):
        TypeAdapter(MethodEntry).validate_python(entry)


def test_a_sum_without_a_name_takes_what_every_method_takes() -> None:
    entry = {"sum": {"dpo": 1, "sft": 1, "start_from": ["base", "sft"], "epochs": 2}}
    method = TypeAdapter(MethodEntry).validate_python(entry)
    assert (method.name, method.terms) == ("dpo+sft", ("dpo", "sft"))
    assert (method.grid["start_from"], method.grid["epochs"]) == (["base", "sft"], [2])
