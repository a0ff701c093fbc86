"""Declarations that are read from the syntax tree: the same as executing the file makes, or executing it after all."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from align_bench.api import Algorithm, Loss, OfflineAlgorithm, OnlineAlgorithm, algorithm, selection
from align_bench.plugins.declared import declared, difference
from align_bench.plugins.deferred import DeferredFunction
from align_bench.plugins.modules import PluginFile, PluginFiles
from align_bench.suite.load import builtin_folder

HEAD = """\
import math
from typing import Annotated

import torch
from annotated_types import Gt, Interval, Le

from align_bench.api import Advantages, CriticAdvantages, CriticExperience, CriticRollouts, Experience, Job, Loss
from align_bench.api import BiasExpert, BiasExpertScores, PairLogps, PairScores, PromptJob, Range, ReferencedPairLogps
from align_bench.api import Rollouts, RolloutSettings, algorithm, online, recipe, selection
"""
BODY = ''' -> Loss:
    """A method of the tests.

    Args:
        logps: the batch.
        beta: strength.
    """
    return Loss(-logps.chosen, logps.chosen, logps.rejected)
'''
DECLARED = '@algorithm(paper="none", learning_rate=1e-5, reward="s")\n'
PLAIN = DECLARED + "def mine(logps: PairLogps, *, beta: float = 0.1)" + BODY
REFERENCED = PLAIN.replace("logps: PairLogps", "logps: ReferencedPairLogps")
ONLINE = PLAIN.replace("logps: PairLogps", "rollouts: Rollouts").replace(
    '@algorithm(paper="none"', '@online(paper="none"'
)
ONLINE = ONLINE.replace(', reward="s"', "")


def file(tmp_path: Path, text: str, name: str = "mine.py") -> PluginFile:
    """A plugin file with that text, read."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return PluginFiles().read(path)


def executed(path: Path) -> dict[str, Algorithm]:
    """The methods that executing a file makes: name → method."""
    module = PluginFiles().read(path).module()
    return {name: value for name, value in vars(module).items() if isinstance(value, Algorithm) and value.name == name}


def assert_equal(read: Algorithm, made: Algorithm) -> None:
    """Every declared field of the two is the same, and what is a function gives the same at the defaults."""
    assert difference(read, made) is None
    assert isinstance(made.function, type(assert_equal)), "it was executed"
    for field in fields(made):
        ours, theirs = getattr(read, field.name), getattr(made, field.name)
        assert callable(ours) == callable(theirs), field.name
        if not callable(theirs):
            assert ours == theirs, field.name
    assert read.ranges == made.ranges
    assert read.summary == made.summary
    given = made.resolve({})
    assert read.remarks(given) == made.remarks(given)
    assert_same_signature(read.function, made.function)
    if isinstance(made, OfflineAlgorithm):
        assert isinstance(read, OfflineAlgorithm)
        assert read.closed_form(given) == made.closed_form(given)
        assert read.reads_rejected(given) == made.reads_rejected(given)
        assert read.beside(given) == made.beside(given)
    if isinstance(made, OnlineAlgorithm):
        assert isinstance(read, OnlineAlgorithm)
        assert_same_signature(read.advantage, made.advantage)


def assert_same_signature(read: Callable[..., Any], made: Callable[..., Any]) -> None:
    kept = [[(each.name, each.kind, each.default) for each in inspect.signature(of).parameters.values()]
            for of in (read, made)]  # fmt: skip
    assert kept[0] == kept[1]
    assert (read.__name__, read.__doc__) == (made.__name__, made.__doc__)


@pytest.mark.parametrize("path", sorted(builtin_folder("algorithms").glob("[!_]*.py")), ids=lambda path: path.stem)
def test_built_in_file_is_read_as_it_is_executed(path: Path) -> None:
    read, made = declared(PluginFiles().read(path)), executed(path)
    assert read is not None, "no built-in file has to be executed to be listed"
    assert {method.name for method in read} == set(made)
    for method in read:
        assert isinstance(method.function, DeferredFunction)
        assert_equal(method, made[method.name])


