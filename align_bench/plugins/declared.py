"""What a plugin declares, read from its syntax tree: listing methods imports neither torch nor what a plugin imports.

The tree is read as far as it says plainly what executing it would: imports, functions, classes, and constants of plain
values. A declaration's arguments, the type of the batch, and the hyper-parameters' types, bounds and defaults are
evaluated with the names that come from `typing`, `annotated_types`, `math` and `align_bench.api`, and the decorators of
`api` are called with them, on a function that executes the file once it is called. Of a file that says anything else
nothing is read: it is executed, as any module.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import inspect
import math
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from types import ModuleType
from typing import TYPE_CHECKING, Any

import annotated_types

import align_bench
from align_bench import api
from align_bench.api import Algorithm
from align_bench.plugins.deferred import DeferredFunction

if TYPE_CHECKING:
    from align_bench.plugins.modules import PluginFile

# The modules whose names are evaluated; importing them costs nothing and does nothing.
_READABLE: Mapping[str, ModuleType] = {
    "typing": typing,
    "math": math,
    "annotated_types": annotated_types,
    "align_bench.api": api,
}
_DECLARING = (api.algorithm, api.online, api.recipe, api.selection)
# What of `api` may be called in an expression.
_VALUES = (api.Range, api.RolloutSettings, api.BiasExpert, api.Adversary, api.LengthHead)
_FUNCTIONS = {"abs", "bool", "dict", "float", "int", "len", "list", "max", "min", "pow", "round", "str", "sum", "tuple"}
_EXPRESSIONS = (
    *(ast.Constant, ast.Name, ast.Attribute, ast.Call, ast.keyword, ast.Starred, ast.expr_context),
    *(ast.Tuple, ast.List, ast.Dict, ast.Set, ast.Subscript, ast.Slice, ast.JoinedStr, ast.FormattedValue),
    *(ast.UnaryOp, ast.unaryop, ast.BinOp, ast.operator, ast.BoolOp, ast.boolop, ast.Compare, ast.cmpop, ast.IfExp),
)
_ALWAYS_BOUND = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__", "__package__", "__spec__", "__loader__"}
_TRUSTED = sys.stdlib_module_names | {"torch"}  # whose decorators make no method of a function


def declared(file: PluginFile) -> tuple[Algorithm, ...] | None:
    """The methods that executing the file would declare; None when only executing it can tell.

    Raises:
        SyntaxError, ValueError: when it is not Python.
        ModuleNotFoundError: when a package that it imports is not installed.
    """
    _ = file.code  # some of what is wrong with a syntax is found by compiling it
    reader = _Reader(file)
    try:
        for statement in file.tree.body:
            reader.read(statement)
    except _UnreadableError:
        return None
    return tuple(reader.methods.values())


def difference(read: Algorithm, executed: object) -> str | None:
    """What tells a method as it was read from the one that the file makes, in words; None when nothing does."""
    if type(executed) is not type(read):
        return f"{type(read).__name__} as written, {type(executed).__name__} as executed"
    for field in fields(read):
        ours, theirs = getattr(read, field.name), getattr(executed, field.name)
        if not (callable(ours) and callable(theirs)) and ours != theirs:
            return f"{field.name} is {ours!r} as written, {theirs!r} as executed"
    return None


class _UnreadableError(Exception):
    """The file says something that only executing it can tell."""


class _Reader:
    """Reads a file statement by statement, and knows at each what the names before it stand for.

    Attributes:
        names: name → value, of those that can be evaluated; the globals of evaluated expressions.
        bound: name → the top-level package that it was imported from, or "" for what the file itself defines.
        methods: name → method.
    """

    def __init__(self, file: PluginFile) -> None:
        self.file = file
        self.names: dict[str, Any] = {"__builtins__": builtins, "__name__": file.name}
        self.bound: dict[str, str] = {}
        self.methods: dict[str, Algorithm] = {}
        self.lazy_annotations = False

    def read(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._function(node)
            case ast.ClassDef():
                self._known(*node.bases, *(keyword.value for keyword in node.keywords))
                self._harmless(node.decorator_list)
                self._bind(node.name)
            case ast.Assign(targets=targets, value=value):
                self._assign(targets, value)
            case ast.AnnAssign(target=target, annotation=annotation, value=value):
                if not self.lazy_annotations:
                    self._known(annotation)
                if value is not None:
                    self._assign([target], value)
            case ast.If(test=test, orelse=otherwise) if self._is_type_checking(test):
                for statement in otherwise:
                    self.read(statement)
            case _:
                raise _UnreadableError

    # -- imports

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        place = f"{self.file.shown}, line {node.lineno}"
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = _installed(alias.name, place)
                if alias.asname is None and alias.name in ("align_bench", "align_bench.api"):
                    self._bind("align_bench", align_bench, package=top)
                elif alias.asname is None:
                    self._bind(top, *_value(_READABLE.get(alias.name)), package=top)
                else:
                    self._bind(alias.asname, *_value(_READABLE.get(alias.name)), package=top)
        elif node.level:
            self._import_beside(node)
        elif node.module == "__future__":
            self.lazy_annotations |= any(alias.name == "annotations" for alias in node.names)
        else:
            assert node.module is not None, "without dots there is one"
            top = _installed(node.module, place)
            for alias in node.names:
                module = _READABLE.get(node.module)
                if alias.name == "*" or (module is not None and not hasattr(module, alias.name)):
                    raise _UnreadableError
                known = _READABLE.get(f"{node.module}.{alias.name}") if module is None else getattr(module, alias.name)
                self._bind(alias.asname or alias.name, *_value(known), package=top)

    def _import_beside(self, node: ast.ImportFrom) -> None:
        """`from ._shared import x`, `from . import _shared`; what is imported is not looked into."""
        folder, parts = self.file.place.parent, (node.module or "").split(".")
        if self.file.package is None:
            wanted = [parts[0]] if node.module else [alias.name for alias in node.names]
            there = all((folder / name).is_dir() or (folder / f"{name}.py").is_file() for name in wanted)
            if node.level > 1 or not there:
                raise _UnreadableError
        for alias in node.names:
            if alias.name == "*":
                raise _UnreadableError
            self._bind(alias.asname or alias.name, package="." * node.level)

    def _bind(self, name: str, *value: Any, package: str = "") -> None:
        """A name stands for the value, if one is given, from here on; what the file defines it defines once."""
        if name in self.bound and not (self.bound[name] and package):
            raise _UnreadableError
        self.bound[name] = package
        self.names.pop(name, None)
        if value:
            self.names[name] = value[0]

    # -- functions

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = node.args
        self._known(*arguments.defaults, *filter(None, arguments.kw_defaults))
        if not self.lazy_annotations:
            self._known(*_annotations(node))
        decorator = node.decorator_list[0] if len(node.decorator_list) == 1 else None
        if isinstance(decorator, ast.Call) and (declare := self._lookup(decorator.func)) in _DECLARING:
            self._method(node, declare, decorator)
        elif node.decorator_list:
            self._harmless(node.decorator_list)
            self._bind(node.name)
        else:
            self._bind(node.name, self._deferred(node, lambda module: getattr(module, node.name)))

    def _method(self, node: ast.FunctionDef | ast.AsyncFunctionDef, declare: Any, decorator: ast.Call) -> None:
        if decorator.args or isinstance(node, ast.AsyncFunctionDef):
            raise _UnreadableError
        given: dict[str, Any] = {}
        for keyword in decorator.keywords:
            if keyword.arg is None:
                given |= self._evaluated(keyword.value)
            else:
                find = _attribute(node.name, keyword.arg)
                given[keyword.arg] = self._argument(keyword.value, f"{node.name}.{keyword.arg}", find)
        function = self._deferred(node, _attribute(node.name, "function"))
        inspected = (function, given.get("advantage"))
        if any(isinstance(each, DeferredFunction) and not each.has_signature for each in inspected):
            raise _UnreadableError
        try:
            method = declare(**given)(function)
        except Exception as error:  # executing the file raises the same, and says it as Python does
            raise _UnreadableError from error
        self._bind(node.name)
        self.methods[node.name] = method

    def _deferred(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, find: Callable[[ModuleType], Any]
    ) -> DeferredFunction:
        doc = ast.get_docstring(node, clean=False)
        try:
            self._known(*_annotations(node))
            signature = self._signature(node.args)
        except _UnreadableError:
            signature = None
        return DeferredFunction(self.file, node.name, find, doc=doc, signature=signature, names=self.names)

    def _signature(self, given: ast.arguments) -> inspect.Signature:
        """The signature with all defaults, and with the annotations of what may be a hyper-parameter."""
        empty = inspect.Parameter.empty
        plain: list[tuple[ast.arg, Any]] = [(each, inspect.Parameter.POSITIONAL_ONLY) for each in given.posonlyargs]
        plain += [(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in given.args]
        defaults = [empty] * (len(plain) - len(given.defaults)) + [self._evaluated(each) for each in given.defaults]
        parameters = [
            inspect.Parameter(each.arg, kind, default=default)
            for (each, kind), default in zip(plain, defaults, strict=True)
        ]
        if plain and (batch := self._class(plain[0][0].annotation)) is not None:
            parameters[0] = parameters[0].replace(annotation=batch)
        if given.vararg:
            parameters.append(inspect.Parameter(given.vararg.arg, inspect.Parameter.VAR_POSITIONAL))
        for each, value in zip(given.kwonlyargs, given.kw_defaults, strict=True):
            parameters.append(
                inspect.Parameter(
                    each.arg,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=empty if value is None else self._evaluated(value),
                    annotation=empty if each.annotation is None else self._evaluated(each.annotation),
                )
            )
        if given.kwarg:
            parameters.append(inspect.Parameter(given.kwarg.arg, inspect.Parameter.VAR_KEYWORD))
        return inspect.Signature(parameters)

    def _class(self, annotation: ast.expr | None) -> type | None:
        """The class that an annotation names, quoted or not; None where it names another one, or something else."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            try:
                annotation = ast.parse(annotation.value, mode="eval").body
            except SyntaxError:
                return None
        found = None if annotation is None else self._lookup(annotation)
        return found if isinstance(found, type) else None

    def _harmless(self, decorators: Iterable[ast.expr]) -> None:
        """Decorators that make no method: those of the standard library and of torch."""
        for name in _free_names(*decorators):
            if name in self.bound and (self.bound[name] not in _TRUSTED or self.names.get(name) in _DECLARING):
                raise _UnreadableError
        self._known(*decorators)

    # -- expressions

    def _assign(self, targets: list[ast.expr], value: ast.expr) -> None:
        for target in targets:
            if not isinstance(target, ast.Name):
                raise _UnreadableError
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if isinstance(value, ast.Name) and value.id in self.methods:
            for name in names:
                self._bind(name)  # another name of a method is no other method
            return
        found = self._argument(value, names[0], lambda module: getattr(module, names[0]))
        for name in names:
            self._bind(name, found)

    def _argument(self, node: ast.expr, name: str, find: Callable[[ModuleType], Any]) -> Any:
        """The value of an expression that may be a function: one of the file, or a lambda."""
        if isinstance(node, ast.Name) and isinstance(self.names.get(node.id), DeferredFunction):
            return self.names[node.id]
        if not isinstance(node, ast.Lambda):
            return self._evaluated(node)
        self._checked(*node.args.defaults, *filter(None, node.args.kw_defaults))
        if all(
            each in self.names or (each not in self.bound and hasattr(builtins, each)) for each in _free_names(node)
        ):
            return self._run(node)
        return DeferredFunction(self.file, name, find)

    def _evaluated(self, node: ast.expr) -> Any:
        self._checked(node)
        return self._run(node)

    def _run(self, node: ast.expr) -> Any:
        try:
            code = compile(ast.Expression(node), self.file.shown, "eval", dont_inherit=True)
            return eval(code, self.names)  # nosec B307 - `_checked` has refused all but plain values
        except Exception as error:
            raise _UnreadableError from error

    def _checked(self, *nodes: ast.expr) -> None:
        """Refuse what is not plainly a value: its names, and what it calls, are known and do nothing else."""
        for node in nodes:
            for part in ast.walk(node):
                if not isinstance(part, _EXPRESSIONS):
                    raise _UnreadableError
                if isinstance(part, ast.Name | ast.Attribute):
                    self._lookup(part, known=True)
                if isinstance(part, ast.Call):
                    self._callable(part.func)

    def _callable(self, node: ast.expr) -> None:
        called = self._lookup(node, known=True)
        origin = getattr(called, "__module__", None) or ""
        ours = origin == api.__name__ or origin.startswith(f"{api.__name__}.")
        if origin == self.file.name or (ours and called not in _VALUES):
            raise _UnreadableError

    def _lookup(self, node: ast.expr, *, known: bool = False) -> Any:
        """What a name, or a name of a readable module, stands for; None, or an error with `known`, when it is open."""
        match node:
            case ast.Name(id=name) if name in self.names and not (
                known and isinstance(self.names[name], DeferredFunction)
            ):
                return self.names[name]
            case ast.Name(id=name) if name in _FUNCTIONS and name not in self.bound:
                return getattr(builtins, name)
            case ast.Attribute(value=value, attr=attribute):
                above = self._lookup(value, known=known)
                if above in _READABLE.values() and hasattr(above, attribute):
                    return getattr(above, attribute)
                if above is align_bench and attribute == "api":
                    return api
        if known:
            raise _UnreadableError
        return None

    def _known(self, *nodes: ast.expr) -> None:
        """Refuse a name that is bound nowhere before: executing the file would fail at it."""
        if not _free_names(*nodes) <= self.bound.keys() | _ALWAYS_BOUND:
            raise _UnreadableError

    def _is_type_checking(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name | ast.Attribute) and self._lookup(node) is typing.TYPE_CHECKING


