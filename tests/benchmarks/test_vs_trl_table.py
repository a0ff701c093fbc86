"""What `benchmarks/vs_trl.py` makes of measurements: ratios, verdicts, and a refusal to time unequal work."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import vs_trl_table as table

OURS: dict[str, Any] = {
    "seconds": [1.0, 2.0, 4.0],
    "tokens": [100, 200, 100],
    "peak_bytes": 1_000_000_000,
    "resting_bytes": 1,
}
THEIRS: dict[str, Any] = {
    "seconds": [4.0, 10.0, 12.0],
    "tokens": [100, 200, 100],
    "peak_bytes": 2_500_000_000,
    "resting_bytes": 1,
}


def part(**sides: Any) -> dict[str, Any]:
    return {"sides": sides}


def cells(row: table.Row) -> dict[str, str]:
    return dict(zip(table.TIMES, row, strict=True))


def test_ratios_are_made_repeat_by_repeat() -> None:
    """4, 5 and 3 times: their median is 4, while the medians' ratio would be 5."""
    assert table.ratios(THEIRS["seconds"], OURS["seconds"]) == table.Spread(4.0, 3.0, 5.0)
    assert statistics.median(THEIRS["seconds"]) / statistics.median(OURS["seconds"]) == 5.0


def test_a_row_shows_medians_ranges_rates_and_what_was_reached() -> None:
    (row,) = table.times({"simpo": part(ours=OURS, trl=THEIRS)})
    assert cells(row) == {
        "what": "simpo, a step",
        "align-bench": "2.00 (1.00–4.00) s, 100 tokens/s",
        "TRL": "10.0 (4.00–12.0) s, 20 tokens/s",
        "times faster": "4.00 (3.00–5.00)",
        "gate": "2.5",
        "goal": "6",
        "reached": "gate",
    }


def test_a_step_is_held_against_trls_with_its_reference_pass() -> None:
    """TRL's steps compute the reference: what is judged is like against like, and the step alone is shown below it."""
    measured = {**OURS, "reference_seconds": [1.0, 0.5, 0.0]}
    whole, step = table.times({"dpo": part(ours=measured, trl=THEIRS)})
    assert cells(whole)["what"] == "dpo, a step with its reference pass"
    assert cells(whole)["align-bench"].startswith("2.50 (2.00–4.00) s")  # 1 + 1, 2 + ½, 4
    assert cells(whole)["times faster"] == "3.00 (2.00–4.00)"  # 4/2, 10/2.5, 12/4
    assert cells(whole)["reached"] == "gate"
    assert cells(step)["times faster"].startswith("4.00")
    assert cells(step)["reached"] == ""


def test_five_methods_are_summed_repeat_by_repeat() -> None:
    parts = {name: part(ours=OURS, trl=THEIRS) for name in table.METHODS}
    parts["dpo"] = part(ours={**OURS, "reference_seconds": [5.0, 0.0, 0.0]}, trl=THEIRS)
    parts.pop("rm")
    assert "five methods" not in " ".join(cells(row)["what"] for row in table.times(parts))
    parts["rm"] = part(ours=OURS, trl=THEIRS)
    five = next(row for row in table.times(parts) if row[0].startswith("five methods"))
    assert cells(five)["align-bench"] == "10.0 (10.0–20.0) s"  # 5·1 + 5, 5·2, 5·4
    assert cells(five)["times faster"] == "3.00 (2.00–5.00)"  # 20/10, 50/10, 60/20
    assert cells(five)["reached"] == "gate"


def test_five_methods_share_the_pass_over_the_answers_and_kto_pays_for_mismatched_ones() -> None:
    parts = {name: part(ours=OURS, trl=THEIRS) for name in table.METHODS}
    parts["dpo"] = part(ours={**OURS, "reference_seconds": [3.0, 3.0, 3.0]}, trl=THEIRS)
    parts["kto"] = part(
        ours={**OURS, "reference_seconds": [4.0, 2.0, 3.0], "mismatched_seconds": [1.0, 1.0, 2.0]}, trl=THEIRS
    )
    rows = {row[0]: cells(row)["align-bench"] for row in table.times(parts)}
    assert rows["five methods, with reference passes"] == "14.0 (10.0–25.0) s"  # 5+1+4, 10+1+3, 20+2+3
    assert rows["kto, a step with its reference pass"].startswith("6.00 (5.00–9.00)")  # 1+4+1, 2+2+1, 4+3+2


