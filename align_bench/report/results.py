"""The result of each cell: how it ended, and its metrics."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

from align_bench.metrics.accuracy import accuracy, clustered_share, gold_accuracy, longer_wins, share, tie_rate
from align_bench.metrics.clusters import Clusters, pair_mean
from align_bench.metrics.diversity import distinct, mean_repetition
from align_bench.metrics.length import mean_characters, mean_words
from align_bench.metrics.length_bias import length_correlation
from align_bench.metrics.mean import mean
from align_bench.metrics.readability import mean_grade
from align_bench.metrics.reward import margin, reward_mean, reward_std
from align_bench.metrics.win_rate import win_rate
from align_bench.records import Estimate, PairTexts
from align_bench.report.cells import ByGold, Cell, Column, log_ratio, logp_mean, proxies_of
from align_bench.report.policies import kl_per_token, length_controlled, length_gain
from align_bench.report.rows import AttackedScores, ScoredAnswer, ScoreRow
from align_bench.report.schema import UNDEFINED, Attacked, Baselines, JudgeReward, Metrics, ProxyReward, Result
from align_bench.suite.names import GOLD


def result(cell: Cell, base: Cell | None, judges: Sequence[str], start: Cell | None = None) -> Result:
    """A cell's result.

    Args:
        cell, base, judges, start: as in `metrics`.
    """
    outcome = cell.outcome
    return Result(
        cell=outcome.cell,
        name=cell.name,
        algorithm=outcome.algorithm,
        kind=outcome.kind,
        parameters=dict(outcome.parameters),
        seed=outcome.seed,
        status=outcome.status,
        reason=outcome.reason,
        reward=outcome.reward,
        metrics=metrics(cell, base, judges, start),
        cost=outcome.cost,
        trainable=outcome.trainable,
        warnings=list(outcome.warnings),
        remarks=list(outcome.remarks),
        adapter=outcome.adapter,
        start=outcome.start,
        chain=list(outcome.chain),
    )


def metrics(cell: Cell, base: Cell | None, judges: Sequence[str], start: Cell | None = None) -> Metrics:
    """Every metric of a cell. Of a prompt's samples the mean is taken first; win rates are between single answers.

    Args:
        cell: the cell.
        base: the base's cell, if it finished.
        judges: the reward judges; wins and gains are by the first one.
        start: the cell that it starts from, if there is one and it finished.
    """
    (chosen, rejected), pairs = cell.rewards, cell.pair_prompts
    prompts, texts = cell.prompts, [answer.text for answer in cell.generations]
    by_label, by_gold = _length_correlations(cell)
    judged = [_judged(cell, judge) for judge in judges]
    gain = length_gain(cell, base, judges)
    distinct_1, distinct_2, distinct_3 = distinct(texts, (1, 2, 3))
    return Metrics(
        accuracy=accuracy(chosen, rejected, pairs),
        tie_rate=tie_rate(chosen, rejected, pairs),
        accuracy_chosen_longer=_accuracy_where(cell.scores, operator.gt),
        accuracy_chosen_shorter=_accuracy_where(cell.scores, operator.lt),
        accuracy_gold_choice=_accuracy_by_gold(cell.by_gold()),
        accuracy_right_shorter=_accuracy_by_gold(cell.right_shorter()),
        length_correlation_given_label=by_label,
        length_correlation_given_gold=by_gold,
        attacked=_attacked(cell.scores),
        accuracy_logp_mean=_accuracy_of(cell, logp_mean),
        accuracy_logratio=_accuracy_of(cell, log_ratio) if cell.outcome.kind == "policy" else UNDEFINED,
        log_ratio_chosen=_log_ratio_of(cell, 0),
        log_ratio_rejected=_log_ratio_of(cell, 1),
        reward_mean=reward_mean(chosen, rejected, pairs),
        reward_std=reward_std(chosen, rejected, prompts=pairs),
        margin=margin(chosen, rejected, pairs),
        judge_reward_mean=judged[0].mean if judged else UNDEFINED,
        judge_reward_std=judged[0].std if judged else UNDEFINED,
        other_judges=tuple(judged[1:]),
        proxies=tuple(
            ProxyReward(reward=name, mean=mean(cell.proxied(name), prompts)) for name in proxies_of(cell.generations)
        ),
        gold_accuracy=_gold(cell),
        win_rate_vs_base=_win_rate(cell, base, judges),
        length_words=mean_words(texts, prompts),
        length_characters=mean_characters(texts, prompts),
        length_tokens=mean([answer.tokens for answer in cell.generations], prompts),
        readability_grade=mean_grade(texts, prompts),
        distinct_1=distinct_1,
        distinct_2=distinct_2,
        distinct_3=distinct_3,
        repetition=mean_repetition(texts, prompts),
        unfinished_share=_share([not answer.finished for answer in cell.generations], cell),
        win_rate_length_controlled=length_controlled(cell, base, judges),
        judge_gain=gain.total,
        judge_gain_within_length=gain.within,
        judge_gain_between_length=gain.between,
        kl=mean([answer.kl for answer in cell.generations], prompts),
        kl_per_token=kl_per_token(cell),
        log_ratio=mean([log_ratio(answer) for answer in cell.generations], prompts),
        kl_from_start=mean([answer.start_kl for answer in cell.generations], prompts),
        kl_from_start_per_token=kl_per_token(cell, lambda answer: answer.start_kl),
        win_rate_vs_start=_win_rate(cell, start, judges),
    )


def baselines(cells: Sequence[Cell], pairs: Sequence[PairTexts] = ()) -> Baselines:
    """What needs no training, over the distinct validation pairs.

    Args:
        cells: all cells.
        pairs: rows of `pairs.parquet`.
    """
    rows = list({row.pair: row for cell in cells for row in cell.scores}.values())
    prompts = [row.prompt for row in rows]
    agrees = [float(row.gold_choice == 1) if row.gold_choice in (1, 2) else None for row in rows]
    return Baselines(
        longer_wins=longer_wins([row.chosen_words for row in rows], [row.rejected_words for row in rows], prompts),
        labels_agree_with_gold=clustered_share(agrees, prompts),
        labels_knowable=_knowable([pair.label_probability for pair in pairs]),
    )


def _knowable(probabilities: Sequence[float | None]) -> Estimate:
    """The accuracy of the labels' true probabilities on these pairs, on average over draws; so it has no interval."""
    known = [max(own, 1 - own) for own in probabilities if own is not None]
    return Estimate(sum(known) / len(known), n=len(known)) if known else UNDEFINED


