"""The skeleton of a plugin: whole but for its loss, which the kit says; with a loss it passes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from align_bench.errors import PluginError
from align_bench.plugins.registry import load_file, load_registry
from align_bench.plugins.template import write_template
from align_bench.testing import check_algorithm
from align_bench.train.feeds import FEEDS

PAIRS = """\
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    return Loss((1 + (rejected - chosen)).clamp(min=0), chosen_rewards=chosen, rejected_rewards=rejected)
"""
CHOSEN = """\
    return Loss(-beta * logps.logps / logps.tokens, rewards=beta * logps.logps / logps.tokens)
"""
UNPAIRED = """\
    drift = (logps.mismatched - logps.ref_mismatched).mean().clamp(min=0).detach()
    reward = beta * (logps.logps - logps.ref_logps)
    return Loss((1 - (reward - beta * drift).tanh() * (2 * logps.desirable - 1)), rewards=reward)
"""
SCORES = """\
    values = softplus(beta * (scores.rejected - scores.chosen))
    return Loss(values, chosen_rewards=scores.chosen, rejected_rewards=scores.rejected)
"""
FIRST = """\
from torch.nn.functional import softplus


def log_1_plus_exp(x):
    return x.exp().log1p()
"""
CARELESS = SCORES.replace("softplus(", "log_1_plus_exp(")
LOSSES = {"pairs": PAIRS, "chosen": CHOSEN, "unpaired": UNPAIRED, "scores": SCORES}
REGISTRY = load_registry()


@pytest.mark.parametrize("data", FEEDS)
def test_skeleton_lacks_nothing_but_its_loss(tmp_path: Path, data: str) -> None:
    path = write_template("mine", data, tmp_path / "algorithms", taken=REGISTRY)
    assert path == tmp_path / "algorithms" / "mine.py"
    (plugin,) = load_file(path)
    assert (plugin.algorithm.name, plugin.algorithm.data) == ("mine", data)
    report = check_algorithm(plugin.algorithm)
    (failed,) = report.having("failed")
    assert failed.found == "there is no loss yet: put the loss of mine in place of this line"
    line = int(re.findall(r"line (\d+)$", failed.hint)[0])
    assert "put the loss of mine" in path.read_text(encoding="utf-8").splitlines()[line - 1]
    assert {check.name for check in report.having("passed")} == {"bounds", "documentation"}


@pytest.mark.parametrize("data", LOSSES)
def test_skeleton_with_a_loss_passes(tmp_path: Path, data: str) -> None:
    path = write_template("mine", data, tmp_path, taken=REGISTRY)
    fill_in(path, LOSSES[data])
    check_algorithm(load_file(path)[0].algorithm).raise_for_failures()


def test_skeleton_with_a_careless_loss_fails(tmp_path: Path) -> None:
    path = write_template("mine", "scores", tmp_path, taken=REGISTRY)
    fill_in(path, CARELESS)
    assert [check.name for check in check_algorithm(load_file(path)[0].algorithm).having("failed")] == ["extremes"]


def fill_in(path: Path, loss: str) -> None:
    """Put a loss in place of the last line, as the skeleton asks for."""
    kept = path.read_text(encoding="utf-8").splitlines()[:-1]
    path.write_text("\n".join([FIRST, *kept, loss]), encoding="utf-8")


@pytest.mark.parametrize("name", ["9th", "class", "MyDpo", "_mine", "my-dpo", "my dpo", ""])
def test_name_that_no_function_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PluginError, match="cannot name a method"):
        write_template(name, "pairs", tmp_path, taken=REGISTRY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["dpo", "base", "judge"])
def test_name_that_is_taken_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PluginError, match=f"the name '{name}' is taken"):
        write_template(name, "pairs", tmp_path, taken=REGISTRY)
    assert not list(tmp_path.iterdir())


def test_kind_that_is_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"--data pair: no such kind\. Did you mean pairs"):
        write_template("mine", "pair", tmp_path, taken=REGISTRY)


def test_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(PluginError, match=r"mine\.py exists already"):
        write_template("mine", "pairs", tmp_path, taken=REGISTRY)
    assert path.read_text(encoding="utf-8") == "mine"
