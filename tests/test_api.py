"""The decorator: a signature becomes a schema, and what breaks the contract is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import pytest
import torch
from annotated_types import Ge, Gt, Interval, Le, Lt, MultipleOf

from align_bench import api
from align_bench.api import (
    Advantages,
    BatchPairLogps,
    BatchUnpairedLogps,
    BiasExpert,
    BiasExpertScores,
    ChosenLogps,
    ConfidencePairLogps,
    CriticExperience,
    CriticRollouts,
    Experience,
    Job,
    LengthHead,
    Loss,
    MarginPairLogps,
    MarginPairScores,
    MatchedUnpairedLogps,
    MismatchedPairLogps,
    OfflineAlgorithm,
    PairJob,
    PairLogps,
    PairScores,
    Parameter,
    PrefixPairLogps,
    PromptJob,
    Range,
    ReferencedMarginPairLogps,
    ReferencedPairLogps,
    ReferencedUnpairedLogps,
    Rollouts,
    RolloutSettings,
    UnpairedLogps,
    algorithm,
    online,
    recipe,
    selection,
)
from align_bench.errors import PluginError

ROWS = 3


def pairs(rows: int = ROWS) -> ReferencedPairLogps:
    """A batch of pairs whose numbers differ by row and side."""
    ones = torch.ones(rows)
    tokens = torch.arange(1, rows + 1)
    return ReferencedPairLogps(-1 * ones, -2 * ones, tokens, 2 * tokens, -3 * ones, -4 * ones)


def unpaired(rows: int = ROWS) -> ReferencedUnpairedLogps:
    """A batch of single answers, with mismatched log-probabilities of a larger effective batch."""
    ones = torch.ones(rows)
    wide = torch.ones(rows + 2)
    return ReferencedUnpairedLogps(-ones, torch.arange(1, rows + 1), ones > 0, -ones, -wide, -wide)


def declare(function: Callable[..., Any], **changes: Any) -> OfflineAlgorithm:
    """`function` under a complete declaration, with some of it replaced."""
    given: dict[str, Any] = {"paper": "arXiv:0000.00000", "learning_rate": 1e-5, "reward": "s"} | changes
    return algorithm(**given)(function)


def reading(batch: object, doc: str = "Reads a batch.") -> Callable[..., Loss]:
    """A loss whose first argument is annotated as that, or as nothing for None."""

    def reader(batch: Any) -> Loss:
        raise NotImplementedError

    reader.__doc__ = doc
    reader.__annotations__ = {"return": Loss} if batch is None else {"batch": batch, "return": Loss}
    return reader


def full(
    logps: PairLogps,
    *,
    beta: Annotated[float, Gt(0)] = 0.1,
    smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.0,
    steps: Annotated[int, Ge(1), Le(8)] = 2,
    plain: float = 1.0,
    flag: bool = False,
    mode: str = "mean",
) -> Loss:
    """First line of it.

    Args:
        logps: the batch.
        beta: strength of the pull.
        steps: how many, said in so
            many lines that nothing of it may be lost.
            steps: not this.
        mode: which: mean or sum.
    """
    return Loss(-logps.chosen, chosen_rewards=beta * logps.chosen, rejected_rewards=beta * logps.rejected)


def interval(logps: PairLogps, *, beta: Annotated[float, Interval(gt=0, lt=1)] = 0.5) -> Loss:
    """Has two bounds in one."""
    raise NotImplementedError


def test_public_names_are_these() -> None:
    """Plugins import them: one that goes breaks them, and one that comes is to be kept."""
    assert api.__all__ == [
        "Advantages",
        "Adversary",
        "AdversaryScores",
        "Algorithm",
        "Answer",
        "AnswerJob",
        "Auxiliary",
        "Batch",
        "BatchPairLogps",
        "BatchUnpairedLogps",
        "BiasExpert",
        "BiasExpertScores",
        "CandidateSettings",
        "ChosenLogps",
        "ConfidencePairLogps",
        "CriticAdvantages",
        "CriticExperience",
        "CriticRollouts",
        "Experience",
        "Job",
        "LengthHead",
        "LengthHeadScores",
        "Loss",
        "MarginPairLogps",
        "MarginPairScores",
        "MatchedUnpairedLogps",
        "MismatchedPairLogps",
        "OfflineAlgorithm",
        "OnlineAlgorithm",
        "Pair",
        "PairJob",
        "PairLogps",
        "PairScores",
        "Parameter",
        "PluginError",
        "PrefixPairLogps",
        "Prompt",
        "PromptJob",
        "Range",
        "Recipe",
        "ReferencedChosenLogps",
        "ReferencedMarginPairLogps",
        "ReferencedPairLogps",
        "ReferencedUnpairedLogps",
        "RolloutSettings",
        "Rollouts",
        "Running",
        "Selection",
        "SumOfLosses",
        "UnpairedLogps",
        "algorithm",
        "online",
        "recipe",
        "selection",
        "summed",
    ]
    assert api.__all__ == sorted(api.__all__)
    assert all(hasattr(api, name) for name in api.__all__)


def test_signature_is_the_schema() -> None:
    parameters = declare(full).parameters
    assert [(item.name, item.type, item.default) for item in parameters.values()] == [
        ("beta", float, 0.1),
        ("smoothing", float, 0.0),
        ("steps", int, 2),
        ("plain", float, 1.0),
        ("flag", bool, False),
        ("mode", str, "mean"),
    ]
    assert list(parameters) == [item.name for item in parameters.values()]


def test_bounds_are_told_in_words() -> None:
    bounds = {name: item.bounds for name, item in declare(full).parameters.items()}
    assert bounds == {
        "beta": "> 0",
        "smoothing": "≥ 0, < 0.5",
        "steps": "≥ 1, ≤ 8",
        "plain": "",
        "flag": "",
        "mode": "",
    }


def test_two_bounds_in_one_both_hold() -> None:
    beta = declare(interval).parameters["beta"]
    assert beta.bounds == "> 0, < 1"
    for outside in (0.0, 1.0):
        with pytest.raises(ValueError, match="expected float > 0, < 1"):
            beta.parse(outside)


def test_descriptions_come_from_the_docstring() -> None:
    described = {name: item.description for name, item in declare(full).parameters.items()}
    assert described["beta"] == "strength of the pull."
    assert described["mode"] == "which: mean or sum."
    assert described["plain"] == ""
    assert described["steps"] == "how many, said in so many lines that nothing of it may be lost. steps: not this."


def test_declaration_is_kept() -> None:
    declared = declare(full, paper="arXiv:2305.18290", learning_rate=3e-5, reward="β·ρ")
    assert (declared.name, declared.data, declared.reference) == ("full", "pairs", False)
    assert (declared.paper, declared.learning_rate, declared.reward) == ("arXiv:2305.18290", 3e-5, "β·ρ")
    assert declared.summary == "First line of it."
    assert declared.doc.splitlines()[2] == "Args:", "the docstring is dedented"
    assert declared.function is full


@pytest.mark.parametrize(
    ("batch", "data", "reference"),
    [
        (PairLogps, "pairs", False),
        (ReferencedPairLogps, "pairs", True),
        (ChosenLogps, "chosen", False),
        (UnpairedLogps, "unpaired", False),
        (ReferencedUnpairedLogps, "unpaired", True),
        (PairScores, "scores", False),
        (MarginPairLogps, "pairs", False),
        (ReferencedMarginPairLogps, "pairs", True),
        (MarginPairScores, "scores", False),
        (MatchedUnpairedLogps, "unpaired", True),
        (BatchUnpairedLogps, "unpaired", True),
        (BatchPairLogps, "pairs", True),
        (PrefixPairLogps, "pairs", True),
        (ConfidencePairLogps, "pairs", True),
        (MismatchedPairLogps, "pairs", True),
    ],
)
def test_type_of_the_batch_says_what_is_read(batch: type, data: str, reference: bool) -> None:
    for said in ({}, {"data": data}, {"reference": reference}, {"data": data, "reference": reference}):
        declared = declare(reading(batch), **said)
        assert (declared.data, declared.reference) == (data, reference)
        assert declared.reading.margin == ("Margin" in batch.__name__)
        assert declared.reading.batch == batch.__name__.startswith("Batch")
        assert declared.reading.mismatched == (batch in (ReferencedUnpairedLogps, MismatchedPairLogps))


def test_a_margin_and_an_auxiliary_are_not_read_at_once() -> None:
    with pytest.raises(PluginError, match="no record holds both a margin and an auxiliary's scores"):
        declare(reading(MarginPairScores), auxiliary=BiasExpert)


@pytest.mark.parametrize(
    ("batch", "said", "message"),
    [
        (PairLogps, {"data": "chosen"}, r"data='chosen', but its batch is PairLogps, which is data='pairs'"),
        (PairLogps, {"reference": True}, r"reference=True, but its batch is PairLogps, which is reference=False"),
        (ReferencedPairLogps, {"reference": False}, r"reference=False, but its batch is ReferencedPairLogps"),
        (None, {}, "has no type that tells what it reads"),
        (torch.Tensor, {}, "annotated as Tensor, which is no record of given answers"),
        (Rollouts, {"data": "pairs"}, "annotated as Rollouts, which is no record of given answers"),
        (ReferencedPairLogps | None, {"data": "pairs"}, "which is no record of given answers"),
        (None, {"data": "scores", "reference": True}, "reference=True, but scores have none"),
    ],
)
def test_declaration_that_contradicts_the_batch_is_refused(
    batch: object, said: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(PluginError, match=f"reader: .*{message}") as caught:
        declare(reading(batch), **said)
    assert caught.value.fix


@pytest.mark.parametrize("batch", [None, Any, torch.Tensor])
def test_declaration_tells_where_the_batch_does_not(batch: object) -> None:
    assert declare(reading(batch), data="pairs").reference is False
    assert declare(reading(batch), data="unpaired", reference=True).reference is True


def test_batch_with_a_second_scorer_asks_for_it() -> None:
    declared = declare(reading(BiasExpertScores), auxiliary=lambda: BiasExpert(width=3))
    assert declared.beside({}) == BiasExpert(width=3)
    with pytest.raises(PluginError, match="reads the scores of a BiasExpert, but declares no auxiliary"):
        declare(reading(BiasExpertScores))
    with pytest.raises(
        PluginError, match=r"its auxiliary is LengthHead\(\), expected BiasExpert, which its batch reads"
    ):
        declare(reading(BiasExpertScores), auxiliary=LengthHead).beside({})
    with pytest.raises(PluginError, match="its auxiliary is None, expected a BiasExpert, an Adversary or a LengthHead"):
        declare(reading(None), data="scores", auxiliary=lambda: None).beside({})


def test_functions_of_hyper_parameters_get_those_that_they_name() -> None:
    named = declare(reading(ReferencedPairLogps), at_reference=lambda beta: 2 * beta)
    assert named.closed_form({"beta": 3.0, "tau": 1.0}) == 6.0
    every = declare(reading(ReferencedPairLogps), uses_rejected=lambda **given: len(given) > 1)
    assert every.reads_rejected({"beta": 3.0, "tau": 1.0})
    assert not every.reads_rejected({"beta": 3.0})


def test_what_the_loss_is_held_to_is_declared_or_left_open() -> None:
    open_ended = declare(full)
    assert (open_ended.at_reference, open_ended.normalised, open_ended.uses_rejected) == (None, None, True)
    held = declare(reading(ReferencedPairLogps), at_reference=0.5, normalised=False, uses_rejected=False)
    assert (held.at_reference, held.normalised, held.uses_rejected) == (0.5, False, False)
    assert declare(reading(PairScores), at_reference=0.5).at_reference == 0.5


def test_closed_form_at_a_reference_that_is_not_read_is_refused() -> None:
    with pytest.raises(PluginError, match="full: at_reference is declared, but the loss reads no reference"):
        declare(full, at_reference=0.5)


@pytest.mark.parametrize(("data", "kind"), [("pairs", "policy"), ("unpaired", "policy"), ("scores", "reward")])
def test_data_kind_decides_what_is_trained(data: str, kind: str) -> None:
    assert declare(reading(None), data=data).kind == kind


def undocumented(logps: PairLogps, *, beta: float = 0.1) -> Loss:
    raise NotImplementedError


def positional(logps: PairLogps, beta: float = 0.1) -> Loss:
    """Takes beta by position."""
    raise NotImplementedError


def no_default(logps: PairLogps, *, beta: float) -> Loss:
    """Has no default."""
    raise NotImplementedError


def unannotated(logps: PairLogps, *, beta=0.1) -> Loss:  # type: ignore[no-untyped-def]
    """Has no type."""
    raise NotImplementedError


def strange_type(logps: PairLogps, *, beta: list[float] = []) -> Loss:  # noqa: B006
    """Has a list."""
    raise NotImplementedError


def optional_type(logps: PairLogps, *, beta: float | None = None) -> Loss:
    """May be None."""
    raise NotImplementedError


def mixed_choices(logps: PairLogps, *, kind: Literal["a", 1] = "a") -> Loss:
    """Has choices that are not all texts."""
    raise NotImplementedError


def no_such_choice(logps: PairLogps, *, kind: Literal["a", "b"] = "c") -> Loss:  # type: ignore[assignment]
    """Has a default that is not among its choices."""
    raise NotImplementedError


def wrong_default(logps: PairLogps, *, beta: float = "high") -> Loss:  # type: ignore[assignment]
    """Says float, gives text."""
    raise NotImplementedError


def default_out_of_bounds(logps: PairLogps, *, beta: Annotated[float, Gt(0)] = 0.0) -> Loss:
    """Breaks its own bound."""
    raise NotImplementedError


def any_keyword(logps: PairLogps, **others: float) -> Loss:
    """Takes anything."""
    raise NotImplementedError


def odd_bound(logps: PairLogps, *, steps: Annotated[int, MultipleOf(2)] = 2) -> Loss:
    """Has a bound that is not one of the four."""
    raise NotImplementedError


def no_batch(*, beta: float = 0.1) -> Loss:
    """Reads nothing."""
    raise NotImplementedError


def taken_name(logps: PairLogps, *, learning_rate: float = 0.1) -> Loss:
    """Calls its own parameter as every method's learning rate is called."""
    raise NotImplementedError


