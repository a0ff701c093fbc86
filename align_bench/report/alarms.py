"""What makes the other numbers of a report hard to believe, said before all of them.

An alarm is a function here: it takes what the report knows, and gives an `Alarm` where a number is beyond a threshold.
A threshold of a share or a distance is set where no sound run of the packaged suites, and of real preferences, comes
near it; judges are held to what was tested of them, and a sound one may fail that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from align_bench.records import Estimate
from align_bench.report.decision import ALPHA
from align_bench.report.formatting import interval, number, one_line, p_value, signed
from align_bench.report.provenance import split_path
from align_bench.report.schema import (
    AgainstLonger,
    Alarm,
    AlarmKind,
    BaseFacts,
    DataFacts,
    Header,
    MethodCheck,
    Result,
)

CHANCE = 0.5  # what a coin agrees with labels on
ONE_SIDED = 0.95  # a fair order has one half; real sets stay between 0.4 and 0.6
CONTRADICTORY = 0.02  # copies of a row whose labels differ; none in the embedded set
DUPLICATED = 0.1  # copies of earlier rows; none in the embedded set
IN_TRAIN = 0.01  # a few short prompts, such as a greeting, stand in both sets by chance
OTHER_DATA = 0.2  # of one origin it is below 0.06, even with 24 rows; planted against real answers it is above 0.5
UNIFORM = 0.7  # share of ln(vocabulary): a chat model is below 0.3 on its own language, guessing at random is 1
MISSING = 0.01  # share of pairs without a finite score; a sound model scores every text that it can read
TIED = 0.99  # a reward model that learned anything gives two answers one score on fewer pairs
UNLEARNED = 1e-4  # nats per token; the smallest useful trainings are a hundred times above
DRIFTED = 0.5  # nats per token; preference training stays below 0.2, over-optimised policies are above 0.5
REPEATED = 0.2  # share of 4-grams above the base's: long answers repeat themselves, but hardly more than the base's
ENDLESS, ENDING = 0.9, 0.1  # a policy that ended its answers before training, and no longer does
CUT_OFF = 0.1  # above it, lengths, judges and win rates are those of beginnings of answers
FEWEST = 20  # rows or answers; a share of fewer says little


def alarms(header: Header, results: Sequence[Result], beside_longer: Sequence[AgainstLonger]) -> list[Alarm]:
    """Every alarm: first of the data and the base, then of methods and judges, then of policies.

    Args:
        header: what was run.
        results: of all cells.
        beside_longer: every judge and reward model against preferring the longer answer.
    """
    done = [one for one in results if one.status == "done"]
    base = next((one for one in done if one.kind == "base"), None)
    policies = [one for one in done if one.kind == "policy"]
    settings = header.suite.settings
    return [
        *(
            alarm
            for split, facts in header.data.items()
            for alarm in data_alarms(split, facts, instead_of_train(settings, split))
        ),
        *(base_alarms(header.base, base) if base else ()),
        *map(failed_check, header.failed_checks),
        *(alarm for one in beside_longer for alarm in judge_alarms(one)),
        *(alarm for one in done for alarm in missing_scores(one, base)),
        *(alarm for one in done for alarm in reward_alarms(one)),
        *(alarm for one in policies for alarm in policy_alarms(one, base)),
        *(alarm for one in ([base] if base and policies else []) + policies for alarm in cut_off(one)),
    ]


def data_alarms(split: str, facts: DataFacts, source: str) -> Iterator[Alarm]:
    """Of one split of the data: its labels, what it shares with `train`, and whether it is of another kind.

    Args:
        split: `train`, `val`, a judge's cell, ….
        facts: what the report knows of it.
        source: where it is from, for the sentence.
    """
    yield from one_sided_labels(split, facts)
    yield from repeated_rows(split, facts)
    yield from validation_in_training(split, facts)
    yield from other_data(split, facts, source)


def one_sided_labels(split: str, facts: DataFacts) -> Iterator[Alarm]:
    """Nearly all labels on one side."""
    checked = facts.checked
    if checked is None or checked.labels is None or checked.labels_first is None or checked.labels < FEWEST:
        return
    first = checked.labels_first / checked.labels
    share, unpaired = max(first, 1 - first), "unpaired" in facts.shape
    if share > ONE_SIDED:
        sides = ("desirable", "undesirable") if unpaired else ("the first answer", "the second answer")
        yield Alarm(
            kind="one-sided labels",
            about=split,
            found=share,
            threshold=ONE_SIDED,
            sentence=f"{split}: {number(share)} of its {checked.labels:,} labels say {sides[first < 0.5]} "
            f"(alarm above {ONE_SIDED})",
            cure="give rows of both labels"
            if unpaired
            else "check which column holds the preference, and whether answers were shuffled before they were labelled",
        )


def repeated_rows(split: str, facts: DataFacts) -> Iterator[Alarm]:
    """Rows that contradict each other, and copies; known once the report has examined the texts."""
    found = facts.examined
    if found is None or found.rows < FEWEST:
        return
    if (share := found.contradictions / found.rows) > CONTRADICTORY:
        yield Alarm(
            kind="contradictory rows",
            about=split,
            found=share,
            threshold=CONTRADICTORY,
            sentence=f"{split}: {number(share)} of its {found.rows:,} rows have the other label in another row "
            f"(alarm above {CONTRADICTORY})",
            cure="drop them, or label them again: nothing can learn both labels; align-bench data shows which",
        )
    if (share := found.duplicates / found.rows) > DUPLICATED:
        yield Alarm(
            kind="duplicate rows",
            about=split,
            found=share,
            threshold=DUPLICATED,
            sentence=f"{split}: {number(share)} of its {found.rows:,} rows are copies of earlier ones "
            f"(alarm above {DUPLICATED})",
            cure="drop all but the first: a copy counts once more in training and in means",
        )


def validation_in_training(split: str, facts: DataFacts) -> Iterator[Alarm]:
    """Prompts that are measured on and trained on."""
    rows, checked = facts.tokens.get("kept", 0), facts.checked
    if split.startswith("judge") or checked is None or not checked.prompts_in_train or not rows:
        return
    share = checked.prompts_in_train / rows
    if share > IN_TRAIN:
        yield Alarm(
            kind="validation in training",
            about=split,
            found=share,
            threshold=IN_TRAIN,
            sentence=f"{split}: the prompts of {number(share)} of its {rows:,} rows are also prompts of train "
            f"(alarm above {IN_TRAIN})",
            cure="split the rows by prompt, or give data.val a file of its own",
        )


def other_data(split: str, facts: DataFacts, source: str) -> Iterator[Alarm]:
    """A judge whose rows are not of the kind that policies learn from."""
    checked = facts.checked
    if not split.startswith("judge") or checked is None or checked.distance is None:
        return
    beyond = checked.distance - (checked.distance_by_chance or 0.0)
    if beyond > OTHER_DATA:
        yield Alarm(
            kind="other data",
            about=split,
            found=beyond,
            threshold=OTHER_DATA,
            sentence=f"{split} is trained on other data than the policies ({source}): its tokens are distributed "
            f"otherwise, by a total variation of {number(beyond)} more than chance makes (alarm above {OTHER_DATA})",
            cure="train the judge on rows of the policies' own data, kept apart by judge.data.skip",
        )


def base_alarms(facts: BaseFacts, base: Result) -> Iterator[Alarm]:
    """A base that finds the validation answers about as likely as random tokens."""
    mean = base.metrics.reward_mean.value
    if mean is None or facts.vocabulary is None or facts.vocabulary < 2:
        return
    share = -mean / math.log(facts.vocabulary)
    if share > UNIFORM:
        yield Alarm(
            kind="shifted tokens",
            about=base.name,
            found=share,
            threshold=UNIFORM,
            sentence=f"base: to the validation answers it gives a mean log-probability of {number(mean)} nats per "
            f"token, {number(share)} of guessing among its {facts.vocabulary:,} tokens (alarm above {UNIFORM})",
            cure="check that the folder's tokenizer and chat template are those that the base was trained with, and "
            "that it knows the language",
        )


def failed_check(failed: MethodCheck) -> Alarm:
    """A loss that pulls the wrong way, whose rewards do not follow it, or that is not finite at extreme margins."""
    kinds: dict[str, AlarmKind] = {"signs": "flipped sign", "rewards": "wrong rewards", "extremes": "not finite"}
    return Alarm(
        kind=kinds[failed.check],
        about=str(failed.cell),
        found=None,
        threshold=None,
        sentence=f"{failed.cell}, before its first step: {one_line(failed.found)}",
        cure=f"{one_line(failed.hint)}; align-bench check shows all checks",
    )


def judge_alarms(found: AgainstLonger) -> Iterator[Alarm]:
    """A judge or reward model that the labels do not bear out; being at chance, it is not asked about length."""
    if found.accuracy.value is None:
        return
    at_chance = list(judge_at_chance(found.scorer, found.accuracy))
    yield from at_chance or judge_by_length(found)


def judge_at_chance(scorer: str, accuracy: Estimate) -> Iterator[Alarm]:
    """One whose agreement with the labels has an interval that reaches ½."""
    value, low, high = accuracy.value, accuracy.low, accuracy.high
    if value is None or (value > CHANCE and (low is None or low > CHANCE)):
        return
    below = high is not None and high < CHANCE
    shown = "" if low is None or high is None else f" [{number(low)}, {number(high)}]"
    yield Alarm(
        kind="judge at chance",
        about=scorer,
        found=value,
        threshold=CHANCE,
        sentence=f"{scorer} agrees with the labels on {number(value)}{shown} of {accuracy.n:,} pairs, "
        f"{'worse than chance' if below else 'not shown to be better than chance'} (alarm unless above {CHANCE})",
        cure="check which answer the labels prefer (align-bench data FILE), then train it on more rows or at a higher "
        "learning rate",
    )


def judge_by_length(found: AgainstLonger) -> Iterator[Alarm]:
    """One that was not shown to be better than preferring the longer answer."""
    if found.difference is None or found.decision == "above":
        return
    what = {"below": "worse", "none": "not shown to be better"}.get(found.decision, "not tested to be better")
    yield Alarm(
        kind="judge by length",
        about=found.scorer,
        found=found.accuracy.value,
        threshold=found.longer_wins.value,
        sentence=f"{found.scorer} is {what} than preferring the longer answer: right on "
        f"{number(found.accuracy.value)} of {found.n:,} pairs, the other on {number(found.longer_wins.value)}, "
        f"difference {signed(found.difference)} {interval(found.low, found.high)}, Holm p {p_value(found.p_holm)} "
        f"(alarm unless above it with p below {ALPHA})",
        cure="read win rates at equal length and gold accuracy beside its scores; use a debiased reward model, or more "
        "validation pairs",
    )


def missing_scores(result: Result, base: Result | None) -> Iterator[Alarm]:
    """A judge or reward model without a finite score of both answers of many pairs that the base has read."""
    pairs = 0 if base is None else base.metrics.reward_mean.n
    missing = pairs - result.metrics.tie_rate.n
    if result.kind != "reward" or pairs < FEWEST or missing / pairs <= MISSING:
        return
    yield Alarm(
        kind="missing scores",
        about=result.name,
        found=missing / pairs,
        threshold=MISSING,
        sentence=f"{result.name} has no finite score of both answers of {number(missing / pairs)} of {pairs:,} pairs "
        f"(alarm above {MISSING})",
        cure="lower its learning rate, or raise precision; of a loaded judge, check how long a text it can read",
    )


def reward_alarms(result: Result) -> Iterator[Alarm]:
    """A reward model that gives every answer the same score."""
    tied = result.metrics.tie_rate
    if result.kind != "reward" or tied.value is None or tied.n < FEWEST or tied.value <= TIED:
        return
    yield Alarm(
        kind="equal scores",
        about=result.name,
        found=tied.value,
        threshold=TIED,
        sentence=f"{result.name} gives both answers the same score on {number(tied.value)} of {tied.n:,} pairs "
        f"(alarm above {TIED})",
        cure="raise its learning rate or its number of steps; check that its loss reads its scores",
    )


def policy_alarms(result: Result, base: Result | None) -> Iterator[Alarm]:
    """A policy that learned nothing, or that fell apart."""
    yield from nothing_learned(result)
    yield from drifted_away(result)
    if base is not None:
        yield from repeats_itself(result, base)
        yield from never_ends(result, base)


def nothing_learned(result: Result) -> Iterator[Alarm]:
    """A trained policy that is still the base, or still what it starts from."""
    before = "what it starts from" if result.chain else "the base"
    moved = (result.metrics.kl_from_start_per_token if result.chain else result.metrics.kl_per_token).value
    if result.kind != "policy" or not result.trainable or moved is None or moved >= UNLEARNED:
        return
    yield Alarm(
        kind="nothing learned",
        about=result.name,
        found=moved,
        threshold=UNLEARNED,
        sentence=f"{result.name} is still {before}: KL {moved:.2g} nats per token (alarm below {UNLEARNED:g})",
        cure="raise its learning rate or its number of steps; check that its loss reads the log-probabilities",
    )


def drifted_away(result: Result) -> Iterator[Alarm]:
    """A policy whose own tokens the base finds next to impossible."""
    moved = result.metrics.kl_per_token.value
    if moved is None or moved <= DRIFTED:
        return
    yield Alarm(
        kind="drifted away",
        about=result.name,
        found=moved,
        threshold=DRIFTED,
        sentence=f"{result.name} has collapsed: KL {number(moved)} nats per token from the base "
        f"(alarm above {DRIFTED})",
        cure="lower its learning rate or its steps, or raise its KL coefficient (beta, kl_weight)",
    )


def repeats_itself(result: Result, base: Result) -> Iterator[Alarm]:
    """A policy whose answers say the same again and again, where the base's do not."""
    own, before = result.metrics.repetition, base.metrics.repetition
    if own.value is None or own.n < FEWEST or own.value - (before.value or 0.0) <= REPEATED:
        return
    beyond = own.value - (before.value or 0.0)
    yield Alarm(
        kind="repeats itself",
        about=result.name,
        found=beyond,
        threshold=REPEATED,
        sentence=f"{result.name} has collapsed: its answers have said {number(own.value)} of their 4-grams before, "
        f"{number(beyond)} more than the base's (alarm above {REPEATED})",
        cure="lower its learning rate or its steps, or raise its KL coefficient (beta, kl_weight)",
    )


