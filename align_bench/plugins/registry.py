"""Find and load plugins. A registry is a value: name → plugin, with the broken ones beside.

What a plugin declares is read from its file without executing it, where it says it plainly (`declared`); its code is
executed when a loss is first computed, or by `Plugin.load`.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.api import Algorithm, summed
from align_bench.errors import PluginError, nearest
from align_bench.plugins.declared import declared
from align_bench.plugins.modules import (
    Announce,
    PluginFile,
    PluginFiles,
    cannot_load,
    import_fix,
    in_a_line,
    reason_of,
)
from align_bench.suite.load import builtin_folder
from align_bench.suite.names import RESERVED

if TYPE_CHECKING:
    from align_bench.suite.models import Method

ENTRY_POINT_GROUP = "align_bench.algorithms"
Approve = Callable[[Mapping[Path, str]], None]
"""Given path → sha256 of each file."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A method and where it came from.

    Attributes:
        algorithm: the declared method; what it calls executes the file, once.
        path: its file; of a sum, that of its first term.
        origin: `built-in`, `entry point`, `option`, `suite` or `sum`.
        given_digest: stands for the digest of the code, such as that of a method without a file.
        file: the file as it was read; None for a method that was declared in no file.
        parts: the methods whose losses a sum adds up; none of any other method.
    """

    algorithm: Algorithm
    path: Path
    origin: str
    given_digest: str | None = None
    file: PluginFile | None = None
    parts: tuple[Plugin, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 of the file and of all local code that it imports; part of every key that depends on the method.

        Raises:
            PluginError: when a file was changed after it was read.
        """
        if self.given_digest is not None:
            return self.given_digest
        if self.parts:
            named = "\n".join(f"{part.algorithm.name} {part.digest}" for part in self.parts)
            return hashlib.sha256(named.encode()).hexdigest()
        assert self.file is not None, "a method without a file is given a digest"
        return self.file.digest

    def __reduce__(self) -> tuple[object, ...]:
        """For a worker process: the method is declared there by the same file, and a sum by those of its terms."""
        if self.parts:
            return _sum_of, (self.algorithm.name, self.parts)
        if self.file is None:
            return Plugin, (self.algorithm, self.path, self.origin, self.given_digest)
        return _read_again, (self.file.place, self.file.package, self.origin, self.algorithm.name, self.digest)

    def load(self) -> None:
        """Execute the file now, and ask whether the method can train here, so that a run fails before any work.

        Raises:
            PluginError: with the reason, when it cannot.
        """
        for part in self.parts:
            part.load()
        if self.file is not None:
            self.file.module()
        try:
            found = self.algorithm.obstacle_here()
        except PluginError:
            raise
        except Exception as error:  # a plugin may raise anything
            found = in_a_line(error)
        if found:
            raise PluginError(f"{self.algorithm.name} cannot train here: {found}")


