"""What `report.json` holds. All that a report shows is read from these types; JSON is their dump, and nothing else.

Undefined is None (null), never 0. An interval (`low`, `high`) is at 95% unless it is said otherwise. Cells and methods
are ids with fields; how rows, tables and files call a cell is its result's `name`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from align_bench.metrics.calibration import Bin
from align_bench.metrics.distribution import Distribution
from align_bench.metrics.keywords import Keyword
from align_bench.metrics.score_groups import WelchTest
from align_bench.records import CellId, Comparison, Cost, Estimate, Kind, Level, MetricKey, Scalar, Status
from align_bench.report.claims import Claim
from align_bench.suite.models import Tune

VERSION = 1
Edit = Literal["filler", "doubled", "stripped"]


class Block(BaseModel):
    """A part of the report; nothing in it is changed once it is made."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
        defer_build=True,  # a run reads these types when it reports, long after it has begun
    )


# What was run.


class SuiteFacts(Block):
    """The suite."""

    name: str
    quick: bool = False
    """Whether it is a try-out, cut down so that it ends soon: its numbers say nothing of the methods."""
    state: str
    """Hash of all that the report rests on: stages, settings, code and libraries."""
    settings: dict[str, JsonValue]
    """The suite's settings, defaults included."""


class BaseFacts(Block):
    """The base model."""

    name: str
    digest: str
    """SHA-256 of its files."""
    precision: str
    """How weights are stored and computed with, and on what."""
    template_date: str | None = None
    """The day that its chat template writes into prompts, where it writes one."""
    chat_template_kwargs: dict[str, JsonValue] = {}
    """What else its chat template reads beside the turns, as the suite says it."""
    vocabulary: int | None = None
    """Tokens that it knows; None where its configuration does not say."""


class CheckedRows(Block):
    """What was looked for in rows before anything was trained on them."""

    labels: int | None = None
    """Rows whose labels have sides: of answers that are numbered, or unpaired; None where there are none."""
    labels_first: int | None = None
    """Those that prefer the first answer, or call the only one desirable."""
    prompts_in_train: int | None = None
    """Rows whose prompt is also one of `train`; None of `train` itself."""
    distance: float | None = None
    """Total variation between the token frequencies of its answers and those of `train`; of a judge's rows."""
    distance_by_chance: float | None = None
    """The same between two halves of `train`."""


class ExaminedRows(Block):
    """What was found in the texts of the rows that were read, before any was dropped as tokens."""

    rows: int
    duplicates: int
    """Rows whose prompt, answers and label are an earlier row's."""
    near_duplicates: int
    """Further rows whose prompt and answers are each near an earlier row's, by MinHash."""
    contradictions: int
    """Rows whose prompt and answers have the other label in another row."""
    repeated_prompts: int
    """Rows whose prompt is an earlier row's."""
    prompts_in_train: int | None = None
    """Rows whose prompt is also one of `train`; None of `train` itself."""
    prompts_in_val: int | None = None
    """Rows whose prompt is also one of `val`; None of `val` itself."""
    pairs: int
    """Rows with both answers."""
    longer_preferred: int
    """Pairs whose preferred answer has more words."""
    equally_long: int
    """Pairs whose answers have the same number of words."""
    prompt_words: float | None = None
    """Median words of the prompts, all turns together."""
    chosen_words: float | None = None
    rejected_words: float | None = None
    """Median words of the answers of a side."""
    scripts: dict[str, int]
    """Script of most letters → rows, the most frequent one first."""


class DataFacts(Block):
    """One data set, as it was read and tokenised."""

    shape: str
    """The recognised shape, in words."""
    read: dict[str, int]
    """Reason → rows: `read`, `kept` and `dropped: …`."""
    tokens: dict[str, int]
    """Reason → rows: `kept`, `truncated` and `dropped: …`."""
    unread: list[str] = []
    """Columns, and keys of turns, that were not read; none in reports from before they were listed."""
    checked: CheckedRows | None = None
    """None in reports from before rows were checked."""
    examined: ExaminedRows | None = None
    """None in reports from before rows were examined."""


class SharedRows(Block):
    """How many of a judge's training rows are also those of the policies."""

    rows: int
    """The judge's training rows."""
    same_rows: int
    same_prompts: int


class LoadedModelFacts(Block):
    """A reward model that was loaded as it is."""

    model: str
    digest: str
    weights_sha256: str
    template: str
    labels: int
    template_date: str | None = None
    """The day that its chat template writes, where it writes one."""
    chat_template_kwargs: dict[str, JsonValue] = {}
    """What else its chat template reads beside the turns, as the suite says it."""
    truncated: int
    """Answers to validation pairs that were truncated because they are too long for it."""