def unknown_type(logps: Unknown) -> Loss:  # type: ignore[name-defined]  # noqa: F821
    """Is annotated with what only a type checker imports."""
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (undocumented, "undocumented has no docstring"),
        (positional, "parameter 'beta' must be keyword-only with a default"),
        (no_default, "parameter 'beta' must be keyword-only with a default"),
        (any_keyword, "parameter 'others' must be keyword-only with a default"),
        (unannotated, "parameter 'beta' has type None, expected float, int, bool or str"),
        (strange_type, r"parameter 'beta' has type list\[float\], expected float, int, bool or str"),
        (optional_type, r"parameter 'beta' has type float \| None, expected float, int, bool or str"),
        (mixed_choices, "parameter 'kind' has type .*expected float, int, bool or str, or a Literal of texts"),
        (no_such_choice, "default breaks its own schema: kind: got 'c', expected one of a, b"),
        (wrong_default, "default breaks its own schema: beta: got 'high', expected float"),
        (default_out_of_bounds, "default breaks its own schema: beta: got 0.0, expected float > 0"),
        (odd_bound, r"MultipleOf\(multiple_of=2\) is not one of Gt, Ge, Lt, Le"),
        (no_batch, "no_batch"),
        (taken_name, "'learning_rate'"),
        (unknown_type, "its annotations cannot be read: name 'Unknown' is not defined"),
    ],
)
def test_bad_signature_is_refused(function: Callable[..., Loss], said: str) -> None:
    with pytest.raises(PluginError, match=said) as caught:
        declare(function)
    assert function.__name__ in str(caught.value)


