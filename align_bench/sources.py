"""Digests of source code: what a result depends on, as a part of its key.

A module's digest covers its *import closure*: itself and all of the package that it imports, transitively. So a change
computes again what it can have changed, and nothing else. What is hashed of a file is its syntax tree without
docstrings and without what only type checkers read; comments, formatting and documentation change nothing.

What cannot be seen: an import by a computed name (`importlib.import_module(name)`), and files that code reads, other
than the page files of `PAGE_SUFFIXES`.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TOP = "align_bench"
PACKAGE = Path(__file__).parent

# Not a part of any closure, with all that lies below them: no number depends on how an error is worded; the command
# line shows progress, which a stage may import to be shown; and what hashes sources and keeps artefacts names them and
# makes none: code that hashes otherwise gives other names by itself, and what is read back has its checksums.
OUTSIDE = ("align_bench.errors", "align_bench.cli", "align_bench.sources", "align_bench.store")

# From 3.13 on empty lists are left out unless they are asked for; a key must not depend on the version.
_DUMP: dict[str, Any] = {"show_empty": True} if sys.version_info >= (3, 13) else {}

PAGE_SUFFIXES = (".j2", ".css", ".js")  # code that is no Python: a report's templates, styles and scripts


def closure(module: str, *, package: Path = PACKAGE) -> frozenset[str]:
    """The modules that importing and running a module of the package may load.

    Args:
        module: dotted name, such as `align_bench.train.loop`.
        package: the package's folder.

    Returns:
        Dotted names: itself, what it imports anywhere (inside functions too), transitively, and the packages above.

    Raises:
        ModuleNotFoundError: when the package has no such module.
    """
    if _module_file(module, package) is None:
        raise ModuleNotFoundError(f"{package} has no module {module}")
    return frozenset(_closed({module}, package))


def module_digest(module: str, *, package: Path = PACKAGE) -> str:
    """sha256 over the import closure of a module of the package, hexadecimal.

    The own package's digests stay as they were when they were first asked for: what is loaded does not change with its
    file either.

    Args:
        module: dotted name, such as `align_bench.train.loop`.
        package: the package's folder.

    Raises:
        ModuleNotFoundError: when the package has no such module.
    """
    return _own_digest(module) if package == PACKAGE else _closure_digest(module, package)


@cache
def _own_digest(module: str) -> str:  # asked for by every stage of a plan
    return _closure_digest(module, PACKAGE)


def _closure_digest(module: str, package: Path) -> str:
    return _digest(_package_parts(closure(module, package=package), package))


def plugin_digest(path: Path, *, package: Path = PACKAGE, top: tuple[str, Path] | None = None) -> str:
    """sha256 over a plugin file, the local files that it imports, and its closure in the package; hexadecimal.

    Local files are those of relative imports, and with `top` also those of absolute imports of the plugin's own
    distribution. Neither the plugin's own name nor the place of its folder counts. An import whose file does not exist
    is passed over: it fails when it is run.

    Args:
        path: the plugin.
        package: the folder of the package `align_bench`.
        top: name of the top-level package that the plugin belongs to, and the folder that contains this package.

    Raises:
        OSError: when the file cannot be read.
    """
    start = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would leave the folder of a linked file
    files, needed = _local_files(start, package, top)
    parts = [
        ("" if file == start else Path(os.path.relpath(file, start.parent)).as_posix(), _source(file).digest)
        for file in files
    ]
    return _digest([*parts, *_package_parts(_closed(needed, package), package)])


def files_beside(path: Path) -> set[Path]:
    """A plugin file, and the local files that its relative imports load, transitively, inside functions too.

    Raises:
        OSError: when the file cannot be read.
    """
    return _local_files(Path(os.path.abspath(path)), PACKAGE, None)[0]  # noqa: PTH100 - as above


# -- what is hashed ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Import:
    """One import statement: `from` so many dots and `module`, `names`; of `import module` no names."""

    level: int
    module: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    digest: str
    imports: tuple[_Import, ...]


def _source(path: Path) -> _Source:
    return _own_source(path) if path.is_relative_to(PACKAGE) else _parsed(path.read_bytes())


@cache
def _own_source(path: Path) -> _Source:
    """This package's own files are read once in a process: later changes are not what runs in it."""
    return _parsed(path.read_bytes())


@cache
def _parsed(content: bytes) -> _Source:
    """Each content is parsed once in a process; a file that cannot be parsed is hashed as it is."""
    try:
        with warnings.catch_warnings():  # an invalid escape is for the import to complain about
            warnings.simplefilter("ignore")
            tree, imports = ast.parse(content), list[_Import]()
        _strip(tree, imports)
        dump = ast.dump(tree, **_DUMP)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: undecodable, or null bytes
        return _Source(hashlib.sha256(content).hexdigest(), ())
    return _Source(hashlib.sha256(dump.encode("utf-8", "surrogatepass")).hexdigest(), tuple(imports))