class JudgeFacts(Block):
    """One judge of the panel."""

    name: str
    cells: list[CellId]
    """Its cell, or one for each member of its ensemble; none for gold."""
    status: Status
    rewarded: list[CellId]
    """Policies that learned from this very reward, or picked by it."""
    overlap: SharedRows | None = None
    """None where it is not trained here."""
    loaded: LoadedModelFacts | None = None
    """None where it is trained here."""


class Environment(Block):
    """The machine and the libraries."""

    align_bench: str
    commit: str | None
    python: str
    system: str
    processor: str
    threads: int
    device: str
    libraries: dict[str, str]
    """Distribution → version."""


# Keywords.


class KeywordList(Block):
    """The terms of highest mean TF-IDF over some texts."""

    of: str
    """Whose: `train`, `label`, or a cell's name."""
    kind: Literal["favoured", "generated"]
    texts: int
    keywords: list[Keyword]


class Keywords(Block):
    """The keywords of favoured answers and of each policy's."""

    segmentation: str
    """What a term is."""
    lists: list[KeywordList]


# Tuning.


class HeldOut(Block):
    """The part of the training rows that trials are measured on."""

    pairs: int
    prompts: int


class Trial(Block):
    """One setting that was tried."""

    cell: CellId
    parameters: dict[str, Scalar]
    seed: int
    status: Status
    reason: str | None
    accuracy: Estimate
    """On the held-out pairs: of scores, or of mean log-probabilities per token."""
    loss: Estimate = Estimate(None)
    """On the held-out pairs, −log σ of the chosen answer's score less the rejected one's, nats; of reward models."""
    training_loss: float | None = None
    """Mean loss of the last quarter of its optimizer steps, in the method's own unit; nothing is chosen by it."""
    cost: Cost | None


class TunedMethod(Block):
    """The trials of one method."""

    method: CellId
    trials: list[Trial]
    kept: int | None
    """Number of the trial whose setting is used; None until all have ended, and for a method without trials."""
    cost: Cost | None
    """Of the trials that finished."""


class Tuning(Block):
    """Every trial, the base beside them, and what all of it cost."""

    settings: Tune
    held_out: HeldOut | None
    base: Estimate | None
    """Accuracy of the base on the held-out pairs, by the measure of policies."""
    methods: list[TunedMethod]
    shared: Cost | None
    """Of what trials share: the rows, and the base's log-probabilities of them."""
    cost: Cost | None
    """Of all trials, with what they share."""


# Results.


class Attacked(Block):
    """Accuracy of a reward model under an attack on its input embeddings."""

    epsilon: float
    """Norm of the step, × the norm of the embeddings."""
    accuracy: Estimate


class JudgeReward(Block):
    """The scores of a judge beside the main one."""

    judge: str
    mean: Estimate
    std: Estimate


class ProxyReward(Block):
    """The scores by a reward model that a policy learned from, or picked by."""

    reward: str
    """The reward model's cell, by its name."""
    mean: Estimate


UNDEFINED = Estimate(None)