def choosing(logps: PairLogps, *, kind: Literal["sum", "mean"] = "sum") -> Loss:
    """Takes one of two texts.

    Args:
        kind: which.
    """
    raise NotImplementedError


def test_choices_are_held_to() -> None:
    declared = declare(choosing)
    assert declared.parameters["kind"].bounds == "one of sum, mean"
    assert declared.resolve({}) == {"kind": "sum"}
    assert declared.resolve({"kind": "mean"}) == {"kind": "mean"}
    for wrong in ("means", 1, None):
        with pytest.raises(ValueError, match=r"kind: got .*, expected one of sum, mean"):
            declared.resolve({"kind": wrong})


def test_unknown_direction_suggests_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"full: falls_with='margins'\. Did you mean margin"):
        declare(full, falls_with="margins")


@pytest.mark.parametrize(
    ("data", "declared", "said"),
    [
        ("chosen", {"falls_with": "margin"}, "falls_with='margin', but data='chosen' bring no margin"),
        ("pairs", {"running": dict}, "running= is declared, but its batch holds no whole effective batch"),
        ("pairs", {"running": 1}, "running=1, expected a function"),
        ("pairs", {"moving_reference": lambda: 2}, "moving_reference= is declared, but the loss reads no reference"),
        ("pairs", {"moving_reference": 2, "reference": True}, "moving_reference=2, expected a function"),
    ],
)
def test_declaration_about_what_the_data_do_not_bring_is_refused(data: Any, declared: Any, said: str) -> None:
    def untyped(logps, *, beta: float = 0.1) -> Loss:  # type: ignore[no-untyped-def]
        """Says nothing of its batch."""
        raise NotImplementedError

    with pytest.raises(PluginError, match=said):
        declare(untyped, data=data, **declared)


