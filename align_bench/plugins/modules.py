"""Execute plugin files: each from the bytes that were read, and with the files beside it in reach.

A plugin runs in a package of its own folder that is made up for it. So `from ._shared import x` finds `_shared.py`
beside the plugin, and files of equal name in two folders are two modules. A file whose name starts with `_` is never
taken for a plugin itself. What lies in an installed package and is found by an entry point runs in that package.

Nothing is read from Python's cache of compiled files, which tells two versions of a file apart by second and size only.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.abc
import importlib.util
import itertools
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

from align_bench.errors import PluginError
from align_bench.plugins.declared import difference
from align_bench.sources import files_beside, plugin_digest

if TYPE_CHECKING:
    from align_bench.api import Algorithm

_PACKAGE = "_align_bench_plugins"
_READINGS = itertools.count()
Announce = Callable[["PluginFile"], None]


class PluginFiles:
    """The plugin files, and the files that they import, of one reading: each is read once.

    Another reading starts anew, so that it sees what was edited meanwhile; what the first one loaded stays as it is.
    """

    def __init__(self, announce: Announce | None = None) -> None:
        """Nothing is read yet.

        Args:
            announce: is called with each file that is not built in, before it is executed.
        """
        self.announce = announce
        self.lock = threading.RLock()
        self._number = next(_READINGS)
        self._read: dict[Path, PluginFile] = {}
        self._imported: set[Path] = set()

    def read(self, path: Path, package: str | None = None) -> PluginFile:
        """The file, read now unless it was before.

        Args:
            path: the file.
            package: the installed package that it belongs to, in which it is to run; None for its folder's own.

        Raises:
            OSError: when it cannot be read.
        """
        place = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would leave the folder of a linked file
        with self.lock:
            if place not in self._read:
                self._read[place] = PluginFile(self, place, str(path), path.read_bytes(), package)
            return self._read[place]

    def package_name(self, folder: Path) -> str:
        """The name of the package that is made up for a folder."""
        return f"{_PACKAGE}_{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}_{self._number}"

    def enter(self, folder: Path) -> str:
        """Make the folder's package importable, and return its name."""
        name = self.package_name(folder)
        if name not in sys.modules:
            package = _FolderPackage(name, folder, self)
            if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
                sys.meta_path.insert(0, _Finder())
            sys.modules[name] = package
        return name

    def imported(self, path: Path) -> PluginFile:
        """The file, as `read`, for a plugin that imports it."""
        with self.lock:
            file = self.read(path)
            self._imported.add(file.place)
            return file

    def imported_below(self, folder: Path) -> list[PluginFile]:
        """What plugins of a folder have imported so far."""
        return [self._read[place] for place in self._imported if place.is_relative_to(folder)]


class PluginFile:
    """A file as it was read: its methods are declared, hashed and executed from the same bytes.

    Attributes:
        place: where it lies, absolute.
        shown: its path as it was given, for tracebacks.
        source: its bytes.
        package: the installed package that it runs in; None for its folder's own.
        declared: the methods that were read from its syntax tree, to be found again when it is executed; empty when
            they were not read so.
        built_in: whether it is part of the package.
    """

    def __init__(self, files: PluginFiles, place: Path, shown: str, source: bytes, package: str | None) -> None:
        self.place = place
        self.shown = shown
        self.source = source
        self.package = package
        self.declared: tuple[Algorithm, ...] = ()
        self.built_in = False
        self._files = files
        self._module: ModuleType | None = None
        self._digest: str | None = None

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree.

        Raises:
            SyntaxError, ValueError: when it is not Python.
        """
        return ast.parse(self.source, self.shown)

    @cached_property
    def code(self) -> CodeType:
        """What it compiles to.

        Raises:
            SyntaxError, ValueError: when it is not Python.
        """
        return compile(self.tree, self.shown, "exec", dont_inherit=True)

    @property
    def name(self) -> str:
        """The name of its module."""
        stem = self.place.stem
        if not stem.isidentifier():
            stem = f"{re.sub(r'[^0-9A-Za-z_]', '_', stem)}_{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}"
        return f"{self._files.package_name(self.place.parent)}.{stem}"

    @property
    def imports_beside(self) -> bool:
        """Whether it has relative imports."""
        return any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(self.tree))

    @property
    def changed(self) -> bool:
        """Whether the file is no longer what was read."""
        try:
            return self.place.read_bytes() != self.source
        except OSError:
            return True

    @property
    def digest(self) -> str:
        """sha256 of the file and of all local code that it imports; part of every key that depends on its methods.

        Raises:
            PluginError: when a file was changed after it was read.
        """
        if self._digest is None:
            # What is imported when a function runs is read now, too, so that it will be executed as it is hashed. An
            # installed package's files are Python's own to import.
            beside = [self._files.read(file) for file in files_beside(self.place)] if self.package is None else []
            found = self._hashed()
            if any(file.changed for file in (self, *beside, *self._files.imported_below(self.place.parent))):
                raise _edited(self.place)
            self._digest = found
        return self._digest

    def module(self) -> ModuleType:
        """The executed file; it is executed once.

        Raises:
            PluginError: when that fails, or does not make the methods that it was read to declare.
        """
        try:
            return self.execute()
        except PluginError:
            raise
        except (Exception, SystemExit) as error:  # a plugin may raise anything while it is imported
            raise cannot_load(self.place, error) from error

    def execute(self) -> ModuleType:
        """As `module`, but raises what the file raises. What a broken file has imported beside it is forgotten."""
        with self._files.lock:
            if self._module is None:
                if self._files.announce is not None and not self.built_in:
                    self._files.announce(self)
                before = set(sys.modules)
                try:
                    module = self._executed()
                    self._check(module)
                except BaseException:
                    _forget(self._files.package_name(self.place.parent), before)
                    raise
                self._module = module
            return self._module

    def _executed(self) -> ModuleType:
        if self.package is not None:
            importlib.import_module(self.package)
            module = ModuleType(self.name)
            module.__file__ = self.shown
            module.__package__ = self.package  # what its relative imports start from
        else:
            package = self._files.enter(self.place.parent)
            if self.name in sys.modules:
                return sys.modules[self.name]  # a plugin beside it has imported it
            spec = importlib.util.spec_from_file_location(
                self.name, self.shown, loader=_Loader(self._files, self.place)
            )
            assert spec is not None, "it has a loader"
            module = importlib.util.module_from_spec(spec)
            setattr(sys.modules[package], self.name.rpartition(".")[2], module)
        sys.modules[self.name] = module
        exec(self.code, module.__dict__)  # nosec B102 - a plugin that the user named
        return module

    def _check(self, module: ModuleType) -> None:
        """What has been said of the file so far has to hold for what was executed."""
        for algorithm in self.declared:
            if found := difference(algorithm, vars(module).get(algorithm.name)):
                raise PluginError(
                    f"the plugin {self.place} declares {algorithm.name} otherwise than it reads: {found}",
                    fix="give the declaration's arguments as plain numbers, text and functions of the file",
                )
        if self._digest is not None and self._digest != self._hashed():
            raise _edited(self.place)

    def _hashed(self) -> str:
        if self.package is None:
            return plugin_digest(self.place)
        parts = self.package.split(".")
        return plugin_digest(self.place, top=(parts[0], self.place.parents[len(parts)]))


def in_a_line(error: BaseException) -> str:
    """An error's kind and message, without line breaks."""
    try:
        said = str(error)
    except Exception:  # an error of a plugin's own class
        said = "it has no message"
    return " ".join(f"{type(error).__name__}: {said}".split())