class Metrics(Block):
    """Every metric of a cell; undefined where it has no data for it."""

    # Of the validation pairs, by the cell's own reward.
    accuracy: Estimate = UNDEFINED
    """Share of pairs whose chosen answer has the higher reward; a tie counts as ½."""
    tie_rate: Estimate = UNDEFINED
    """Share of pairs whose answers have equal rewards."""
    accuracy_chosen_longer: Estimate = UNDEFINED
    """Accuracy where the chosen answer has more words."""
    accuracy_chosen_shorter: Estimate = UNDEFINED
    """Accuracy where the chosen answer has fewer words."""
    accuracy_gold_choice: Estimate = UNDEFINED
    """Accuracy against the right answer, where the data knows it."""
    accuracy_right_shorter: Estimate = UNDEFINED
    """The same where the right answer has fewer words."""
    length_correlation_given_label: Estimate = UNDEFINED
    """Partial correlation of score with words, given which answer is the chosen one; of reward models."""
    length_correlation_given_gold: Estimate = UNDEFINED
    """The same, given which answer is right."""
    attacked: tuple[Attacked, ...] = ()
    """Accuracy under attack, by the size of the attack."""
    accuracy_logp_mean: Estimate = UNDEFINED
    """Accuracy of the mean log-probability per token; of policies and the base."""
    accuracy_logratio: Estimate = UNDEFINED
    """Accuracy of the log-ratio to the base; of policies."""
    log_ratio_chosen: Estimate = UNDEFINED
    """Mean log-ratio of the chosen answers to the base, nats per answer; of policies. Below 0, they have become less
    likely."""
    log_ratio_rejected: Estimate = UNDEFINED
    """The same of the rejected answers."""
    reward_mean: Estimate = UNDEFINED
    """Mean reward of both answers, in the reward's own unit."""
    reward_std: Estimate = UNDEFINED
    """Standard deviation of the rewards."""
    margin: Estimate = UNDEFINED
    """Mean reward of the chosen answer less that of the rejected one."""

    # Of the answers to the validation prompts.
    judge_reward_mean: Estimate = UNDEFINED
    """Mean score by the main judge."""
    judge_reward_std: Estimate = UNDEFINED
    """Standard deviation of its scores."""
    other_judges: tuple[JudgeReward, ...] = ()
    """The same by the other judges of the panel."""
    proxies: tuple[ProxyReward, ...] = ()
    """Mean score by the reward models that policies learned from or picked by."""
    gold_accuracy: Estimate = UNDEFINED
    """Share of right answers, where the data has a gold judge."""
    win_rate_vs_base: Estimate = UNDEFINED
    """Share of pairs of an answer and one of the base's to a prompt in which the main judge prefers it; prompts weigh
    the same, a tie counts as ½."""
    length_words: Estimate = UNDEFINED
    length_characters: Estimate = UNDEFINED
    length_tokens: Estimate = UNDEFINED
    readability_grade: Estimate = UNDEFINED
    """Flesch–Kincaid grade."""
    distinct_1: Estimate = UNDEFINED
    """Different words / all words of all answers."""
    distinct_2: Estimate = UNDEFINED
    distinct_3: Estimate = UNDEFINED
    repetition: Estimate = UNDEFINED
    """Share of 4-grams of words that an answer has said before, mean over answers."""
    unfinished_share: Estimate = UNDEFINED
    """Share of answers that were truncated at the token limit."""

    # Of a policy against the base.
    win_rate_length_controlled: Estimate = UNDEFINED
    """Win rate against the base at equal length."""
    judge_gain: Estimate = UNDEFINED
    """Mean score less the base's, over length bins."""
    judge_gain_within_length: Estimate = UNDEFINED
    """The part of the gain at equal length."""
    judge_gain_between_length: Estimate = UNDEFINED
    """The part of the gain that comes with another length."""
    kl: Estimate = UNDEFINED
    """KL(policy ‖ base) on the policy's own answers, nats per answer."""
    kl_per_token: Estimate = UNDEFINED
    """The same, nats per token."""
    log_ratio: Estimate = UNDEFINED
    """Mean log-ratio of its own answers, nats per answer."""

    # Of a policy against what it starts from, where that is not the base.
    kl_from_start: Estimate = UNDEFINED
    """KL(policy ‖ start) on the policy's own answers, nats per answer."""
    kl_from_start_per_token: Estimate = UNDEFINED
    """The same, nats per token."""
    win_rate_vs_start: Estimate = UNDEFINED
    """As `win_rate_vs_base`, against the answers of the cell that it starts from."""


class Result(Block):
    """How one cell ended, and its metrics."""

    cell: CellId
    name: str
    """How rows, tables and files call the cell."""
    algorithm: str
    kind: Kind
    parameters: dict[str, Scalar]
    """All hyper-parameters, defaults included."""
    seed: int
    status: Status
    reason: str | None
    """Why it failed or was skipped."""
    reward: str
    """The definition of its reward of validation pairs."""
    metrics: Metrics
    cost: Cost | None
    trainable: int | None
    """Parameters that its training changed; None when it did not finish."""
    warnings: list[str]
    remarks: list[str]
    adapter: str | None = None
    """The folder of its adapter, below that of what is computed (`runs`); None where it trained none."""
    start: CellId | None = None
    """The cell that it starts from; None for the base, and for an adapter or a model that was given."""
    chain: list[str] = []
    """What it was trained after, from the first start on, and itself last; empty where it starts from the base."""


# The leaderboard.


class OverSeeds(Block):
    """A metric of a method: its mean over seeds."""

    mean: float | None = None
    sd: float | None = None
    """Standard deviation over seeds; None without two."""
    low: float | None = None
    """95% interval over prompts or pairs, of a method of one seed; None with more."""
    high: float | None = None
    n: int = 0
    """Seeds with a value."""