@pytest.mark.parametrize("wrong", [0, -1, 1.0, True, "2", None])
def test_a_reference_moves_after_a_whole_number_of_steps(wrong: Any) -> None:
    def plain(logps, *, tau: int = 4) -> Loss:  # type: ignore[no-untyped-def]
        """Says nothing of its batch."""
        raise NotImplementedError

    moving = {"data": "pairs", "reference": True}
    declared = declare(plain, **moving, moving_reference=lambda tau: 2 * tau)
    assert declared.sync_steps({"tau": 4}) == 8
    assert declared.reference_in_words == "yes, a moving one"
    assert declare(plain, **moving).sync_steps({"tau": 4}) is None
    with pytest.raises(
        PluginError, match=r"plain: moving_reference= returned .*, expected a whole number of steps ≥ 1"
    ):
        declare(plain, **moving, moving_reference=lambda: wrong).sync_steps({"tau": 4})


def test_unknown_data_kind_suggests_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"full: data='pair'\. Did you mean pairs"):
        declare(full, data="pair")


@pytest.mark.parametrize("rate", [0, -1e-5, float("nan"), float("inf"), "1e-5", None, True])
def test_bad_learning_rate_is_refused(rate: Any) -> None:
    with pytest.raises(PluginError, match="learning_rate"):
        declare(full, learning_rate=rate)


