"""The metrics of each cell."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from align_bench.metrics.accuracy import accuracy, gold_accuracy, longer_wins, share, tie_rate
from align_bench.metrics.diversity import distinct, mean_repetition
from align_bench.metrics.length import mean_characters, mean_words
from align_bench.metrics.length_bias import length_correlation
from align_bench.metrics.mean import mean
from align_bench.metrics.readability import mean_grade
from align_bench.metrics.reward import margin, reward_mean, reward_std
from align_bench.metrics.win_rate import win_rate
from align_bench.records import Estimate
from align_bench.report.cells import GOLD, ByGold, Cell, judge_metric, prompts_of, proxies_of

Row = Mapping[str, Any]
ATTACKED = "accuracy_attacked"


def metrics(cell: Cell, base: Cell | None, judges: Sequence[str]) -> dict[str, Estimate]:
    """Every metric by name; those that the cell has no data for have the value None.

    Args:
        cell: the cell.
        base: the base's cell, if it finished.
        judges: the reward judges; the win rate is by the first one.
    """
    return {**preference_metrics(cell), **generation_metrics(cell, base, judges)}


def preference_metrics(cell: Cell) -> dict[str, Estimate]:
    """Metrics over the validation pairs; lengths in words, log-probabilities in nats.

    `right` is the answer that is right where the other is wrong, known where the data has a gold judge.
    """
    chosen, rejected = cell.column("chosen_reward"), cell.column("rejected_reward")
    no_logratio, prompts, prompt_of = cell.outcome.kind != "policy", cell.pair_prompts, cell.prompt_by_pair()
    return {
        "accuracy": accuracy(chosen, rejected, prompts),
        "tie_rate": tie_rate(chosen, rejected),
        "accuracy_chosen_longer": _accuracy_where(cell.scores, operator.gt),
        "accuracy_chosen_shorter": _accuracy_where(cell.scores, operator.lt),
        "accuracy_gold_choice": _accuracy_by_gold(cell.by_gold(), prompt_of),
        "accuracy_right_shorter": _accuracy_by_gold(cell.right_shorter(), prompt_of),
        **_length_correlations(cell),
        **_accuracy_under_attack(cell),
        "accuracy_logp_mean": accuracy(_logp_mean(cell.scores, "chosen"), _logp_mean(cell.scores, "rejected"), prompts),
        "accuracy_logratio": Estimate(None)
        if no_logratio
        else accuracy(_logratio(cell.scores, "chosen"), _logratio(cell.scores, "rejected"), prompts),
        "reward_mean": reward_mean(chosen, rejected, prompts),
        "reward_std": reward_std(chosen, rejected),
        "margin": margin(chosen, rejected, prompts),
    }


def generation_metrics(cell: Cell, base: Cell | None, judges: Sequence[str]) -> dict[str, Estimate]:
    """Metrics over the generations; samples of one prompt are averaged first."""
    found: dict[str, Estimate] = {"judge_reward_mean": Estimate(None), "judge_reward_std": Estimate(None)}
    for judge in judges:
        found[judge_metric("judge_reward_mean", judge, judges)] = mean(cell.judged(judge), cell.prompts)
        found[judge_metric("judge_reward_std", judge, judges)] = reward_std(*_samples(cell, judge))
    for reward, name in proxies_of(cell.generations).items():
        found[f"proxy_reward_mean[{reward}]"] = mean(cell.judged(name), cell.prompts)
    texts = [answer.text for answer in cell.generations]
    return {
        **found,
        "gold_accuracy": _gold(cell),
        "win_rate_vs_base": _win_rate(cell, base, judges),
        "length_words": mean_words(texts, cell.prompts),
        "length_characters": mean_characters(texts, cell.prompts),
        "length_tokens": mean([answer.tokens for answer in cell.generations], cell.prompts),
        "readability_grade": mean_grade(texts, cell.prompts),
        **{f"distinct_{n}": distinct(texts, n) for n in (1, 2, 3)},
        "repetition": mean_repetition(texts, cell.prompts),
        "unfinished_share": _share([not answer.finished for answer in cell.generations], cell),
    }


def baselines(cells: Sequence[Cell]) -> dict[str, Estimate]:
    """What needs no training, over the distinct validation pairs.

    `longer_wins` prefers the answer with more words; `labels_agree_with_gold` is the share of labels that name the
    right answer, the ceiling of what accuracy can mean.
    """
    rows = {row["pair"]: row for cell in cells for row in cell.scores}
    known = [row for row in rows.values() if row.get("gold_choice") in (1, 2)]
    lengths = [[row.get(f"{side}_words") for row in rows.values()] for side in ("chosen", "rejected")]
    return {
        "longer_wins": longer_wins(*lengths),
        "labels_agree_with_gold": share(sum(row["gold_choice"] == 1 for row in known), len(known)),
    }


def _accuracy_where(rows: Sequence[Row], holds: Callable[[Any, Any], bool]) -> Estimate:
    measured = [row for row in rows if None not in (row.get("chosen_words"), row.get("rejected_words"))]
    kept = [row for row in measured if holds(row["chosen_words"], row["rejected_words"])]
    return accuracy([row["chosen_reward"] for row in kept], [row["rejected_reward"] for row in kept], prompts_of(kept))


def _accuracy_by_gold(pairs: Sequence[ByGold], prompt_of: Mapping[Any, Any]) -> Estimate:
    prompts = [prompt_of.get(pair.pair, ("pair", pair.pair)) for pair in pairs]
    return accuracy([pair.right_reward for pair in pairs], [pair.wrong_reward for pair in pairs], prompts)


def _length_correlations(cell: Cell) -> dict[str, Estimate]:
    """Of reward models alone: a policy's own reward is often a sum over tokens."""
    if cell.outcome.kind != "reward":
        return {f"length_correlation_{given}": Estimate(None) for given in ("given_label", "given_gold")}
    words = cell.column("chosen_words"), cell.column("rejected_words")
    gold = cell.by_gold()
    return {
        "length_correlation_given_label": length_correlation(
            cell.column("chosen_reward"), cell.column("rejected_reward"), *words
        ),
        "length_correlation_given_gold": length_correlation(
            [pair.right_reward for pair in gold],
            [pair.wrong_reward for pair in gold],
            [pair.right_words for pair in gold],
            [pair.wrong_words for pair in gold],
        ),
    }