class LeaderboardRow(Block):
    """One method with its varying parameters, or the base."""

    method: CellId
    label: str
    """A short name with what tells it from the others: `ppo kl 0.02 · poe_rm`."""
    kind: Kind
    seeds: list[int]
    """Of its finished cells."""
    unfinished_cells: int
    """Its cells that failed or were skipped."""
    rank: int | None
    """1 for the highest by `ranked_by`; equal values share a rank."""
    ranked_by: MetricKey | None
    """Gold accuracy where every row has it, else the main judge's score."""
    judge: OverSeeds
    """Mean score by the main judge."""
    gold: OverSeeds
    """Share of right answers."""
    win_rate: Estimate
    """Against the base, by the main judge; of several seeds over these and prompts, as in `policies.win_rates`."""
    win_rate_length_controlled: OverSeeds
    words: OverSeeds
    unfinished: OverSeeds
    """Share of answers that were truncated at the token limit."""
    kl: OverSeeds
    """KL(policy ‖ base), nats per answer."""
    seconds: OverSeeds
    """Wall-clock time of a cell's own artefacts."""
    level: Level
    """Whether the next two speak of the method or of its checkpoints."""
    above_base: list[MetricKey]
    """On what `claims` show it above the base: gold accuracy, the judge. Of several checkpoints, every one."""
    below_base: list[MetricKey]


class RewardModelRow(Block):
    """One reward model with its varying parameters."""

    method: CellId
    label: str
    """As of a `LeaderboardRow`, and so are the next four."""
    seeds: list[int]
    unfinished_cells: int
    rank: int | None
    ranked_by: MetricKey | None
    """Accuracy against the right answers where every row has it, else against the labels."""
    accuracy: OverSeeds
    accuracy_gold: OverSeeds
    accuracy_right_shorter: OverSeeds
    ties: OverSeeds
    seconds: OverSeeds
    against_longer: Literal["above", "below", "none"] | None
    """Whether all its checkpoints were shown to be above or below preferring the longer answer; None without a test."""


# Comparisons.


class RankedMethod(Block):
    """A method's place by one measure."""

    method: CellId
    seeds: int
    value: float
    rank: float
    low: float | None = None
    """1 + the methods that were shown higher; None where ranks have no bounds, as with two seeds."""
    high: float | None = None
    """The number of methods less those that were shown lower."""


class Friedman(Block):
    """Friedman's test, with prompts as blocks."""

    test: str
    p: float | None
    n: int


class Ranking(Block):
    """Methods ranked by one measure."""

    metric: MetricKey
    kind: Kind
    unit: str
    level: Level
    n: int
    """Pairs or prompts."""
    prompts: int
    friedman: Friedman
    methods: list[RankedMethod]
    """The best first."""


class WinRate(Block):
    """How often the answers of `a` are judged better than those of `b`."""

    a: CellId
    b: CellId
    level: Level
    rate: Estimate


class FrontierPoint(Block):
    """A policy's reward against its drift from the base."""

    cell: CellId
    kl: Estimate
    reward: Estimate
    gold: Estimate
    on_frontier: bool
    """Whether no other policy has at least as much reward for no more KL."""


class GoldAgainstJudge(Block):
    """A policy's gains over the base by the judge and by gold."""

    cell: CellId
    judge_gain: Estimate
    gold_gain: Estimate
    correlation: Estimate
    """Pearson's, of the two gains over prompts."""


class Policies(Block):
    """Policies compared on their answers."""

    judge: str | None
    """The main judge, who decides who wins."""
    win_rates: list[WinRate]
    frontier: list[FrontierPoint]
    gold_against_judge: list[GoldAgainstJudge]


class Baselines(Block):
    """What needs no training."""

    longer_wins: Estimate
    """Accuracy of preferring the answer with more words."""
    labels_agree_with_gold: Estimate
    """Share of labels that name the right answer."""
    labels_knowable: Estimate = UNDEFINED
    """Highest accuracy to expect: labels are drawn, and who knows their true probabilities is right on no more of them.
    Mean over pairs of max(p, 1 − p); of data that say with which probability labels were drawn (embedded/planted)."""


class Reversal(Block):
    """Two methods that two judges rank the other way round."""

    higher: CellId
    lower: CellId
    shown: bool
    """Whether both judges' differences were shown, between the methods or else between their checkpoints."""