def never_ends(result: Result, base: Result) -> Iterator[Alarm]:
    """A policy that has forgotten how to end an answer."""
    own, before = result.metrics.unfinished_share, base.metrics.unfinished_share
    if own.value is None or before.value is None or own.n < FEWEST or own.value < ENDLESS or before.value > ENDING:
        return
    yield Alarm(
        kind="never ends",
        about=result.name,
        found=own.value,
        threshold=ENDLESS,
        sentence=f"{result.name} has collapsed: {number(own.value)} of its answers run into the token limit, "
        f"{number(before.value)} of the base's (alarm from {ENDLESS}, where the base has at most {ENDING})",
        cure="train on whole answers (data.train.too_long: drop, or a larger train.max_length), or lower its learning "
        "rate",
    )


def cut_off(result: Result) -> Iterator[Alarm]:
    """Answers that end at the token limit."""
    share = result.metrics.unfinished_share
    if share.value is None or share.n < FEWEST or share.value <= CUT_OFF:
        return
    yield Alarm(
        kind="cut-off answers",
        about=result.name,
        found=share.value,
        threshold=CUT_OFF,
        sentence=f"{result.name}: {number(share.value)} of its answers were truncated at the token limit "
        f"(alarm above {CUT_OFF})",
        cure="raise generate.max_new_tokens",
    )


def instead_of_train(settings: Mapping[str, object], split: str) -> str:
    """Where the rows of a split are from, and those of the policies, by the suite's settings."""
    return f"{split_path(settings, split) or split} instead of {split_path(settings, 'train') or 'train'}"