@dataclass(frozen=True, slots=True)
class Broken:
    """A plugin file that could not be loaded; fatal only where one of its methods is selected.

    Attributes:
        name: the file's stem, which is what a suite would most likely call it.
        path: the file.
        reason: the error, in one line.
        fix: what mends it, if that is known.
    """

    name: str
    path: Path
    reason: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Registry:
    """All methods that were found.

    Attributes:
        plugins: name → method.
        broken: files that could not be loaded.
        unread: files that lie where a user may expect them to be found, and that nobody named.
    """

    plugins: Mapping[str, Plugin]
    broken: tuple[Broken, ...] = ()
    unread: tuple[Path, ...] = ()

    def __getitem__(self, name: str) -> Plugin:
        """The plugin of that name.

        Raises:
            PluginError: when there is none, or its file is broken.
        """
        if name in self.plugins:
            return self.plugins[name]
        for broken in self.broken:
            if broken.name == name:
                raise PluginError(f"the plugin {broken.path} cannot be loaded: {broken.reason}", fix=broken.fix)
        for path in self.unread:
            if path.stem == name:
                raise PluginError(
                    f"no method {name!r}. {path} is not loaded, since only files that you name are",
                    fix=f"add --plugin {path}",
                )
        failed = ", ".join(str(broken.path) for broken in self.broken)
        raise PluginError(
            f"no method {name!r}. {nearest(name, self.plugins, what='method')}"
            + (f" These files could not be loaded: {failed}." if failed else "")
        )

    def of_terms(self, name: str) -> Plugin:
        """A method; or, of a name such as `dpo+sft`, the sum of these methods' losses.

        Raises:
            PluginError: when there is no such method, or the terms cannot be summed.
        """
        return _sum_of(name, tuple(self[term] for term in name.split("+"))) if "+" in name else self[name]

    def with_sums(self, methods: Iterable[Method]) -> Registry:
        """These methods, and the sums of losses among the entries of a suite.

        Raises:
            PluginError: when a term is no method, the terms cannot be summed, or a name stands for something else.
        """
        sums: dict[str, Plugin] = {}
        for method in methods:
            if not method.terms:
                continue
            parts = tuple(self[term] for term in method.terms)
            if method.name in self.plugins or RESERVED.fullmatch(method.name):
                raise PluginError(f"the name {method.name!r} of a sum is taken", fix="choose another name")
            if method.name in sums and sums[method.name].parts != parts:
                raise PluginError(f"two sums of other terms are called {method.name!r}", fix="rename one of them")
            sums[method.name] = _sum_of(method.name, parts)
        return replace(self, plugins={**self.plugins, **sums}) if sums else self


def load_registry(
    suite_plugins: Sequence[str] = (),
    extra: Sequence[str] = (),
    *,
    approve: Approve | None = None,
    announce: Announce | None = None,
    beside: Iterable[Path] = (),
) -> Registry:
    """Load the built-in plugins, those of installed packages, and those that are named; no others.

    Args:
        suite_plugins: files or folders that the suite names.
        extra: files or folders that the user named with `--plugin`.
        approve: is shown the files that only the suite names, before any of them may be executed, and raises where the
            user does not agree; None where the caller answers for them.
        announce: is called with each file that is not built in, before it is executed.
        beside: folders whose files are not loaded, but named to a user who asks for a method of theirs.

    Raises:
        PluginError: when two files declare one name, a named file does not exist or cannot be loaded, or `approve`
            raises it.
    """
    plugins: dict[str, Plugin] = {}
    broken: list[Broken] = []
    files = PluginFiles(announce)
    listed = list(_files(suite_plugins, extra, broken))
    asked = [path for path, origin, _ in listed if origin == "suite"]
    if approve is not None and asked:
        approve({path.resolve(): files.read(path).digest for path in asked})
    single = {Path(named).resolve() for named in (*suite_plugins, *extra) if Path(named).is_file()}
    for path, origin, package in listed:
        try:
            found = _methods(path, origin, files, package)
        except (Exception, SystemExit) as error:  # a plugin may raise anything while it is imported
            if path.resolve() in single:
                raise cannot_load(path, error) from error
            broken.append(Broken(path.stem, path, reason_of(error), import_fix(path, error)))
            continue
        for plugin in found:
            name = plugin.algorithm.name
            if name in plugins and _same(plugins[name], plugin):
                continue  # the same file twice, such as a clone's beside an installed package's
            if name in plugins:
                raise PluginError(
                    f"two plugins are called {name!r}: {plugins[name].path} and {path}",
                    fix="rename one of the functions",
                )
            plugins[name] = plugin
    known = {path.resolve() for path, _, _ in listed}
    unread = [path for folder in beside for path in _python_files(folder) if path.resolve() not in known]
    return Registry(dict(sorted(plugins.items())), tuple(broken), tuple(unread))


def load_file(path: Path) -> tuple[Plugin, ...]:
    """The methods of one file, whatever others are called; the file is executed.

    Raises:
        PluginError: when there is no such file, or it cannot be loaded.
    """
    if not path.is_file():
        raise PluginError(f"the plugin {path} does not exist", fix="give the path of a Python file")
    try:
        found = _methods(path, "option", PluginFiles())
        for plugin in found:
            assert plugin.file is not None, "it was read from one"
            plugin.file.execute()
    except (Exception, SystemExit) as error:  # a plugin may raise anything while it is imported
        raise cannot_load(path, error) from error
    return found