def ranged(
    logps: PairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 1)] = 0.1,
    steps: Annotated[int, Range(1, 4)] = 2,
    mode: str = "mean",
) -> Loss:
    """Has ranges."""
    raise NotImplementedError


def test_ranges_are_read_from_the_signature() -> None:
    declared = declare(ranged, learning_rate_range=(1e-6, 1e-4))
    assert declared.ranges == {"learning_rate": Range(1e-6, 1e-4), "beta": Range(0.01, 1), "steps": Range(1, 4)}
    assert declared.parameters["mode"].range is None
    assert declare(full).ranges == {}


def range_out_of_bounds(logps: PairLogps, *, beta: Annotated[float, Gt(0), Range(0, 1)] = 0.1) -> Loss:
    """Recommends what its bound forbids."""
    raise NotImplementedError


def default_out_of_range(logps: PairLogps, *, beta: Annotated[float, Range(0.5, 1)] = 0.1) -> Loss:
    """Does not take its own advice."""
    raise NotImplementedError


def two_ranges(logps: PairLogps, *, beta: Annotated[float, Range(0, 1), Range(0, 2)] = 0.1) -> Loss:
    """Recommends twice."""
    raise NotImplementedError


def range_of_text(logps: PairLogps, *, mode: Annotated[str, Range(0, 1)] = "mean") -> Loss:
    """Has text between numbers."""
    raise NotImplementedError


def fraction_of_int(logps: PairLogps, *, steps: Annotated[int, Range(0.5, 4)] = 2) -> Loss:
    """Has half a step."""
    raise NotImplementedError


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
def test_a_parameter_is_not_called_like_a_training_setting(name: str) -> None:
    text = (
        "def method(logps: PairLogps, *, NAME: int = 1) -> Loss:\n"
        '    """Equation.\n\n    Args:\n        NAME: counted.\n    """\n'
        "    return Loss(logps.chosen)\n"
    )
    space: dict[str, Any] = {"PairLogps": PairLogps, "Loss": Loss}
    exec(text.replace("NAME", name), space)
    with pytest.raises(PluginError, match=f"{name!r} is a training setting"):
        algorithm(paper="none", learning_rate=1e-4, reward="none")(space["method"])


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (range_out_of_bounds, "'beta': its range breaks its own schema: beta: got 0, expected float > 0"),
        (default_out_of_range, "'beta': the default 0.1 is outside its range 0.5–1"),
        (two_ranges, "'beta' has .*, expected one on a float or int"),
        (range_of_text, "'mode' has .*, expected one on a float or int"),
        (fraction_of_int, "'steps': its range breaks its own schema: steps: got 0.5, expected int"),
    ],
)
def test_bad_range_is_refused(function: Callable[..., Loss], said: str) -> None:
    with pytest.raises(PluginError, match=said) as caught:
        declare(function)
    assert function.__name__ in str(caught.value)


@pytest.mark.parametrize("ends", [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1), ("0", 1), (False, True)])
def test_range_needs_two_finite_ends_in_order(ends: tuple[Any, Any]) -> None:
    with pytest.raises(PluginError, match="expected two finite numbers, the lower one first"):
        Range(*ends)


@pytest.mark.parametrize("rates", [(0, 1e-3), (1e-4, 1e-3)])
def test_bad_range_of_learning_rates_is_refused(rates: tuple[float, float]) -> None:
    with pytest.raises(PluginError, match=r"full: learning_rate_range=.* around the default 1e-05"):
        declare(full, learning_rate_range=rates)


def test_range_spans_its_ends() -> None:
    found = Range(0.01, 0.5)
    assert (found.at(0), found.at(1)) == (0.01, 0.5)
    assert 0.01 in found
    assert 0.5 in found
    assert 0.009 not in found
    assert 0.51 not in found


def test_wide_range_above_zero_is_logarithmic_and_others_linear() -> None:
    assert Range(1e-5, 1e-3).at(0.5) == 1e-4
    assert Range(1, 10).at(0.5) == 3.16
    assert Range(1, 9).at(0.5) == 5
    assert Range(0, 100).at(0.25) == 25


