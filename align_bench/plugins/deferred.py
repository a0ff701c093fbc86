"""Functions of plugins whose files are executed only once one of them is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align_bench.plugins.modules import PluginFile


class DeferredFunction:
    """A function of a plugin whose file is executed when it is called for the first time.

    Attributes:
        __name__, __doc__, __module__, __signature__, __annotations__: those of the function, as written; annotations
            of the batch, where it is a class that is known, and of hyper-parameters.
    """

    def __init__(
        self,
        file: PluginFile,
        name: str,
        find: Callable[[ModuleType], Any],
        *,
        doc: str | None = None,
        signature: inspect.Signature | None = None,
        names: Mapping[str, Any] | None = None,
    ) -> None:
        self.__name__ = self.__qualname__ = name
        self.__doc__ = doc
        self.__module__ = file.name
        given = signature.parameters.values() if signature else ()
        self.__annotations__ = {each.name: each.annotation for each in given if each.annotation is not each.empty}
        self.__globals__ = names or {}  # where typing.get_type_hints looks annotations up
        self._file = file
        self._find = find
        self._signature = signature
        self._function: Callable[..., Any] | None = None

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself.

        Raises:
            PluginError: when its file cannot be executed.
        """
        if self._function is None:
            found: Callable[..., Any] = self._find(self._file.module())
            self._function = found
        return self._function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<deferred function {self.__name__} of {self._file.place}>"

    @property
    def has_signature(self) -> bool:
        """Whether its signature could be read; if not, asking for it executes the file."""
        return self._signature is not None

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.function) if self._signature is None else self._signature

    @property
    def __code__(self) -> Any:
        return self.function.__code__
