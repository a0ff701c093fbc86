"""The three plain sentences: each follows from a record, and is left out without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from align_bench.records import CellId, Estimate, MetricKey
from align_bench.report.export import read_report
from align_bench.report.findings import AgainstBase, BesideLonger, Findings, First, Lengths, OfJudge, find
from align_bench.report.schema import Report
from align_bench.report.verdict import headline, summarise
from tests.report.conftest import BASE, DPO, KTO, SIMPO
from tests.report.test_leaderboard import answered, seeds

PUBLISHED = Path(__file__).parents[2] / "reports" / "published"
GOLD, JUDGE = MetricKey("gold_accuracy"), MetricKey("judge_reward")
NOTHING = Findings((), (), None, None, None, gold_alone=False)


def said(**found: Any) -> str:
    """The only sentence of these findings."""
    (sentence,) = summarise(replace(NOTHING, **found))
    return sentence


def test_the_assignments_own_summary() -> None:
    found = find(read_report(PUBLISHED / "assignment"))
    (base,) = found.base
    assert base == AgainstBase(GOLD, "checkpoint", 1, ("kto", "orpo"), (), ("dpo", "simpo", "ppo"))
    (first,) = found.first
    assert (first.labels, first.above, first.unclear) == (("kto",), (), ("orpo", "dpo", "simpo", "ppo"))
    assert found.lengths is not None
    assert found.lengths.times["orpo"] == pytest.approx(8.66 / 5.03)
    assert found.lengths.preferred == ("ppo",)
    assert found.judge is not None
    assert (found.judge.reversed, found.judge.pairs, found.judge.other) == (5, 15, "gold")
    assert (found.judge.padded, found.judge.beside_longer) == (True, "none")


def test_the_judge_is_looked_up_by_its_cell_and_not_by_a_method_of_its_name() -> None:
    """The judge `rm` is the cell `judge`; the method `rm` is another model."""
    report = read_report(PUBLISHED / "assignment")
    judge = find(report).judge
    assert judge is not None
    accuracies = {one.scorer: one.accuracy.value for one in report.against_longer}
    assert judge.accuracy == accuracies["judge"] != accuracies["rm"]


def test_checkpoints_and_methods_are_told_apart() -> None:
    one = answered({BASE: 0.0, DPO: 2.0})
    assert headline(one)[0].startswith("This checkpoint of dpo (one seed) has higher scores by the judge than the base")
    two = answered({BASE: 0.0, **dict.fromkeys(seeds(DPO, 2), 2.0)})
    assert headline(two)[0].startswith("These checkpoints of dpo (2 seeds) have higher scores")
    three = answered({BASE: 0.0, **dict.fromkeys(seeds(DPO), 2.0)})
    assert headline(three)[0].startswith("Over 3 seeds, dpo has higher scores by the judge than the base")


MORE = "answer more prompts correctly than the base"


@pytest.mark.parametrize(
    ("above", "below", "unclear", "words"),
    [
        ("", "", "ab", f"None of these checkpoints (one seed) is shown to {MORE}."),
        ("", "a", "b", f"None of these checkpoints (one seed) is shown to {MORE}; a answers fewer."),
        ("a", "bc", "", f"This checkpoint of a (one seed) {MORE.replace('answer', 'answers')}; b and c answer fewer."),
        ("ab", "", "c", f"These checkpoints of a and b (one seed) {MORE}; c is not shown to."),
        (
            "a",
            "",
            "bc",
            f"This checkpoint of a (one seed) {MORE.replace('answer', 'answers')}; b and c are not shown to.",
        ),
    ],
)
def test_who_beats_the_base(above: str, below: str, unclear: str, words: str) -> None:
    assert said(base=(AgainstBase(GOLD, "checkpoint", 1, tuple(above), tuple(below), tuple(unclear)),)) == words


def test_no_method_over_seeds() -> None:
    found = AgainstBase(JUDGE, "method", 3, (), (), ("a",))
    assert said(base=(found,)) == "Over 3 seeds, no method is shown to have higher scores by the judge than the base."


def test_ties_are_named_as_ties() -> None:
    report = answered(dict.fromkeys((BASE, DPO, KTO, SIMPO), 0.0), dict.fromkeys((BASE, DPO, KTO, SIMPO), 0.58))
    (first,) = find(report).first
    assert set(first.labels) == {"base", "dpo", "kto", "simpo"}
    assert "are tied first (0.583 each)" in headline(report)[0]
    (gold,) = [line for line in report.verdict if line.startswith("Right answers")]
    assert gold.endswith("tied highest checkpoints dpo, kto, simpo, base (0.583 each; 4 of 4).")


def test_a_lead_is_shown_or_not() -> None:
    first = First(GOLD, "policy", ("a",), 0.5, above=("b", "c"))
    assert said(first=(first,)) == "By right answers, a is first (0.500), shown to be above all others."
    unclear = replace(first, above=("b",), unclear=("c",))
    assert said(first=(unclear,)) == "By right answers, a is first (0.500), but its lead over c is not shown."
    many = replace(first, above=("b",), unclear=tuple("cdef"))
    assert "but its lead over 4 of the other 5 is not shown" in said(first=(many,))


def test_a_lead_over_some_is_not_said_of_all() -> None:
    first = First(GOLD, "policy", ("a",), 0.5, above=("b", "c"), apart=("d", "e", "f"))
    assert said(first=(first,)).endswith("(0.500); of 5 others it was compared with 2, and is shown to be above them.")
    unclear = replace(first, above=("b",), unclear=("c",))
    assert said(first=(unclear,)).endswith("; of 5 others it was compared with 2; its lead over c is not shown.")
    alone = replace(first, above=())
    assert said(first=(alone,)).endswith("(0.500); it was compared with none of the others.")


def test_whom_the_first_one_was_not_compared_with_is_found() -> None:
    golds = {BASE: 0.5, DPO: 0.5, KTO: 0.75, SIMPO: 0.25}
    report = answered(dict.fromkeys(golds, 0.0), golds, against=["dpo"])
    (first,) = find(report).first
    assert (first.labels, first.above + first.unclear, first.apart) == (("kto",), ("dpo",), ("simpo",))
    assert "Compared with each method: the base, dpo. No other pair is tested (report.against)." in report.verdict


def test_lengths_are_multiples_of_the_bases() -> None:
    found = Lengths(5.0, {"a": 5.0, "b": 4.1, "c": 1.7}, ("c",), ("a", "b", "c"))
    assert said(lengths=found) == (
        "Answers of a and b are 4.1 to 5.0 times as long as the base's (5.0 words), those of c 1.7 times; at equal "
        "length the judge prefers only the answers of c to the base's (95% intervals, not adjusted)."
    )
    alike = Lengths(5.0, {"a": 1.04, "b": 0.96}, (), ())
    assert said(lengths=alike) == "Answers of a and b are about as long as the base's (5.0 words)."
    assert said(lengths=Lengths(5.0, {"a": 0.9}, (), ())) == (
        "Answers of a are 0.9 times as long as the base's (5.0 words)."
    )


JUDGED = OfJudge("rm", "above", 0.8, 0.7, False, "gold", 0, 10, ())


THAN = "than preferring the longer answer does (0.800, 0.700)."
CARE = "Read the judge's scores with care: it "


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, f"The judge ranks all 10 pairs of methods as gold does and agrees with the labels more often {THAN}"),
        (
            {"pairs": 1},
            f"The judge ranks the one pair of methods as gold does and agrees with the labels more often {THAN}",
        ),
        (
            {"reversed": 1, "pairs": 1},
            f"{CARE}ranks the one pair of methods in the opposite order to gold and agrees with",
        ),
        ({"reversed": 3}, f"{CARE}ranks 3 of 10 pairs of methods in the opposite order to gold and agrees with"),
        ({"beside_longer": "none"}, f"is not shown to agree with the labels more often {THAN}"),
        ({"beside_longer": "below"}, f"agrees with the labels less often {THAN}"),
        ({"padded": True}, f"{CARE}prefers padded answers, ranks all"),
        ({"rewarded": ("ppo",)}, f"{CARE}is the very reward that ppo learned from or picked by, ranks all"),
        ({"other": "poe_rm", "pairs": 3}, "The judge ranks all 3 pairs of methods as the judge poe_rm does and"),
    ],
)
def test_how_far_to_trust_the_judge(changed: Mapping[str, Any], words: str) -> None:
    assert words in said(judge=replace(JUDGED, **changed))


def test_what_is_not_known_is_left_out() -> None:
    assert summarise(NOTHING) == []
    unknown = OfJudge("rm", None, None, None, None, "", 0, 0, ())
    assert summarise(replace(NOTHING, judge=unknown)) == []
    assert not any("judge" in line for line in answered({BASE: 0.0, DPO: 1.0}).summary if line.startswith("Read"))


def test_gold_alone_is_said() -> None:
    assert read_report(PUBLISHED / "ppo").summary[-1] == "Answers are judged by gold alone, which knows the right ones."


def test_reward_models_alone() -> None:
    found = replace(
        NOTHING,
        beside_longer=BesideLonger(("a",), ("b",), ("c",)),
        first=(First(MetricKey("accuracy"), "reward", ("a",), 0.7, above=("b", "c")),),
    )
    assert summarise(found) == [
        "Accuracy beside that of preferring the longer answer: above: a; below: b; not shown to be above: c.",
        "By accuracy on the labels, a is first (0.700), shown to be above all others.",
    ]
    assert all("rm" in line for line in read_report(PUBLISHED / "debias").summary)


def changed_claims(report: Report, decision: Any) -> Report:
    return report.model_copy(update={"claims": [replace(one, decision=decision) for one in report.claims]})


def test_a_lead_rests_on_claims_alone() -> None:
    report = answered({BASE: 0.0, DPO: 4.0, KTO: 1.0})
    (first,) = find(report).first
    assert (first.labels, first.above) == (("dpo",), ("kto",))
    (without,) = find(changed_claims(report, "none")).first
    assert (without.above, without.unclear) == ((), ("kto",))


def test_equal_length_needs_every_checkpoint() -> None:
    report = answered({BASE: 0.0, **dict.fromkeys(seeds(DPO), 0.7)})
    before = find(report).lengths
    assert before is not None
    assert before.preferred == ("dpo",)
    low = Estimate(0.6, 0.4, 0.8, 60)
    results = [
        one.model_copy(update={"metrics": one.metrics.model_copy(update={"win_rate_length_controlled": low})})
        if one.cell == CellId("dpo", seed=1)
        else one
        for one in report.results
    ]
    after = find(report.model_copy(update={"results": results})).lengths
    assert after is not None
    assert (after.preferred, after.controlled) == ((), ("dpo",))
