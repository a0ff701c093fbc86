"""Plugin files that declare what cannot be: each is refused as the plugin's mistake, naming file and fault."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from align_bench.api import OfflineAlgorithm
from align_bench.errors import PluginError
from align_bench.plugins.registry import load_file

HEAD = """
import math
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Interval, Len, Lt, MultipleOf

from align_bench.api import *

"""
OFFLINE = """
@algorithm({given})
def method(logps: PairLogps, *, {parameters}) -> Loss:
    \"\"\"A method of the tests.\"\"\"
    return Loss(-logps.chosen, logps.chosen, logps.rejected)
"""
ONLINE = """
def spread(experience: Experience) -> Advantages:
    return Advantages(experience.logps)


@online(paper="p", learning_rate=1e-5, advantage={advantage}, rollout={rollout}, critic={critic})
def method(batch: Rollouts, *, clip: float = 0.2) -> Loss:
    \"\"\"A method of the tests.\"\"\"
    return Loss(batch.logps.sum(1))
"""
SELECTION = """
@selection(paper={paper}, kl_bound={bound})
def method(rewards, *, {parameters}) -> object:
    \"\"\"A method of the tests.\"\"\"
    return rewards.argmax(1)
"""
RECIPE = """
@recipe(data={data}, paper="p", learning_rate=1e-5, libraries={libraries}, obstacle={obstacle})
def method(job, *, beta: float = 0.1) -> None:
    \"\"\"A method of the tests.\"\"\"
"""
BESIDE = """
@algorithm(paper="p", learning_rate=1e-5, reward="s", auxiliary=lambda: {auxiliary})
def method(scores: BiasExpertScores) -> Loss:
    \"\"\"A method of the tests.\"\"\"
    return Loss(-scores.chosen, scores.chosen, scores.rejected)
"""
HUGE = "10**400"
NO_TEXT = ["None", "3", "b'x'", "['a']", "'x' * 10**6"]
NO_RATE = [
    HUGE,
    "'1e-5'",
    "True",
    "float('nan')",
    "-1",
    "0",
    "None",
    "1j",
    "[1e-5]",
    "Range(1, 2)",
    "math.inf",
    "np.int64(1)",
]
NO_RATES = [
    *("(1, 2, 3)", "(1e-6,)", "1e-6", "('a', 'b')", "(1e-3, 1e-2)", f"({HUGE}, 1)", "(np.int64(0), np.int64(1))"),
    *("(None, 1)", "{'a': 1}", "'ab'", "(float('nan'), 1)", f"(0, {HUGE})", "(2, 1)", "(True, 2)", "()"),
]
NO_BOUND = [
    *("Gt('a')", "Gt(None)", f"Ge({HUGE})", "Gt(float('nan'))", "Lt([])", "Interval(gt='a')", "MultipleOf(2)"),
    *("Gt(True)", "Gt(1j)", "Gt", "Len(3)", "Ge(5)", "Range(np.int64(1), np.int64(2))", "Range(1)", "Range('a', 'b')"),
    *(f"Range(0, {HUGE})", "Range(2, 1)", "Range", "Range(1, 2, 3)", "Range(0.5, 1)", "Gt(0), Gt(1), Lt(-1)"),
]
NO_PARAMETER = [
    *(f"x: float = {HUGE}", f"x: int = {HUGE}", "x: int = 2**63", "x: int = 0.5", "x: int = True", "x: float = '0.1'"),
    *("x: float = None", "x: str = 3", "x: bool = 1", "x: list = []", "x: float", "x: 'nothing' = 0.1"),
    *("x: int = np.int64(3)", "x: complex = 1j", "x: float | None = None", "x: float = float('inf')"),
    *("x: str = 'x' * 10**6", "x: Annotated[int, Range(1, 10**30)] = 5", "x: Annotated[float, Range(0.1, 1)] = 1e300"),
    *("learning_rate: float = 1.0", "epochs: int = 1", "batch_size: int = 1", f"{'a' * 300}: float = 0.1", "x = 0.1"),
    *("logps: float = 0.1", "x: float = 0.1, x: float = 0.2", "x: dict = {}", "x: Annotated[str, Range(1, 2)] = 'a'"),
]
NOT_GIVEN = [
    *("at_reference='x'", f"at_reference={HUGE}", "at_reference=(1, 2, 3)", "normalised='yes'", "normalised=3"),
    *("uses_rejected=None", "uses_rejected='no'", "auxiliary=3", "auxiliary=BiasExpert()", "data='x'", "data=3"),
    *("data=['pairs']", "reference='x'", "nonsense=1", "advantage=3", "kl_bound=3"),
]
NO_ROLLOUT = [
    *("RolloutSettings(no_end_penalty=1)", "RolloutSettings(samples='a')", "RolloutSettings(samples=0)", "3"),
    *("RolloutSettings(samples=np.int64(4))", "RolloutSettings(reward=3)", "RolloutSettings(reward=None)"),
    *("{'samples': 3}", f"RolloutSettings(samples={HUGE})", f"RolloutSettings(temperature={HUGE})"),
    *("RolloutSettings('a', 1, 2, 3, 4, 5, 6)", "RolloutSettings(nonsense=1)", "RolloutSettings(max_new_tokens=True)"),
    *("RolloutSettings(temperature=float('nan'))", "RolloutSettings(kl_weight=1)", "RolloutSettings"),
]
NO_ADVANTAGE = ["None", "3", "'x'", "lambda: 1", "lambda e, x: 1", "lambda e, *, x=1: 1", "[]", "print"]
NO_KL = [
    *("lambda n: 'text'", "lambda n: None", "lambda n: 1 / 0", "lambda n: float('nan')", "lambda n: -1.0", "None", "3"),
    *("lambda m: 1.0", f"lambda n: {HUGE}", "lambda n: [1]", "lambda n: True", "print", "'x'"),
]
NO_LIBRARIES = ["3", "(3,)", "'trl'", "None", "{'trl': 1}", "('x' * 10**6,)", "(None,)"]
NO_OBSTACLE = ["3", "lambda: 3", "lambda x: 3", "'x'", "[]"]
NO_FILE = [
    *("def (", 'x = "\\0"', "x = " + "(" * 3000 + ")" * 3000, "x = " + "-" * 100_000 + "1", "import sys; sys.exit(3)"),
    *("", "x = 1", "import nothing_of_that_name", "raise ValueError", "1 / 0", "from . import nothing", "return 1"),
    *(
        "class E(Exception):\n    def __str__(self):\n        raise ValueError\nraise E()",
        "from align_bench.api import nothing",
    ),
    "def f():\n    f()\nf()",
]


def offline(parameters: str = "beta: float = 0.1", **given: str) -> str:
    """A file that declares a method on given answers."""
    every = {"paper": "'p'", "learning_rate": "1e-5", "reward": "'s'"} | given
    return HEAD + OFFLINE.format(
        given=", ".join(f"{key}={value}" for key, value in every.items()), parameters=parameters
    )


def online(advantage: str = "spread", rollout: str = "None", critic: str = "None") -> str:
    """A file that declares a method on the policy's own answers."""
    return HEAD + ONLINE.format(advantage=advantage, rollout=rollout, critic=critic)