class Agreement(Block):
    """How far two judges agree."""

    a: str
    b: str
    methods: int
    """How many were ranked, the base among them."""
    kendall_tau: float | None
    agreement: Estimate
    """Share of preferences, prompt by prompt, on which both agree."""
    reversed: list[Reversal]


# The audit of judges and reward models.


class Effects(Block):
    """Change of the score with the form of an answer, in standard deviations of the score, in one regression."""

    words: Estimate
    grade: Estimate
    list_items: Estimate
    headings: Estimate
    bold: Estimate


class EditEffect(Block):
    """What one edit of an answer does to its score."""

    edit: Edit
    shift: Estimate
    """Mean change of the score."""
    flips: Estimate
    """Share of pairs whose preference turns."""


class AuditMetrics(Block):
    """How far a scorer's accuracy rests on what it should not rest on."""

    accuracy: Estimate
    tie_rate: Estimate
    longer_wins: Estimate
    accuracy_chosen_longer: Estimate
    accuracy_chosen_shorter: Estimate
    accuracy_length_matched: Estimate
    """On pairs whose lengths differ by less than 10%."""
    accuracy_length_controlled: Estimate
    """With the chosen answer the longer one as often as the shorter one: a scorer that only counts words gets ½."""
    length_one_sided: Estimate
    """Share of pairs left out of it, for want of others of like difference in length whose shorter answer is chosen."""
    accuracy_audited: Estimate = UNDEFINED
    """Accuracy with the right prompts on the pairs that were scored with changed texts as well."""
    accuracy_prompts_shuffled: Estimate
    """On these pairs, with both answers under another prompt."""
    accuracy_prompts_empty: Estimate
    """On these pairs, with both answers under none."""
    accuracy_less_shuffled: Estimate = UNDEFINED
    """`accuracy_audited` less `accuracy_prompts_shuffled`, by pair; 0 of a scorer that does not read the prompt."""
    length_spearman: Estimate
    length_spearman_within: Estimate
    length_partial: Estimate
    length_partial_within: Estimate
    effects: Effects
    edits: list[EditEffect]
    brier: Estimate
    log_loss: Estimate
    calibration_error: Estimate
    """Root of the debiased mean squared calibration error, over both orientations of the pairs; no interval."""
    calibration_slope: Estimate = UNDEFINED
    """Of a logistic regression of the label on the difference of scores; 1 is calibrated, below 1 overconfident."""
    calibration_intercept: Estimate = UNDEFINED
    """Its intercept with the longer answer first, log-odds: the label's preference for length beyond the score."""
    calibration_p: float | None = None
    """Joint Wald test that the slope is 1 and the intercept 0."""
    temperature: Estimate
    """The divisor of scores with the least log-loss."""


class Audit(Block):
    """The audit of one judge or reward model."""

    scorer: str
    """The cell's name, or the judge's."""
    metrics: AuditMetrics
    reliability: list[Bin]
    audited_pairs: int | None = None
    """Pairs that were scored with changed texts as well, all pairs of prompts drawn at random."""
    audited_prompts: int | None = None
    """Their prompts."""


class AgainstLonger(Block):
    """A judge or reward model against preferring the longer answer, on the same pairs."""

    scorer: str
    """The cell's name, or the judge's, as in `audit`."""
    accuracy: Estimate
    longer_wins: Estimate
    """Accuracy of preferring the answer with more words; equal lengths count ½."""
    difference: float | None
    """The scorer's accuracy less that."""
    low: float | None
    high: float | None
    test: str
    p: float | None
    p_holm: float | None
    """Holm-adjusted over all scorers of the report."""
    n: int
    """Pairs."""
    prompts: int
    decision: Literal["above", "below", "none", "undefined"]
    """Whether the scorer was shown to be above or below it, at a Holm-adjusted 5%."""


# The course's analyses.


class ScoreGroups(Block):
    """A reward model's higher scores, of preferred answers against the others."""

    cell: CellId
    correct: Distribution
    wrong: Distribution
    ties: int
    test: WelchTest


class FavouredAnswers(Block):
    """Length and readability of the answers that someone favours, or of the others."""

    by: str
    """`label`, or a cell's name."""
    side: Literal["favoured", "unfavoured"]
    words: Distribution
    grade: Distribution


class Course(Block):
    """The analyses of the course report that this project grew out of."""

    scores: list[ScoreGroups]
    answers: list[FavouredAnswers]


class ParetoSet(Block):
    """Cells that no other beats on a metric and seconds."""

    among: Literal["reward models", "policies"]
    metric: str
    cost: Literal["seconds"] = "seconds"
    cells: list[CellId]