AWKWARD: Mapping[str, str] = {
    "plain": PLAIN,
    "names of the module": f"import align_bench.api\n{PLAIN.replace('@algorithm', '@align_bench.api.algorithm')}",
    "module from the package": f"from align_bench import api\n{PLAIN.replace('@algorithm', '@api.algorithm')}",
    "alias of the module": f"import align_bench.api as ab\n{PLAIN.replace('@algorithm', '@ab.algorithm')}",
    "alias of the decorator": "from align_bench.api import algorithm as method\n"
    + PLAIN.replace("@algorithm", "@method"),
    "annotations as text": f"from __future__ import annotations\n{HEAD}{PLAIN}",
    "quoted annotation": PLAIN.replace("beta: float", 'beta: "Annotated[float, Gt(0)]"'),
    "constants": "BETA = 2 ** -3\nTABLE = {'low': -BETA, 'all': [1, (2, 3)]}\nPositive = Annotated[float, Gt(0)]\n"
    + PLAIN.replace("beta: float = 0.1", "beta: Positive = BETA"),
    "typed constant": "from typing import Final\nBETA: Final[float] = 0.25\n"
    + PLAIN.replace("beta: float = 0.1", "beta: float = max(BETA, math.sqrt(0.5))"),
    "interval": PLAIN.replace("beta: float", "beta: Annotated[float, Interval(gt=0, lt=1), Range(0.05, 0.5)]"),
    "whole numbers": PLAIN.replace("beta: float = 0.1",
                                   "beta: float = 1, steps: int = 3, mode: str = 'a', on: bool = True"),
    "no parameter": PLAIN.replace(", *, beta: float = 0.1", ""),
    "shared keywords": "SHARED = dict(data='pairs', paper='none')\n"
    + PLAIN.replace('paper="none"', "**SHARED"),
    "data and reference said, too": REFERENCED.replace('reward="s"', 'reward="s", data="pairs", reference=True'),
    "quoted batch": PLAIN.replace("logps: PairLogps", 'logps: "PairLogps"'),
    "batch under another name": "Batch = ReferencedPairLogps\n" + PLAIN.replace("logps: PairLogps", "logps: Batch"),
    "batch of the module": "import align_bench.api\n" + PLAIN.replace("logps: PairLogps",
                                                                       "logps: align_bench.api.PairLogps"),
    "batch without a type": PLAIN.replace("logps: PairLogps", "logps").replace('reward="s"',
                                                                              'reward="s", data="chosen"'),
    "lambda of module names": "HALF = 0.5\n"
    + REFERENCED.replace('reward="s"', 'reward="s", at_reference=lambda beta: math.log(2) * HALF * beta'),
    "lambda of a torch name": REFERENCED.replace(
        'reward="s"', 'reward="s", at_reference=lambda beta: float(torch.tensor(beta).exp())'
    ),
    "lambda of a function below": PLAIN.replace('reward="s"', 'reward="s", uses_rejected=lambda beta: later(beta)')
    + "\n\ndef later(beta):\n    return bool(torch.tensor(beta) > 1)\n",
    "lambda with a comprehension": PLAIN.replace(
        'reward="s"', 'reward="s", uses_rejected=lambda beta: any(beta > each for each in (0.05, 0.5))'
    ),
    "function of the file": "def closed(beta):\n    return 2 * beta\n\n\n"
    + REFERENCED.replace('reward="s"', 'reward="s", at_reference=closed'),
    "named lambda": "closed = lambda beta: beta + 1\n"
    + REFERENCED.replace('reward="s"', 'reward="s", at_reference=closed'),
    "pair at the reference": REFERENCED.replace('reward="s"', 'reward="s", at_reference=(0.5, -0.5)'),
    "auxiliary": PLAIN.replace("logps: PairLogps", "logps: BiasExpertScores").replace(
        'reward="s"', 'reward="s", auxiliary=lambda beta: BiasExpert(noise=beta)'
    ),
    "auxiliary of a batch without a type": PLAIN.replace("logps: PairLogps", "logps").replace(
        'reward="s"', 'reward="s", data="scores", auxiliary=BiasExpert'
    ),
    "advantage": "DISCOUNT = 1.0\n\n\ndef advantage(experience: CriticExperience, *, "
    'discount: Annotated[float, Gt(0), Le(1)] = DISCOUNT) -> CriticAdvantages:\n    """Nothing."""\n\n\n'
    + ONLINE.replace("Rollouts", "CriticRollouts").replace(
        "1e-5", "1e-5, advantage=advantage, rollout=RolloutSettings(samples=2, temperature=0.5)"
    ),
    "advantage without types": 'def advantage(experience):\n    """Nothing."""\n\n\n'
    + ONLINE.replace(": Rollouts", "").replace("1e-5", "1e-5, advantage=advantage, critic=True"),
    "recipe": '@recipe(data="rollouts", paper="none", learning_rate=1e-3, libraries=["trl"], obstacle=lambda: None)\n'
    'def mine(job: PromptJob, *, reward: str = "gold") -> None:\n    """Takes all."""\n',
    "selection": '@selection(paper="none", kl_bound=lambda n, share: math.log(n) / share)\n'
    'def mine(rewards: torch.Tensor, *, share: float = 0.5) -> torch.Tensor:\n    """Picks."""\n',
    "two methods and an alias": f"{PLAIN}\n\n{PLAIN.replace('def mine', 'def other')}\n\nagain = other\n",
    "other decorators": "import functools\n\n\n@functools.cache\ndef helper(x: int = 1) -> int:\n    return x\n\n\n"
    f"@torch.no_grad()\ndef other() -> None: ...\n\n\n{PLAIN}",
    "class": f"class Table(dict[str, int]):\n    size = 3\n\n\n{PLAIN}",
    "only for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nowhere import Nothing\n" + PLAIN,
}  # fmt: skip


@pytest.mark.parametrize("what", AWKWARD)
def test_awkward_file_is_read_as_it_is_executed(tmp_path: Path, what: str) -> None:
    text = AWKWARD[what] if "__future__" in AWKWARD[what] else HEAD + AWKWARD[what]
    read, made = declared(file(tmp_path, text)), executed(tmp_path / "mine.py")
    assert read is not None
    assert {method.name for method in read} == set(made)
    for method in read:
        assert_equal(method, made[method.name])