def _strip(node: ast.AST, imports: list[_Import]) -> None:
    """Take out what never changes a result: docstrings, and what stands under `if TYPE_CHECKING`; gather imports.

    Both are statements, so expressions need not be visited.
    """
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        if ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
        if not node.body and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]
        if not getattr(node, "type_params", True):  # Python 3.11 does not know the field
            del node.type_params  # type: ignore[union-attr]
    elif isinstance(node, ast.If) and _is_type_checking(node.test):
        node.body = [ast.Pass()]
    elif isinstance(node, ast.Import):
        imports += (_Import(0, alias.name, ()) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        imports.append(_Import(node.level, node.module or "", tuple(alias.name for alias in node.names)))
    for field in ("body", "orelse", "handlers", "finalbody", "cases"):
        inner = getattr(node, field, ())
        for statement in inner if isinstance(inner, list) else ():  # a lambda's body is an expression
            _strip(statement, imports)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else None
    return name == "TYPE_CHECKING"


def _digest(parts: Iterable[tuple[str, str]]) -> str:
    whole = hashlib.sha256()
    for name, digest in sorted(parts):
        whole.update(f"{name}\0{digest}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


# -- modules of the package --------------------------------------------------------------------------------------------


def _closed(start: Iterable[str], package: Path) -> set[str]:
    """The modules and all that they import, transitively."""
    found: set[str] = set()
    waiting = [above for module in start for above in _with_packages(module)]
    while waiting:
        module = waiting.pop()
        if module in found or (file := _module_file(module, package)) is None:
            continue
        found.add(module)
        inside = module if file.name == "__init__.py" else module.rpartition(".")[0]  # what one dot means
        for one in _source(file).imports:
            waiting += _wanted(_absolute(one, inside))
    return found


def _absolute(one: _Import, inside: str) -> _Import:
    if not one.level:
        return one
    above = inside.split(".")[: max(0, inside.count(".") + 2 - one.level)]
    return _Import(0, ".".join([*above, *filter(None, [one.module])]), one.names)


def _wanted(one: _Import) -> Iterator[str]:
    """Modules of the package that an absolute import may load; names that are no modules among them."""
    if one.module.partition(".")[0] != TOP:
        return
    for name in (one.module, *(f"{one.module}.{name}" for name in one.names)):
        yield from (above for above in _with_packages(name) if not _is_outside(above))


def _with_packages(module: str) -> Iterator[str]:
    parts = module.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _is_outside(module: str) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in OUTSIDE)


def _module_file(module: str, package: Path) -> Path | None:
    return _own_module_file(module) if package == PACKAGE else _file_of(module, package)


@cache
def _own_module_file(module: str) -> Path | None:
    return _file_of(module, PACKAGE)


def _file_of(module: str, package: Path) -> Path | None:
    top, *rest = module.split(".")
    return _python_file(package.joinpath(*rest)) if top == TOP else None


def _python_file(place: Path) -> Path | None:
    """What is imported under a path without suffix: a package before a module, as Python does."""
    for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        if file.is_file():
            return file
    return None


def _package_parts(modules: Iterable[str], package: Path) -> Iterator[tuple[str, str]]:
    folders: set[Path] = set()
    for module in modules:
        file = _module_file(module, package)
        assert file is not None
        folders.add(file.parent)
        yield module, _source(file).digest
    for folder in folders:
        for page in _page_files(folder):
            content = page.read_bytes().replace(b"\r\n", b"\n")  # a checkout may write either
            yield page.relative_to(package).as_posix(), hashlib.sha256(content).hexdigest()


def _page_files(folder: Path) -> Iterator[Path]:
    """Page files of a module's folder, and of the folders below it that are no packages of their own."""
    with os.scandir(folder) as entries:  # which knows files from folders without asking for each
        for entry in entries:
            if entry.name.endswith(PAGE_SUFFIXES) and entry.is_file():
                yield folder / entry.name
            elif entry.is_dir() and not (folder / entry.name / "__init__.py").exists():
                yield from _page_files(folder / entry.name)


# -- files of a plugin -------------------------------------------------------------------------------------------------


def _local_files(start: Path, package: Path, top: tuple[str, Path] | None) -> tuple[set[Path], set[str]]:
    """The plugin with the local files that it imports, transitively; and the modules of the package that they name."""
    found, needed = {start}, set[str]()
    waiting = [start]

    def add(files: Iterable[Path]) -> None:
        new = set(files) - found
        found.update(new)
        waiting.extend(new)

    if top is not None and start.is_relative_to(top[1]):  # importing it runs the packages above it
        add(_on_the_way(Path(os.path.abspath(top[1])), start.relative_to(top[1]).parts[:-1]))  # noqa: PTH100
    while waiting:
        file = waiting.pop()
        for one in _source(file).imports:
            parts = tuple(filter(None, one.module.split(".")))
            if one.level:
                above = file.parents[min(one.level, len(file.parents)) - 1]
                add(_reached(above, parts, one.names))
            elif top is not None and parts[0] == top[0]:
                add(_reached(Path(os.path.abspath(top[1])), parts, one.names))  # noqa: PTH100
            else:
                needed.update(_wanted(one))
    return found, needed


def _reached(above: Path, parts: tuple[str, ...], names: tuple[str, ...]) -> Iterator[Path]:
    """The files that importing `names` from `parts` below a folder loads."""
    yield from _on_the_way(above, parts)
    for name in names:
        file = _python_file(above.joinpath(*parts, name)) if name != "*" else None
        if file is not None:
            yield file


def _on_the_way(above: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """The `__init__.py` of the folder and of each package below it, and the module at the end."""
    if (above / "__init__.py").is_file():
        yield above / "__init__.py"
    for count in range(1, len(parts) + 1):
        file = _python_file(above.joinpath(*parts[:count]))
        if file is not None:
            yield file