def selection(paper: str = "'p'", bound: str = "lambda n: 1.0", parameters: str = "k: int = 1") -> str:
    """A file that declares a selection."""
    return HEAD + SELECTION.format(paper=paper, bound=bound, parameters=parameters)


def recipe(data: str = "'pairs'", libraries: str = "()", obstacle: str = "None") -> str:
    """A file that declares a recipe."""
    return HEAD + RECIPE.format(data=data, libraries=libraries, obstacle=obstacle)


CASES: dict[str, str] = {
    **{f"paper={value[:20]}": offline(paper=value) for value in NO_TEXT},
    **{f"reward={value[:20]}": offline(reward=value) for value in NO_TEXT},
    **{f"rate={value}": offline(learning_rate=value) for value in NO_RATE},
    **{f"rates={value}": offline(learning_rate_range=value) for value in NO_RATES},
    **{f"bound={value}": offline(f"x: Annotated[float, {value}] = 0.1") for value in NO_BOUND},
    **{f"parameter {value[:40]}": offline(value) for value in NO_PARAMETER},
    **{f"given {value}": offline(**dict([value.split("=", 1)])) for value in NOT_GIVEN},
    **{f"rollout={value}": online(rollout=value) for value in NO_ROLLOUT},
    **{f"advantage={value}": online(advantage=value) for value in NO_ADVANTAGE},
    **{f"critic={value}": online(critic=value) for value in ("3", "'x'", "True", "[]")},
    **{f"kl_bound={value}": selection(bound=value) for value in NO_KL},
    **{f"selection paper={value[:20]}": selection(paper=value) for value in NO_TEXT},
    **{f"selection {value}": selection(parameters=value) for value in ("n: int = 4", "reward: str = 'rm'")},
    **{f"libraries={value[:20]}": recipe(libraries=value) for value in NO_LIBRARIES},
    **{f"obstacle={value}": recipe(obstacle=value) for value in NO_OBSTACLE},
    **{f"recipe of {value}": recipe(data=value) for value in ("3", "[]", "None", "{}", "'x'", "'rollouts'")},
    **{f"file {number}": text for number, text in enumerate(NO_FILE)},
    "a long name": offline().replace("def method", f"def {'m' * 300}"),
    "no docstring": offline().replace('"""A method of the tests."""', "pass"),
    "a reserved name": offline().replace("def method", "def judge2"),
}


def loaded(path: Path) -> None:
    """Load a file as a run does."""
    for plugin in load_file(path):
        plugin.load()


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_a_bad_declaration_is_refused_as_the_plugins_mistake(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    started = time.process_time()
    with pytest.raises(PluginError) as refused:
        loaded(path)
    said = str(refused.value)
    assert "mine.py" in said or "method" in said
    assert "Traceback" not in said
    assert len(said) < 2000
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (online(rollout="RolloutSettings(no_end_penalty=1)"), "write missing_eos_penalty in place of no_end_penalty"),
        (offline(paper="None"), "method: paper=None, expected text"),
        (offline(learning_rate=HUGE), "expected a number > 0"),
        (offline("x: Annotated[float, Gt('a')] = 0.1"), "method: parameter 'x': Gt('a'): expected a number"),
        (offline("x: Annotated[float, Gt] = 0.1"), "Gt is no bound"),
        (selection(bound="lambda n: 'text'"), "method: its kl_bound returned 'text', expected a number of nats"),
        (offline(learning_rate_range="(1, 2, 3)"), "learning_rate_range=(1, 2, 3), expected two numbers"),
    ],
)
def test_the_message_says_what_is_wrong(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PluginError) as refused:
        loaded(path)
    assert part in str(refused.value)


@pytest.mark.parametrize("value", ["BiasExpert(nonsense=3)", "BiasExpert(width='a')", "BiasExpert(noise=-1)", "3"])
def test_a_bad_auxiliary_is_refused_when_it_is_made(tmp_path: Path, value: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(HEAD + BESIDE.format(auxiliary=value), encoding="utf-8")
    (plugin,) = load_file(path)
    assert isinstance(plugin.algorithm, OfflineAlgorithm)
    with pytest.raises(PluginError):
        plugin.algorithm.beside({})