def test_whole_number_as_a_default_is_kept_as_its_type() -> None:
    """Else `beta: 1.0` in a suite would be another method than the default of 1."""

    def whole(logps: PairLogps, *, beta: float = 1) -> Loss:
        """Says float, gives 1."""
        raise NotImplementedError

    assert type(declare(whole).resolve({})["beta"]) is float


def test_method_without_any_parameter_is_allowed() -> None:
    def bare(logps: PairLogps) -> Loss:
        """Nothing to set."""
        raise NotImplementedError

    assert declare(bare).parameters == {}


def parameter(kind: type[bool | int | float | str], *bounds: Any) -> Parameter:
    """A bare parameter called `x`."""
    return Parameter("x", kind, "", "in bounds" if bounds else "", bounds, "")


@pytest.mark.parametrize(
    ("kind", "given", "parsed"),
    [(float, 2, 2.0), (float, 0.5, 0.5), (int, 3, 3), (bool, True, True), (str, "a", "a")],
)
def test_parse_keeps_the_type(kind: type, given: Any, parsed: Any) -> None:
    found = parameter(kind).parse(given)
    assert found == parsed
    assert type(found) is kind


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (float, True),
        (int, True),
        (int, 2.0),
        (float, "0.1"),
        (float, None),
        (bool, 1),
        (bool, "yes"),
        (str, 1),
        (float, [0.1]),
    ],
)
def test_parse_refuses_another_type(kind: type, given: Any) -> None:
    with pytest.raises(ValueError, match=rf"x: got .*expected {kind.__name__}") as caught:
        parameter(kind).parse(given)
    assert repr(given) in str(caught.value)


@pytest.mark.parametrize(
    ("bound", "inside", "outside"),
    [(Gt(0), 0.1, 0.0), (Ge(0), 0.0, -0.1), (Lt(1), 0.9, 1.0), (Le(1), 1.0, 1.1)],
)
def test_parse_keeps_to_each_bound(bound: Any, inside: float, outside: float) -> None:
    bounded = parameter(float, bound)
    assert bounded.parse(inside) == inside
    with pytest.raises(ValueError, match=rf"x: got {outside}, expected float in bounds"):
        bounded.parse(outside)


def test_parse_needs_all_bounds_to_hold() -> None:
    bounded = parameter(float, Ge(0), Lt(0.5))
    assert bounded.parse(0) == 0.0
    for outside in (-1, 0.5):
        with pytest.raises(ValueError, match="x: got"):
            bounded.parse(outside)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_parse_refuses_what_is_no_finite_number(number: float) -> None:
    with pytest.raises(ValueError, match="x: got"):
        parameter(float).parse(number)


def test_resolve_lays_the_given_over_the_defaults() -> None:
    declared = declare(full)
    given: Mapping[str, Any] = {"beta": 1, "mode": "sum"}
    assert declared.resolve(given) == {
        "beta": 1.0,
        "smoothing": 0.0,
        "steps": 2,
        "plain": 1.0,
        "flag": False,
        "mode": "sum",
    }
    assert declared.resolve({})["beta"] == 0.1


def test_resolve_suggests_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"full has no parameter 'betta'\. Did you mean beta\?") as caught:
        declare(full).resolve({"betta": 0.2})
    assert "learning_rate" in str(caught.value), "the one parameter that every method has is listed too"


@pytest.mark.parametrize(("old", "new"), [("kl_weight", "kl_coef"), ("no_end_penalty", "missing_eos_penalty")])
def test_resolve_names_what_an_old_name_is_called_now(old: str, new: str) -> None:
    declared = declare_online(discounted)
    with pytest.raises(ValueError, match=rf"learner has no parameter '{old}'\. It is called {new} now\."):
        declared.resolve({old: 0.1})
    assert new in declared.resolve({new: 0.1})
    with pytest.raises(ValueError, match=rf"full has no parameter '{old}'\. Known parameters") as caught:
        declare(full).resolve({old: 0.1})
    assert "called" not in str(caught.value), "this method has none of that name either"


def test_resolve_refuses_what_is_out_of_bounds() -> None:
    with pytest.raises(ValueError, match=r"beta: got -1, expected float > 0"):
        declare(full).resolve({"beta": -1})


def returning(value: Any, data: str = "pairs") -> OfflineAlgorithm:
    """A method whose loss is `value`, whatever it reads."""

    def constant(batch: Any) -> Any:
        """Returns what it was made with."""
        return value

    return declare(constant, data=data)