class DetectableEffect(Block):
    """The smallest paired difference that this many observations show with 80% power."""

    n: int
    prompts: int
    tests: int
    """Of the largest family."""
    dz: float | None
    dz_holm: float | None


class DetectableBetweenSeeds(Block):
    """The smallest difference between methods, in standard deviations over seeds, shown with 80% power."""

    n: int
    tests: int
    d: float | None
    d_holm: float | None


class Detectable(Block):
    """What this many pairs, prompts and seeds could have shown."""

    pairs: DetectableEffect | None = None
    prompts: DetectableEffect | None = None
    seeds: DetectableBetweenSeeds | None = None


class Tested(Block):
    """The base, or a policy, on the test pairs, which nothing was chosen on."""

    cell: CellId
    accuracy: Estimate
    """Share of pairs whose chosen answer has the higher reward, by the cell's own; a tie counts as ½."""
    accuracy_logp_mean: Estimate
    """Accuracy of the mean log-probability per token."""
    accuracy_logratio: Estimate
    """Accuracy of the log-ratio to the base; of policies."""
    reward_mean: Estimate
    """Mean reward of both answers, in the reward's own unit."""
    reward_std: Estimate
    """Standard deviation of the rewards."""
    difference: float | None = None
    """Accuracy of the mean log-probability per token less the base's, on the same pairs; None of the base."""
    low: float | None = None
    high: float | None = None
    test: str | None = None
    p: float | None = None
    p_holm: float | None = None
    """Holm-adjusted over the policies."""
    n: int = 0
    """Pairs behind the difference."""


class MethodCheck(Block):
    """A check of the conformance kit that a method failed before its first step, and was trained all the same."""

    cell: CellId
    check: Literal["signs", "rewards", "extremes"]
    found: str
    hint: str


AlarmKind = Literal[
    "one-sided labels",
    "contradictory rows",
    "duplicate rows",
    "validation in training",
    "other data",
    "shifted tokens",
    "flipped sign",
    "wrong rewards",
    "not finite",
    "judge at chance",
    "judge by length",
    "missing scores",
    "equal scores",
    "nothing learned",
    "drifted away",
    "repeats itself",
    "never ends",
    "cut-off answers",
]


class Alarm(Block):
    """Something that makes other numbers of the report hard to believe."""

    kind: AlarmKind
    about: str
    """The cell, the judge or the split of the data."""
    found: float | None
    """The number; None where the sentence holds several."""
    threshold: float | None
    sentence: str
    cure: str
    """What usually mends it."""


class Header(Block):
    """What was run; no row holds it."""

    command: str
    made: str | None = None
    """The day on which it was made, `2025-06-01`; None of a report from before this was kept."""
    suite: SuiteFacts
    base: BaseFacts
    data: dict[str, DataFacts]
    """`train`, `val`, `test` where there is one, and each judge's rows."""
    judges: list[JudgeFacts]
    """The panel, the main judge first."""
    environment: Environment
    training_keywords: KeywordList | None = None
    """Of the training set's preferred answers, which `training_texts.parquet` holds."""
    tuning: Tuning | None = None
    failed_checks: list[MethodCheck] = []


class Report(Header):
    """A whole report: what was run, and all that is computed from its exported rows."""

    version: Annotated[Literal[1], Field(description="Version of this format.")] = 1
    alarms: list[Alarm] = []
    """What makes other numbers hard to believe; the verdict begins with it."""
    summary: list[str] = []
    """At most three plain sentences, for people; what is behind them, `verdict` says."""
    verdict: list[str]
    """Claim by claim, with its numbers."""
    results: list[Result]
    comparisons: list[Comparison]
    claims: list[Claim] = []
    """What the comparisons allow to claim; `verdict` says it in words."""
    leaderboard: list[LeaderboardRow] = []
    """Policies and the base, the best first."""
    reward_leaderboard: list[RewardModelRow] = []
    """Reward models, the best first."""
    rankings: list[Ranking]
    policies: Policies
    baselines: Baselines
    agreement: list[Agreement]
    audit: list[Audit]
    against_longer: list[AgainstLonger] = []
    """Every judge and reward model against preferring the longer answer."""
    course: Course
    tested: list[Tested] = []
    """The base and every policy on the test pairs, where the suite has some."""
    keywords: Keywords
    pareto: list[ParetoSet]
    detectable: Detectable
    notes: list[str]
