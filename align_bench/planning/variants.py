"""The points of every method's grid, checked and named."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from align_bench.api import Selection, SumOfLosses
from align_bench.errors import SuiteError
from align_bench.records import OWN_SETTINGS, CellId, Parameters, Scalar
from align_bench.suite.names import BASE_CELL

if TYPE_CHECKING:
    from align_bench.api import Algorithm
    from align_bench.plugins.registry import Registry
    from align_bench.suite.models import Method, Suite, Tune


@dataclass(frozen=True, slots=True)
class Variant:
    """One point of a method's grid, all parameters resolved.

    Attributes:
        method: its name.
        parameters: hyper-parameters of the loss.
        learning_rate: peak learning rate; None for a method that trains nothing.
        settings: training settings of its own, in place of the suite's (`OWN_SETTINGS`).
        start_from: what it starts from, as the suite names it; None for the untrained base.
        reference_policy: what a method with a reference is held to, where it has a start.
    """

    method: str
    parameters: Parameters
    learning_rate: float | None
    settings: Mapping[str, int]
    start_from: str | None = None
    reference_policy: Literal["start", "base"] = "start"

    @property
    def starts(self) -> dict[str, Scalar]:
        """What it starts from and is held to; nothing where that is the base."""
        start: dict[str, Scalar] = {} if self.start_from is None else {"start_from": self.start_from}
        return start if self.reference_policy == "start" else {**start, "reference_policy": self.reference_policy}

    @property
    def everything(self) -> dict[str, Scalar]:
        """All of them, as reports show them."""
        rate = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        return {**self.starts, **rate, **self.settings, **self.parameters}


def named_variants(suite: Suite, registry: Registry) -> dict[CellId, Variant]:
    """Every point of every method's grid, under the id that its cells have without their seed.

    Raises:
        SuiteError: for a parameter that a method does not have, a value out of its bounds, or two equal points.
        PluginError: for an unknown method, or one whose file is broken.
    """
    variants = [variant for method in suite.methods for variant in _variants(registry[method.name].algorithm, method)]
    searched = {one.method: _searched(suite.tune, registry[one.method].algorithm) for one in variants}
    names = _names(variants, searched)
    texts = [str(name).encode("utf-8", "backslashreplace").decode() for name in names]  # as rows are joined by
    if duplicates := {text for text, count in Counter(texts).items() if count > 1}:
        equal = "equal parameters, those that tune searches aside" if suite.tune else "equal parameters"
        raise SuiteError(f"methods: {', '.join(sorted(duplicates))} is listed twice with {equal}", fix="delete one")
    return dict(zip(names, variants, strict=True))


def _searched(tune: Tune | None, algorithm: Algorithm) -> Collection[str]:
    """The parameters of a method that tuning changes."""
    if tune is None or (tune.methods is not None and algorithm.name not in tune.methods):
        return ()
    listed = tune.methods and tune.methods[algorithm.name]
    return listed or algorithm.searched


def _variants(algorithm: Algorithm, method: Method) -> list[Variant]:
    points = [dict(zip(method.grid, values, strict=True)) for values in itertools.product(*method.grid.values())]
    return [variant(algorithm, point, where=f"methods: {method.name}") for point in points]


def variant(algorithm: Algorithm, given: Mapping[str, Any], *, where: str) -> Variant:
    """A method's parameters, the given ones checked over the defaults.

    Raises:
        SuiteError: with `where`, what was found and what was expected.
    """
    rest = dict(given)
    start, reference = _start(algorithm, rest, where)
    rate = None
    if algorithm.learning_rate is not None:
        given_rate = rest.pop("learning_rate", algorithm.learning_rate)
        number = isinstance(given_rate, int | float) and not isinstance(given_rate, bool)
        if not number or not 0 < given_rate < math.inf:
            raise SuiteError(f"{where}: learning_rate: got {given_rate!r}, expected a number > 0")
        rate = float(given_rate)
    settings = {} if rate is None else {key: rest.pop(key) for key in OWN_SETTINGS if key in rest}
    for key, value in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SuiteError(f"{where}: {key}: got {value!r}, expected a whole number > 0")
    try:
        return Variant(algorithm.name, algorithm.resolve(rest), rate, settings, start, reference)
    except ValueError as error:
        shown = "TERM" if isinstance(algorithm, SumOfLosses) else algorithm.name
        raise SuiteError(f"{where}: {error}", fix=f"align-bench show {shown} lists its parameters") from None


def _start(algorithm: Algorithm, rest: dict[str, object], where: str) -> tuple[str | None, Literal["start", "base"]]:
    """What is started from and what the reference is, taken off the other parameters."""
    given = "reference_policy" in rest
    start, reference = rest.pop("start_from", BASE_CELL), rest.pop("reference_policy", "start")
    if not isinstance(start, str) or not start:
        raise SuiteError(
            f"{where}: start_from: got {start!r}, expected {BASE_CELL}, the name of a cell of the suite, or the folder "
            "of an adapter or a model",
            fix="name a method of the suite, such as start_from: sft",
        )
    if given and (algorithm.kind == "reward" or isinstance(algorithm, Selection)):
        does = "trains a reward model" if algorithm.kind == "reward" else "picks among answers and trains nothing"
        raise SuiteError(
            f"{where}: reference_policy: got {reference!r}, but {algorithm.name} {does}; expected it of methods that "
            "train a policy",
            fix="delete reference_policy",
        )
    if reference not in ("start", "base"):
        raise SuiteError(
            f"{where}: reference_policy: got {reference!r}, expected start or base", fix="write one of them"
        )
    if start != BASE_CELL:
        return start, reference
    if given and reference == "start":
        raise SuiteError(
            f"{where}: reference_policy: got start, but the method starts from the base, which is its reference",
            fix="give start_from, or delete reference_policy",
        )
    return None, "start"


def _names(variants: list[Variant], searched: Mapping[str, Collection[str]]) -> list[CellId]:
    """An id for each variant, with just those parameters that tell a method's variants apart.

    Args:
        variants: all variants of a suite.
        searched: method → parameters that tuning will change, so that they tell nothing apart.
    """

    shown = [
        {key: value for key, value in one.everything.items() if key not in searched[one.method]} for one in variants
    ]
    siblings: dict[str, list[dict[str, Scalar]]] = {}
    for one, own in zip(variants, shown, strict=True):
        siblings.setdefault(one.method, []).append(own)
    differing = {
        method: {
            key for key in dict.fromkeys(itertools.chain(*every)) if len({repr(own.get(key)) for own in every}) > 1
        }
        for method, every in siblings.items()
    }
    return [
        CellId(one.method, tuple((key, value) for key, value in own.items() if key in differing[one.method]))
        for one, own in zip(variants, shown, strict=True)
    ]