def _files(
    suite_plugins: Sequence[str], extra: Sequence[str], broken: list[Broken]
) -> Iterator[tuple[Path, str, str | None]]:
    """Each plugin file once, under the first origin that names it, with the installed package that it belongs to."""
    seen: set[Path] = set()

    def once(paths: Iterable[Path], origin: str, package: str | None = None) -> Iterator[tuple[Path, str, str | None]]:
        for path in paths:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path, origin, package

    yield from once(_python_files(builtin_folder("algorithms")), "built-in")
    for path, package in _entry_point_files(broken):
        yield from once([path], "entry point", package)
    yield from once((path for named in extra for path in _named(named)), "option")
    yield from once((path for named in suite_plugins for path in _named(named)), "suite")


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


def _entry_point_files(broken: list[Broken]) -> Iterator[tuple[Path, str | None]]:
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            spec = _located(point.module)
        except (Exception, SystemExit) as error:
            broken.append(Broken(point.name, Path(point.module), in_a_line(error)))
            continue
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin), spec.parent or None


def _located(module: str) -> ModuleSpec | None:
    """Where a module lies; packages above it, which may import torch, are imported only where nothing else tells."""
    name, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(name)
        for part in below:
            if spec is None or spec.submodule_search_locations is None:
                break
            name = f"{name}.{part}"
            spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    except (ImportError, ValueError, KeyError):  # KeyError: a folder without __init__.py inside of a package
        spec = None
    return spec if spec is not None and spec.name == module else importlib.util.find_spec(module)


def _sum_of(name: str, parts: tuple[Plugin, ...]) -> Plugin:
    """A sum of the losses of some methods."""
    terms = {part.algorithm.name: part.algorithm for part in parts}
    return Plugin(summed(name, terms), parts[0].path, "sum", parts=parts)


@cache
def _read_again(path: Path, package: str | None, origin: str, name: str, digest: str) -> Plugin:
    """A method of a file that another process has read.

    Raises:
        PluginError: when the file, or one that it imports, is not what that process has read.
    """
    for plugin in _methods(path, origin, _files_read_again(), package):
        if plugin.algorithm.name == name and plugin.digest == digest:
            return plugin
    raise PluginError(
        f"{path} does not declare {name} as it did when the run began",
        fix="leave plugins as they are during a run, and run again",
    )


@cache
def _files_read_again() -> PluginFiles:
    return PluginFiles()


def _methods(path: Path, origin: str, files: PluginFiles, package: str | None = None) -> tuple[Plugin, ...]:
    if path.suffix != ".py":
        raise PluginError(f"{path} is not a Python file")
    file = files.read(path, package)
    file.built_in = origin == "built-in"
    found = declared(file)
    if found is None:
        found = _made(file)
    else:
        file.declared = found
    if not found:
        raise PluginError("declares no method", fix="decorate a function with @align_bench.api.algorithm(...)")
    for value in found:
        if RESERVED.fullmatch(value.name):
            raise PluginError(f"{value.name!r} is a reserved name", fix="rename the function")
    return tuple(Plugin(value, path.resolve(), origin, file=file) for value in found)


def _made(file: PluginFile) -> tuple[Algorithm, ...]:
    """The methods that executing the file makes."""
    module = file.execute()
    found = {id(value): value for value in vars(module).values() if isinstance(value, Algorithm)}  # aliases once
    # A method that was imported from another plugin belongs to that file.
    return tuple(value for value in found.values() if value.function.__module__ == module.__name__)


def _same(one: Plugin, other: Plugin) -> bool:
    """Whether two methods come from copies of one file; files that they import beside them have to be copies too."""
    if one.path == other.path or one.file is None or other.file is None or one.file.source != other.file.source:
        return False
    return not one.file.imports_beside or one.digest == other.digest