def cannot_load(path: Path, error: BaseException) -> PluginError:
    """The error of a plugin file that has raised `error` as it was loaded."""
    return PluginError(f"the plugin {path} cannot be loaded: {reason_of(error)}", fix=import_fix(path, error))


def reason_of(error: BaseException) -> str:
    """As `in_a_line`; of an import that fails also the file and the line, which its message leaves out."""
    if isinstance(error, ImportError):
        frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<")]
        if frames and Path(frames[-1].filename).parent != Path(__file__).parent:  # who reads a file says where itself
            return f"{in_a_line(error)} ({frames[-1].filename}, line {frames[-1].lineno})"
    return in_a_line(error)


def import_fix(path: Path, error: BaseException) -> str | None:
    """What mends an import of a plugin file that fails; None for other errors."""
    if not isinstance(error, ImportError):
        return None
    top = (error.name or "its module").partition(".")[0]
    if top.startswith(_PACKAGE):
        return "put what it imports with a dot beside it, or correct the import"
    if not isinstance(error, ModuleNotFoundError):
        return f"correct the import, or install a version of {top} that has it"
    if (path.parent / f"{top}.py").is_file() or (path.parent / top / "__init__.py").is_file():
        return f"write `from . import {top}` or `from .{top} import …`: what lies beside a plugin is found so"
    return f"install the package that {top} is of (often: pip install {top}), or correct the import"


def _edited(place: Path) -> PluginError:
    return PluginError(
        f"{place}, or a file that it imports, was changed after it was read", fix="start the command again"
    )


class _FolderPackage(ModuleType):
    """The package that is made up for a folder of plugins; the folder's own `__init__.py` does not run."""

    def __init__(self, name: str, folder: Path, files: PluginFiles) -> None:
        super().__init__(name)
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        self.__spec__ = spec
        self.__package__ = name
        self.__path__ = spec.submodule_search_locations
        self.files = files


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of such packages."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = sys.modules.get(fullname.partition(".")[0])
        if not isinstance(package, _FolderPackage) or path is None:
            return None
        name = fullname.rpartition(".")[2]
        for folder in map(Path, path):
            for file in (folder / name / "__init__.py", folder / f"{name}.py"):  # a package first, as Python does
                if file.is_file():
                    return importlib.util.spec_from_file_location(
                        fullname,
                        file,
                        loader=_Loader(package.files, file),
                        submodule_search_locations=[str(file.parent)] if file.name == "__init__.py" else None,
                    )
            if (folder / name).is_dir():
                spec = ModuleSpec(fullname, None, is_package=True)
                spec.submodule_search_locations = [str(folder / name)]
                return spec
        return None


class _Loader(importlib.abc.Loader):
    """Executes the bytes that were read."""

    def __init__(self, files: PluginFiles, path: Path) -> None:
        self.files = files
        self.path = path

    def exec_module(self, module: ModuleType) -> None:
        exec(self.files.imported(self.path).code, module.__dict__)  # nosec B102 - what such a plugin imports


def _forget(package: str, before: set[str]) -> None:
    for name in [*sys.modules]:
        if name not in before and (name == package or name.startswith(f"{package}.")):
            above, _, last = name.rpartition(".")
            vars(sys.modules.get(above, ModuleType(above))).pop(last, None)
            del sys.modules[name]