def test_call_returns_the_loss_and_passes_parameters() -> None:
    loss = declare(full)(pairs(), beta=0.5)
    assert loss.values.tolist() == [1.0] * ROWS
    assert loss.chosen_rewards is not None
    assert loss.chosen_rewards.tolist() == [-0.5] * ROWS


@pytest.mark.parametrize(("value", "named"), [(torch.ones(ROWS), "Tensor"), (None, "NoneType"), (0.5, "float")])
def test_call_refuses_another_type(value: Any, named: str) -> None:
    with pytest.raises(PluginError, match=f"constant returned {named}, expected align_bench.api.Loss"):
        returning(value)(pairs())


@pytest.mark.parametrize(
    ("loss", "data", "missing"),
    [
        (Loss(torch.ones(ROWS)), "pairs", "chosen_rewards"),
        (Loss(torch.ones(ROWS), chosen_rewards=torch.ones(ROWS)), "pairs", "rejected_rewards"),
        (Loss(torch.ones(ROWS), rewards=torch.ones(ROWS)), "scores", "chosen_rewards"),
        (Loss(torch.ones(ROWS), torch.ones(ROWS), torch.ones(ROWS)), "unpaired", "rewards"),
    ],
)
def test_call_refuses_missing_rewards(loss: Loss, data: str, missing: str) -> None:
    batches: dict[str, api.Batch] = {
        "pairs": pairs(),
        "unpaired": unpaired(),
        "scores": PairScores(torch.ones(ROWS), torch.zeros(ROWS), torch.ones(ROWS), torch.ones(ROWS)),
    }
    batch = batches[data]
    with pytest.raises(PluginError, match=rf"a Loss without {missing}, which data='{data}' needs"):
        returning(loss, data)(batch)


@pytest.mark.parametrize("shape", [(), (1,), (ROWS, 1), (ROWS + 1,)])
def test_call_refuses_a_reduced_or_misshapen_loss(shape: tuple[int, ...]) -> None:
    loss = Loss(torch.ones(shape), torch.ones(ROWS), torch.ones(ROWS))
    with pytest.raises(PluginError, match=r"values of shape .* expected one per row: \(3,\)") as caught:
        returning(loss)(pairs())
    assert "the mean is the caller's" in str(caught.value)


def test_call_refuses_misshapen_rewards() -> None:
    loss = Loss(torch.ones(ROWS), torch.ones(ROWS), torch.ones(()))
    with pytest.raises(PluginError, match="rejected_rewards of shape"):
        returning(loss)(pairs())


def test_call_refuses_misshapen_metrics() -> None:
    loss = Loss(torch.ones(ROWS), torch.ones(ROWS), torch.ones(ROWS), metrics={"drift": torch.ones(())})
    with pytest.raises(PluginError, match="drift"):
        returning(loss)(pairs())


def test_call_counts_rows_of_single_answers_not_of_the_effective_batch() -> None:
    loss = Loss(torch.ones(ROWS), rewards=torch.ones(ROWS))
    assert returning(loss, "unpaired")(unpaired()) is loss


def learner(rollouts: Rollouts, *, clip: float = 0.2) -> Loss:
    """Learns from its own answers.

    Args:
        rollouts: the answers.
        clip: how far.
        kl_coef: how dear.
    """
    raise NotImplementedError


def with_critic(rollouts: CriticRollouts) -> Loss:
    """Has a critic."""
    raise NotImplementedError


def discounted(experience: Experience, *, kl_coef: float = 0.05) -> Advantages:
    raise NotImplementedError


def estimated(experience: CriticExperience) -> Advantages:
    raise NotImplementedError


def untyped(experience):  # type: ignore[no-untyped-def]
    raise NotImplementedError


def declare_online(advantage: Callable[..., Any], function: Callable[..., Loss] = learner, **more: Any) -> Any:
    return online(paper="none", learning_rate=1e-5, advantage=advantage, **more)(function)


def test_online_method_has_the_parameters_of_its_loss_its_advantage_and_the_rollouts() -> None:
    declared = declare_online(discounted, rollout=RolloutSettings(samples=2, temperature=0.5))
    assert list(declared.parameters) == ["clip", "kl_coef", *RolloutSettings.__dataclass_fields__]
    assert declared.arguments == ("rollouts", "clip", "kl_coef")
    assert declared.parameters["kl_coef"].description == "how dear."
    assert declared.parameters["samples"].description == "answers to each prompt of a batch."
    assert declared.settings(declared.resolve({"updates": 3})) == RolloutSettings(samples=2, temperature=0.5, updates=3)
    assert (declared.data, declared.kind, declared.online, declared.rewarded) == ("rollouts", "policy", True, True)
    assert declared.reward_fields == ()