def _accuracy_where(rows: Sequence[ScoreRow], holds: Callable[[int, int], bool]) -> Estimate:
    kept = [
        row
        for row in rows
        if row.chosen_words is not None
        and row.rejected_words is not None
        and holds(row.chosen_words, row.rejected_words)
    ]
    return accuracy(
        [row.chosen_reward for row in kept], [row.rejected_reward for row in kept], [row.prompt for row in kept]
    )


def _accuracy_by_gold(pairs: Sequence[ByGold]) -> Estimate:
    return accuracy(
        [pair.right.reward for pair in pairs],
        [pair.wrong.reward for pair in pairs],
        [pair.prompt for pair in pairs],
    )


def _accuracy_of(cell: Cell, measure: Callable[[ScoredAnswer], float | None]) -> Estimate:
    chosen, rejected = ([measure(side) for side in sides] for sides in cell.sides)
    return accuracy(chosen, rejected, cell.pair_prompts)


def _log_ratio_of(cell: Cell, side: int) -> Estimate:
    """How much likelier a policy makes the chosen (0) or rejected (1) answers than the base does."""
    if cell.outcome.kind != "policy":
        return UNDEFINED
    return pair_mean([log_ratio(answer) for answer in cell.sides[side]], cell.pair_prompts)


def _length_correlations(cell: Cell) -> tuple[Estimate, Estimate]:
    """Given the label, and given gold; of reward models alone: a policy's own reward is often a sum over tokens."""
    if cell.outcome.kind != "reward":
        return UNDEFINED, UNDEFINED
    gold = cell.by_gold()
    return (
        length_correlation(*cell.rewards, *cell.words, cell.pair_prompts),
        length_correlation(
            [pair.right.reward for pair in gold],
            [pair.wrong.reward for pair in gold],
            [pair.right.words for pair in gold],
            [pair.wrong.words for pair in gold],
            [pair.prompt for pair in gold],
        ),
    )


def _attacked(rows: Sequence[ScoreRow]) -> tuple[Attacked, ...]:
    scores = [{attack.epsilon: attack for attack in row.attacked} for row in rows]
    prompts = [row.prompt for row in rows]
    sizes = dict.fromkeys(attack.epsilon for row in rows for attack in row.attacked if attack.chosen_reward is not None)
    return tuple(
        Attacked(epsilon=epsilon, accuracy=_accuracy_under([own.get(epsilon) for own in scores], prompts))
        for epsilon in sizes
    )


def _accuracy_under(attacks: Sequence[AttackedScores | None], prompts: Clusters) -> Estimate:
    """Accuracy of the pairs' scores under one attack; None of a pair that it was not tried on."""
    return accuracy(
        [None if attack is None else attack.chosen_reward for attack in attacks],
        [None if attack is None else attack.rejected_reward for attack in attacks],
        prompts,
    )


def _judged(cell: Cell, judge: str) -> JudgeReward:
    return JudgeReward(judge=judge, mean=mean(cell.judged(judge), cell.prompts), std=reward_std(*_samples(cell, judge)))


def _samples(cell: Cell, judge: str) -> list[Column]:
    """The judge's scores, a column per sample and a row per prompt, as `reward_std` takes them."""
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


def _win_rate(cell: Cell, other: Cell | None, judges: Sequence[str]) -> Estimate:
    if other is None or cell.outcome.kind != "policy" or not judges:
        return UNDEFINED
    return win_rate(cell.samples_by_prompt(judges[0]), other.samples_by_prompt(judges[0]))