def test_scoring_is_held_against_others_with_both_passes() -> None:
    ours = {**OURS, "policy_seconds": [1.0, 1.0, 1.0], "both_seconds": [2.0, 2.0, 2.0]}
    naive = {**OURS, "policy_seconds": [1.5, 1.5, 1.5], "both_seconds": [3.0, 3.0, 3.0]}
    theirs = {**THEIRS, "seconds": [12.0, 12.0, 12.0]}
    rows = table.times({"scoring": part(ours=ours, naive=naive, trl=theirs)})
    assert [cells(row)["times faster"].split()[0] for row in rows] == ["6.00", "1.50", "12.0", "1.50"]
    assert [cells(row)["reached"] for row in rows] == ["gate", "below", "", ""]
    assert ["both passes" in cells(row)["what"] for row in rows] == [True, True, False, False]


def test_online_methods_are_compared_by_the_token() -> None:
    """1, 2 and 4 s for 100, 200 and 100 tokens, ours; TRL's have half the tokens, which makes them twice as dear."""
    theirs = {**THEIRS, "tokens": [50, 100, 50]}
    parts = {"online": part(ours=OURS, trl=theirs, **{"ours, ppo": theirs}), "grpo": part(ours=theirs, trl=OURS)}
    rows = table.times(parts)
    assert cells(rows[0])["align-bench"] == "10.0 (10.0–40.0) s per 1,000 tokens"
    assert [cells(row)["times faster"].split()[0] for row in rows] == ["8.00", "1.00", "0.125"]
    assert [cells(row)["reached"] for row in rows] == ["goal", "", "below"]
    assert "another method" in cells(rows[1])["what"]


def online_log(**changes: Any) -> dict[str, Any]:
    return {"rows": "a", "reward": [0.5, 0.4], "gradient_norm": [1.0, 2.0], **changes}


def test_online_methods_agree_on_given_answers_or_have_no_time() -> None:
    same = {"ours": online_log(), "trl": online_log(), "ours, ppo": online_log(gradient_norm=[9.0, 9.0])}
    assert table.check_online("online", "float32", same) == {"reward": 0, "gradient_norm": 0}
    for side, changes, words in (
        ("trl", {"rows": "b"}, "the two sides read other rows"),
        ("ours", {"gradient_norm": [1.0, 2.1]}, "online in float32: gradient_norm"),
        ("ours", {"reward": [0.5, 0.41]}, "online in float32: reward"),
    ):
        with pytest.raises(table.UnequalError, match=words):
            table.check_online("online", "float32", {**same, side: online_log(**changes)})
    del same["ours"]  # PPO, which TRL does not have, is compared with nothing
    assert table.check_online("online", "float32", same) == {}


def test_memory_is_a_ratio_of_peaks() -> None:
    small = {**THEIRS, "peak_bytes": 2_400_000_000}
    rows = table.memories({"dpo": part(ours=OURS, trl=THEIRS, **{"trl, checkpointing": small})})
    assert rows == [
        ("dpo, a step", "1,000", "2,500", "2.50", "3", "5", "below"),
        ("dpo, TRL with gradient checkpointing", "1,000", "2,400", "2.40", "2.3", "3.5", "gate"),
    ]


@pytest.mark.parametrize(("ratio", "words"), [(2.99, "below"), (3.0, "gate"), (7.99, "gate"), (8.0, "goal")])
def test_verdicts(ratio: float, words: str) -> None:
    assert table.STEP["dpo"].verdict(ratio) == words


def step_log(**changes: Any) -> dict[str, Any]:
    return {"rows": "a", "loss": [0.7, 0.6], "gradient_norm": [1.0, 2.0], "log_odds_ratio": [None, None], **changes}


def test_equal_losses_pass_and_say_how_equal() -> None:
    found = table.check_training("dpo", "float32", step_log(), step_log(loss=[0.7, 0.6006]))
    assert found == {"loss": pytest.approx(0.0006 / 0.6006), "gradient_norm": 0.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": [0.7, 0.61]}, "loss"),
        ({"gradient_norm": [1.0, 2.1]}, "gradient_norm"),
        ({"loss": [0.7, float("nan")]}, "loss"),
        ({"rows": "b"}, "other rows"),
    ],
)
def test_unequal_work_is_refused(changes: dict[str, Any], words: str) -> None:
    for ours, theirs in ((step_log(), step_log(**changes)), (step_log(**changes), step_log())):
        with pytest.raises(table.UnequalError, match=words):
            table.check_training("dpo", "float32", ours, theirs)


def test_bf16_is_given_its_rounding_and_no_more() -> None:
    table.check_training("dpo", "bfloat16", step_log(), step_log(loss=[0.7, 0.61]))
    with pytest.raises(table.UnequalError, match="bfloat16"):
        table.check_training("dpo", "bfloat16", step_log(), step_log(loss=[0.7, 0.9]))


def test_orpo_is_compared_by_its_first_odds_alone() -> None:
    ours, theirs = step_log(log_odds_ratio=[0.1, 0.2]), step_log(log_odds_ratio=[0.1, 0.9], loss=[3.0, 3.0])
    assert table.check_training("orpo", "float32", ours, theirs) == {"log_odds_ratio": 0.0}
    with pytest.raises(table.UnequalError, match="log_odds_ratio"):
        table.check_training("orpo", "float32", ours, {**theirs, "log_odds_ratio": [0.2, 0.2]})