@pytest.mark.parametrize(
    ("advantage", "function", "said", "critic"),
    [
        (discounted, learner, None, False),
        (estimated, with_critic, None, True),
        (untyped, with_critic, None, True),
        (untyped, with_critic, True, True),
        (untyped, learner, False, False),
    ],
)
def test_types_say_whether_there_is_a_critic(
    advantage: Callable[..., object], function: Callable[..., Loss], said: bool | None, critic: bool
) -> None:
    assert declare_online(advantage, function, critic=said).critic is critic


@pytest.mark.parametrize(("advantage", "function", "said"), [(discounted, with_critic, None), (untyped, learner, True)])
def test_types_that_contradict_each_other_are_refused(
    advantage: Callable[..., object], function: Callable[..., Loss], said: bool | None
) -> None:
    with pytest.raises(PluginError, match=r"critic=True, but its batch is .*, which is critic=False"):
        declare_online(advantage, function, critic=said)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (RolloutSettings(samples=0), r"samples: got 0, expected int ≥ 1"),
        (RolloutSettings(temperature=True), r"temperature: got True, expected float ≥ 0.0001"),
        ({"samples": 2}, r"rollout=\{'samples': 2\}, expected RolloutSettings"),
    ],
)
def test_bad_rollout_settings_are_refused(settings: object, said: str) -> None:
    with pytest.raises(PluginError, match=f"learner: .*{said}"):
        declare_online(discounted, rollout=settings)


def test_selection_has_the_parameters_of_every_selection() -> None:
    def last(rewards: torch.Tensor, *, share: float = 0.5) -> torch.Tensor:
        """Takes the last."""
        return torch.full((len(rewards),), rewards.shape[1] - 1)

    declared = selection(paper="none", kl_bound=lambda n, share: n * share)(last)
    assert list(declared.parameters) == ["share", "reward", "n", "temperature"]
    given = declared.resolve({"n": 3})
    assert declared.bound(given) == 1.5
    assert declared.settings(given).n == 3
    assert declared.pick(torch.zeros(2, 3), given) == [2, 2]
    assert (declared.kind, declared.online, declared.rewarded, declared.searched) == ("policy", False, True, {})
    assert "among 3 of the base" in declared.remarks(given)[0]
    assert "among 3 of sft, sampled" in declared.remarks(given, start="sft")[0]


def everything(job: Job, *, rate: Annotated[float, Gt(0)] = 0.5) -> None:
    """Takes it all.

    Args:
        job: the training.
        rate: how much of it.
    """


@pytest.mark.parametrize(("data", "kind", "reward"), [("pairs", "policy", "s̄"), ("scores", "reward", "r")])
def test_a_recipe_is_a_method_with_the_one_reward_of_its_kind(data: Any, kind: str, reward: str) -> None:
    declared = recipe(data=data, paper="arXiv:0", learning_rate=1e-3, libraries=["trl"])(everything)
    assert (declared.name, declared.kind, declared.reward, declared.libraries) == ("everything", kind, reward, ("trl",))
    assert declared.resolve({}) == {"rate": 0.5}
    assert declared.parameters["rate"].description == "how much of it."
    with pytest.raises(ValueError, match="expected float > 0"):
        declared.resolve({"rate": 0.0})


def test_a_recipe_of_unknown_data_is_refused() -> None:
    with pytest.raises(PluginError, match=r"everything: data='pair'\. Did you mean pairs"):
        recipe(data="pair", paper="arXiv:0", learning_rate=1e-3)(everything)  # type: ignore[arg-type]


def test_job_of_another_kind_is_refused() -> None:
    def asked(job: PromptJob, *, reward: str = "gold") -> None:
        """Answers prompts."""

    assert recipe(data="rollouts", paper="arXiv:0", learning_rate=1e-3)(asked).rewarded
    with pytest.raises(PluginError, match="asked: data='pairs', but its job is a PromptJob") as caught:
        recipe(data="pairs", paper="arXiv:0", learning_rate=1e-3)(asked)
    assert PairJob.__name__ in str(caught.value)


def test_rollouts_need_a_reward() -> None:
    with pytest.raises(PluginError, match="everything: rollouts need a reward"):
        recipe(data="rollouts", paper="arXiv:0", learning_rate=1e-3)(everything)


def test_means_divide_by_tokens() -> None:
    batch = pairs()
    assert batch.chosen_mean.tolist() == pytest.approx([-1, -1 / 2, -1 / 3])
    assert batch.rejected_mean.tolist() == pytest.approx([-1, -1 / 2, -1 / 3])
