"""Find and load plugins. A registry is a value: name → plugin, with the broken ones beside."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from align_bench.api import Algorithm
from align_bench.errors import PluginError, nearest
from align_bench.suite.load import builtin_folder
from align_bench.suite.models import BASE_CELL, JUDGE_CELL

ENTRY_POINT_GROUP = "align_bench.algorithms"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A loaded method and where it came from.

    Attributes:
        algorithm: the declared method.
        path: its file.
        origin: `built-in`, `entry point`, `suite` or `option`.
        digest: sha256 of the file, part of every key that depends on the method.
    """

    algorithm: Algorithm
    path: Path
    origin: str
    digest: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A plugin file that could not be loaded; fatal only where one of its methods is selected.

    Attributes:
        name: the file's stem, which is what a suite would most likely call it.
        path: the file.
        reason: the error, in one line.
    """

    name: str
    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Registry:
    """All methods that were found."""

    plugins: Mapping[str, Plugin]
    broken: tuple[Broken, ...] = ()

    def __getitem__(self, name: str) -> Plugin:
        """The plugin of that name.

        Raises:
            PluginError: when there is none, or its file is broken.
        """
        if name in self.plugins:
            return self.plugins[name]
        for broken in self.broken:
            if broken.name == name:
                raise PluginError(f"the plugin {broken.path} cannot be loaded: {broken.reason}")
        unread = ", ".join(str(broken.path) for broken in self.broken)
        raise PluginError(
            f"no method {name!r}. {nearest(name, self.plugins, what='method')}"
            + (f" These files could not be loaded: {unread}." if unread else "")
        )


def load_registry(
    suite_file: Path | None = None, suite_plugins: Sequence[str] = (), extra: Sequence[str] = ()
) -> Registry:
    """Load every plugin that can be found; the built-in ones have no privilege.

    Args:
        suite_file: the suite in use; `algorithms/` in its folder and beside its folder are read.
        suite_plugins: files or folders that the suite names.
        extra: files or folders that the user named with `--plugin`.

    Raises:
        PluginError: when two files declare one name, or a named file does not exist.
    """
    plugins: dict[str, Plugin] = {}
    broken: list[Broken] = []
    for path, origin in _files(suite_file, suite_plugins, extra, broken):
        try:
            loaded = list(_load(path, origin))
        except (Exception, SystemExit) as error:  # a plugin may raise anything while it is imported
            broken.append(Broken(path.stem, path, _reason(error)))
            continue
        for plugin in loaded:
            name = plugin.algorithm.name
            if name in plugins and plugins[name].digest == plugin.digest and plugins[name].path != plugin.path:
                continue  # the same file twice, such as a clone's beside an installed package's
            if name in plugins:
                raise PluginError(
                    f"two plugins are called {name!r}: {plugins[name].path} and {path}",
                    fix="rename one of the functions",
                )
            plugins[name] = plugin
    return Registry(dict(sorted(plugins.items())), tuple(broken))


def load_file(path: Path) -> tuple[Plugin, ...]:
    """The methods of one file, whatever others are called.

    Raises:
        PluginError: when there is no such file, or it cannot be loaded.
    """
    if not path.is_file():
        raise PluginError(f"the plugin {path} does not exist", fix="give the path of a Python file")
    try:
        return tuple(_load(path, "option"))
    except (Exception, SystemExit) as error:  # a plugin may raise anything while it is imported
        raise PluginError(f"the plugin {path} cannot be loaded: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _files(
    suite_file: Path | None, suite_plugins: Sequence[str], extra: Sequence[str], broken: list[Broken]
) -> Iterator[tuple[Path, str]]:
    """Each plugin file once, under the first origin that names it."""
    seen: set[Path] = set()

    def once(paths: Iterable[Path], origin: str) -> Iterator[tuple[Path, str]]:
        for path in paths:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path, origin

    yield from once(_python_files(builtin_folder("algorithms")), "built-in")
    yield from once(_entry_point_files(broken), "entry point")
    if suite_file is not None:
        for folder in (suite_file.parent / "algorithms", suite_file.parent.parent / "algorithms"):
            yield from once(_python_files(folder), "suite")
    yield from once((path for named in suite_plugins for path in _named(named)), "suite")
    yield from once((path for named in extra for path in _named(named)), "option")


def _python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if not path.name.startswith("_")) if folder.is_dir() else []


def _named(path: str) -> list[Path]:
    named = Path(path)
    if named.is_dir():
        return _python_files(named)
    if not named.is_file():
        raise PluginError(
            f"the plugin {path} does not exist", fix="give the path of a Python file or of a folder of them"
        )
    return [named]


def _entry_point_files(broken: list[Broken]) -> Iterator[Path]:
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            spec = importlib.util.find_spec(point.module)  # imports the packages above it
        except (Exception, SystemExit) as error:
            broken.append(Broken(point.name, Path(point.module), f"{type(error).__name__}: {error}"))
            continue
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin)


def _load(path: Path, origin: str) -> Iterator[Plugin]:
    if path.suffix != ".py":
        raise PluginError(f"{path} is not a Python file")
    source = path.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    module = _imported(path, source, digest)
    found = {id(value): value for value in vars(module).values() if isinstance(value, Algorithm)}  # aliases once
    # A method that was imported from another plugin belongs to that file.
    own = [value for value in found.values() if value.function.__module__ == module.__name__]
    if not own:
        raise PluginError("declares no method", fix="decorate a function with @align_bench.api.algorithm(...)")
    for value in own:
        if value.name in (BASE_CELL, JUDGE_CELL):
            raise PluginError(f"{value.name!r} is a reserved name", fix="rename the function")
        yield Plugin(value, path.resolve(), origin, digest)


def _imported(path: Path, source: bytes, digest: str) -> ModuleType:
    name = f"_align_bench_plugin_{path.stem}_{digest[:12]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # typing.get_type_hints looks the module up
    try:
        # The bytes that were hashed, not Python's cache of them: it tells files apart by second and size only.
        exec(compile(source, path, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module