UNREADABLE: Mapping[str, str] = {
    "a loop": f"for name in ('one',):\n    globals()[name] = 1\n{PLAIN}",
    "a condition": f"import sys\nif sys.version_info:\n    BETA = 1\n{PLAIN}",
    "a call": f"torch.manual_seed(0)\n{PLAIN}",
    "a try": f"try:\n    import trl\nexcept ImportError:\n    trl = None\n{PLAIN}",
    "all names of a module": f"from math import *\n{PLAIN}",
    "a default of torch": PLAIN.replace("0.1", "float(torch.finfo(torch.float32).eps)"),
    "a default of the file": "def one():\n    return 0.1\n\n\n" + PLAIN.replace("= 0.1", "= one()"),
    "a default of a lambda": "one = lambda: 0.1\n" + PLAIN.replace("= 0.1", "= one()"),
    "a decorator of the file": "def declare(function):\n"
    "    return algorithm(paper='none', learning_rate=1e-5, reward='s')(function)\n\n\n"
    + PLAIN.replace(DECLARED, "@declare\n"),
    "a decorator that is made": "import functools\n@functools.partial(algorithm, paper='none')\ndef half(): ...\n"
    + PLAIN,
    "a decorator that is kept": "declare = algorithm(paper='none', learning_rate=1e-5, reward='s')\n"
    + PLAIN.replace(DECLARED, "@declare\n"),
    "two decorators": PLAIN.replace(DECLARED, f"{DECLARED}@torch.no_grad()\n"),
    "a method without a decorator": "def loss(logps: PairLogps)" + BODY
    + "mine = algorithm(paper='none', learning_rate=1e-5, reward='s')(loss)\n",
    "a name that is bound twice": "def other(): ...\nother = 3\n" + PLAIN,
    "a type that is unknown": PLAIN.replace("logps: PairLogps", "logps: Unknown"),
    "a type for type checkers only": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from x import Unknown\n"
    + PLAIN.replace("logps: PairLogps", "logps: Unknown"),
    "a name that api does not have": f"from align_bench.api import Nothing\n{PLAIN}",
    "a file that is not there": f"from ._gone import x\n{PLAIN}",
    "a folder above": f"from ..above import x\n{PLAIN}",
    "a wrong declaration": PLAIN.replace('reward="s"', 'reward="s", data="pears"'),
    "data that is not that of the batch": PLAIN.replace('reward="s"', 'reward="s", data="chosen"'),
    "a missing argument": PLAIN.replace('paper="none", ', ""),
    "an argument by position": PLAIN.replace("paper=", ""),
    "no docstring": f"{DECLARED}def mine(logps: PairLogps) -> Loss: ...\n",
    "an advantage whose default is computed":
    "def advantage(experience, *, scale: float = float(torch.tensor(1.0))): ...\n"
    + ONLINE.replace("1e-5", "1e-5, advantage=advantage"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNREADABLE)
def test_file_that_does_not_say_it_plainly_is_not_read(tmp_path: Path, what: str) -> None:
    assert declared(file(tmp_path, HEAD + UNREADABLE[what])) is None
    assert not [name for name in sys.modules if name.startswith("_align_bench_plugins") and name.endswith(".mine")
                and str(tmp_path) in str(sys.modules[name].__file__)], "nor executed"  # fmt: skip


def test_missing_package_is_told_without_executing_the_file(tmp_path: Path) -> None:
    text = f"{HEAD}import no_such_package_at_all.part\nraise RuntimeError\n"
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_package_at_all'"):
        declared(file(tmp_path, text))


def test_syntax_that_only_the_compiler_refuses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SyntaxError):
        declared(file(tmp_path, f"{HEAD}{PLAIN}\nreturn 1\n"))


def test_each_field_counts_as_a_difference() -> None:
    def mine(logps: object, *, beta: float = 0.1) -> Loss:
        """One."""
        raise NotImplementedError

    one = algorithm(data="pairs", paper="a", learning_rate=1e-5, reward="s")(mine)
    assert difference(one, one) is None
    changed = {
        "paper": replace(one, paper="b"),
        "learning_rate": replace(one, learning_rate=1e-4),
        "reward": replace(one, reward="r"),
        "uses_rejected": replace(one, uses_rejected=False),
    }
    for name, other in changed.items():
        assert name in str(difference(one, other))
    assert difference(one, None) is not None
    assert difference(one, selection(paper="a", kl_bound=lambda n: 0.0)(mine)) is not None


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


HEAVY = ("torch", "transformers", "trl", "numpy", "peft", "accelerate", "pyarrow")


@pytest.mark.parametrize("command", ["algorithms", "show dpo", "show ppo", "show best_of_n", "show trl_simpo"])
def test_methods_are_listed_without_torch(command: str) -> None:
    done = run(
        "import sys\nfrom align_bench.cli.main import main\n"
        f"sys.argv = ['align-bench', *{command.split()!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "arXiv" in done.stdout