def test_scoring_must_equal_the_plain_loop_and_trls_loss() -> None:
    right: dict[str, Any] = {"chosen": [-10.0], "rejected": [-20.0], "loss": 0.5}
    sides: dict[str, dict[str, Any]] = {"ours": right, "naive": right, "trl": {"loss": 0.5}}
    assert table.check_scoring("float32", sides) == {"log-probabilities": 0.0, "loss": 0.0}
    for wrong in ({"naive": {**right, "rejected": [-20.5]}}, {"trl": {"loss": 0.6}}):
        with pytest.raises(table.UnequalError):
            table.check_scoring("float32", {**sides, **wrong})


def test_generation_and_the_suite_must_agree_in_fp32() -> None:
    answers = {"answers": [[1, 2], [3]]}
    assert table.check_generation("float32", answers, answers) == {"same answers": 1.0}
    other = {"answers": [[1, 2], [4]]}
    assert table.check_generation("bfloat16", answers, other) == {"same answers": 0.5}
    with pytest.raises(table.UnequalError, match="50%"):
        table.check_generation("float32", answers, other)
    with pytest.raises(table.UnequalError, match="base"):
        table.check_suite("float32", {"accuracies": {"base": 0.5}}, {"accuracies": {"base": 0.6}})


def staged(*repeats: dict[str, float]) -> dict[str, Any]:
    return {**OURS, "seconds": [sum(repeat.values()) for repeat in repeats], "stages": list(repeats)}


def test_a_suites_stages_stand_beside_each_other() -> None:
    """4 + 1 of 10 s and 6 + 2 of 10 s are trained; TRL's scripts have no reference of their own and no report."""
    ours = staged(
        {"loading": 2.0, "reference": 1.0, "training": 4.0, "report": 3.0},
        {"loading": 1.0, "reference": 2.0, "training": 6.0, "report": 1.0},
    )
    theirs = staged(
        {"loading": 10.0, "reference": 0.0, "training": 30.0, "report": 0.0},
        {"loading": 4.0, "reference": 0.0, "training": 16.0, "report": 0.0},
    )
    parts = {"suite": part(ours=ours, trl=theirs)}
    assert table.suite_stages(parts) == [
        ("training and its reference", "6.50", "65%", "23.0", "78%", "4.00 (2.00–6.00)"),
        ("of it the reference", "1.50", "15%", "", "", ""),
        ("loading", "1.50", "15%", "7.00", "22%", "4.50 (4.00–5.00)"),
        ("report", "2.00", "20%", "", "", ""),
    ]
    del ours["stages"]
    assert table.suite_stages(parts) == table.suite_stages({}) == []


def test_the_page_shows_every_precision_and_allocator_apart() -> None:
    measured = {"part": "rm", "compute": "float32", "load": [0.5, 1.0], "equal": {"loss": 1e-7}}
    sides = {"sides": {"ours": OURS, "trl": THEIRS}}
    parts = [
        {**measured, **sides, "precision": precision, "allocator": allocator}
        for precision in ("nf4", "fp32")
        for allocator in ("stock", "tuned (glibc)")
    ]
    spent = {"sides": {"ours": staged({"reference": 1.0, "training": 2.0, "loading": 1.0})}}
    spent["sides"]["trl"] = staged({"reference": 0.0, "training": 15.0, "loading": 2.0})
    parts.append({**measured, **spent, "part": "suite", "precision": "nf4", "allocator": "stock"})
    page = table.markdown(
        {
            "command": "python benchmarks/vs_trl.py",
            "environment": {"processor": "P", "threads": 2, "device": "cpu", "libraries": {"trl": "1"}, "commit": "c"},
            "settings": {
                "base": "b",
                "train": "t",
                "pairs_per_step": 4,
                "max_length": 320,
                "repeats": 3,
                "suite_repeats": 1,
            },
            "parts": parts,
            "failures": ["bf16, stock, orpo: the sides differ"],
        }
    )
    assert "Without a result:\n\n- bf16, stock, orpo: the sides differ\n" in page
    for heading in (
        "nf4 (computes in float32), stock allocator",
        "fp32 (computes in float32), tuned (glibc) allocator",
    ):
        assert f"## {heading}" in page
    assert page.count("| rm, a step | 2.00 (1.00–4.00) s") == 4
    assert "loss 1e-07" in page
    assert "0.5–1.0" in page
    assert page.count("### Where a suite's time goes\n\n| what | align-bench, s | share |") == 1
    assert "| training and its reference | 3.00 | 75% | 15.0 | 88% | 5.00 (5.00–5.00) |" in page