def _accuracy_under_attack(cell: Cell) -> dict[str, Estimate]:
    """Accuracy by the columns `chosen_reward@ε` and `rejected_reward@ε`, which hold the scores under attack."""
    names = dict.fromkeys(
        name
        for row in cell.scores
        for name, value in row.items()
        if name.startswith("chosen_reward@") and value is not None
    )
    found = {}
    for name in names:
        epsilon = name.removeprefix("chosen_reward@")
        found[f"{ATTACKED}[{epsilon}]"] = accuracy(cell.column(name), cell.column(f"rejected_reward@{epsilon}"))
    return found


def _logp_mean(rows: Sequence[Row], side: str) -> list[float | None]:
    sums = [(row.get(f"{side}_logp"), row.get(f"{side}_tokens")) for row in rows]
    return [logp / tokens if logp is not None and tokens else None for logp, tokens in sums]


def _logratio(rows: Sequence[Row], side: str) -> list[float | None]:
    sums = [(row.get(f"{side}_logp"), row.get(f"ref_{side}_logp")) for row in rows]
    return [None if own is None or reference is None else own - reference for own, reference in sums]


def _samples(cell: Cell, judge: str) -> list[list[float | None]]:
    """The judge's scores, a column a sample and a row a prompt, as `reward_std` takes them."""
    samples = sorted({answer.sample for answer in cell.generations})
    scores = {(answer.prompt_id, answer.sample): answer.scores.get(judge) for answer in cell.generations}
    prompts = list(dict.fromkeys(cell.prompts))
    return [[scores.get((prompt, sample)) for prompt in prompts] for sample in samples] or [[]]


def _gold(cell: Cell) -> Estimate:
    if cell.one_sample:
        return gold_accuracy([score > 0.5 for score in cell.judged(GOLD) if score is not None])
    return mean(cell.judged(GOLD), cell.prompts)


def _share(flags: Sequence[bool], cell: Cell) -> Estimate:
    if cell.one_sample:
        return share(float(sum(flags)), len(flags))
    return mean([float(flag) for flag in flags], cell.prompts)


def _win_rate(cell: Cell, base: Cell | None, judges: Sequence[str]) -> Estimate:
    if base is None or cell.outcome.kind != "policy" or not judges:
        return Estimate(None)
    own: dict[Hashable, float] = cell.judged_by_prompt(judges[0])
    return win_rate(own, base.judged_by_prompt(judges[0]))