def _value(value: Any) -> tuple[Any, ...]:
    return () if value is None else (value,)


def _attribute(method: str, name: str) -> Callable[[ModuleType], Any]:
    return lambda module: getattr(getattr(module, method), name)


def _annotations(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr]:
    given = node.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [found for found in (*(each.annotation for each in every if each), node.returns) if found is not None]


def _free_names(*nodes: ast.AST) -> set[str]:
    """The names that expressions read and do not bind themselves."""
    found: set[str] = set()
    for node in nodes:
        match node:
            case ast.Name(id=name):
                found.add(name)
            case ast.Lambda(args=given, body=body):
                found |= _free_names(*given.defaults, *filter(None, given.kw_defaults))
                found |= _free_names(body) - {part.arg for part in ast.walk(given) if isinstance(part, ast.arg)}
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                first = node.generators[0].iter  # it is evaluated outside
                targets = set().union(*(_free_names(each.target) for each in node.generators))
                inside = [*_children(node), *(part for each in node.generators for part in _children(each))]
                found |= _free_names(first)
                found |= _free_names(*(part for part in inside if part not in (first, *node.generators))) - targets
            case _:
                found |= _free_names(*_children(node))
    return found


def _children(node: ast.AST) -> list[ast.AST]:
    return [*ast.iter_child_nodes(node)]


def _installed(module: str, place: str) -> str:
    """The top-level package of a module that is imported at a place.

    Raises:
        ModuleNotFoundError: when it is not installed.
    """
    top = module.partition(".")[0]
    try:
        found = top in sys.modules or importlib.util.find_spec(top) is not None
    except ValueError:  # a module without a specification, such as __main__
        found = True
    if not found:
        raise ModuleNotFoundError(f"No module named {top!r} ({place})", name=top)
    return top
