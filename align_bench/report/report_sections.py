"""What a rendered report shows, table by table, whatever it is rendered to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from align_bench.errors import MissingResultError, nearest
from align_bench.report.course_sections import favoured_answers, keyword_lists, score_groups
from align_bench.report.decision import turned
from align_bench.report.formatting import (
    UNDEFINED,
    count,
    duration,
    interval,
    number,
    one_line,
    percent,
    plain,
    size,
    tenths,
    tera,
    with_spread,
)
from align_bench.report.judges import agreement, audit_sections
from align_bench.report.naming import method_of
from align_bench.report.policy_tables import policy_tables
from align_bench.report.ranking_tables import ranking_tables
from align_bench.report.section import (
    Column,
    Report,
    Result,
    Section,
    both,
    comparison_section,
    detectable,
    done_results,
    metric,
    metric_names,
    metric_section,
    text,
)
from align_bench.suite.names import JUDGE_CELL

# How the table of costs calls the metrics of the Pareto sets.
PARETO = {
    "judge_reward_mean": "judge",
    "gold_accuracy": "gold",
    "accuracy": "accuracy",
    "accuracy_gold_choice": "gold choice",
}
BIASES = ("length_correlation_given_label", "length_correlation_given_gold", "accuracy_right_shorter")
OPERATIONS = (
    "TFLOP: 10¹² operations that the passes needed (a common start once, no padding); of peak: these a second, as a "
    "share of what a large matrix product reached on the device in the same run."
)
PROXY_METRIC = "proxy_reward["


def report_sections(report: Report) -> list[Section]:
    """The tables of a report, without the empty ones."""
    made = [reward_models(report), length_bias(report), length_bias_against_first(report), attacked(report)]
    made += [score_groups(report), favoured_answers(report), *audit_sections(report)]
    made += [policies(report), judged(report), agreement(report), *policy_tables(report), own_reward(report)]
    made += [texts(report), against_base(report), methods(report), *ranking_tables(report), keyword_lists(report)]
    made += [tuning(report), costs(report), failures(report)]
    return [section for section in made if section.rows]


def reward_models(report: Report) -> Section:
    """Reward models on the validation pairs."""
    shown: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
        "accuracy": ("accuracy", with_spread),
        "ties": ("tie_rate", percent),
        "chosen longer": ("accuracy_chosen_longer", plain),
        "chosen shorter": ("accuracy_chosen_shorter", plain),
        "gold choice": ("accuracy_gold_choice", plain),
        "margin": ("margin", with_spread),
        "mean": ("reward_mean", plain),
        "std": ("reward_std", plain),
    }
    return metric_section(
        "Reward models on the validation pairs",
        "model",
        done_results(report, "reward"),
        shown,
        _pairs(report),
        chapter="leaderboard",
    )


def length_bias(report: Report) -> Section:
    """How far reward models prefer length; a single one has nothing to be held against."""
    shown: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
        "corr given label": ("length_correlation_given_label", with_spread),
        "corr given gold": ("length_correlation_given_gold", with_spread),
        "chosen shorter": ("accuracy_chosen_shorter", with_spread),
        "right shorter": ("accuracy_right_shorter", with_spread),
    }
    captions = [
        "corr: partial correlation of score with words, given which answer is the chosen (label) or right (gold) one.",
        "chosen shorter, right shorter: accuracy where the chosen, or the right, answer has fewer words.",
        *detectable(report, "pairs"),
    ]
    results = [found for found in done_results(report, "reward") if found["algorithm"] != JUDGE_CELL]
    return metric_section(
        "Length bias of reward models",
        "model",
        results if len(results) > 1 else [],
        shown,
        captions,
        chapter="length",
    )


def length_bias_against_first(report: Report) -> Section:
    """The suite's first reward model against every other one of its seed."""
    first: dict[int, str] = {}
    for found in done_results(report, "reward"):
        if found["algorithm"] != JUDGE_CELL:
            first.setdefault(found["seed"], found["cell"])
    seeds = {found["cell"]: found["seed"] for found in report["results"]}
    chosen = [
        found
        for found in report["comparisons"]
        if found["level"] == "checkpoint" and found["metric"] in BIASES and found["a"] == first.get(seeds[found["b"]])
    ]
    captions = [
        "A positive difference of correlations, or a negative one of accuracies: the first model is the more biased.",
        "The bootstrap is an interval, not a test; its verdict is whether that excludes 0.",
        *detectable(report, "pairs"),
    ]
    return comparison_section(
        "Length bias of the first reward model against the others",
        chosen,
        captions,
        [text("a − b")],
        both,
        chapter="length",
    )


def attacked(report: Report) -> Section:
    """Accuracy of reward models under attack, by the size of the attack."""
    results = done_results(report, "reward")
    names = [name for name in metric_names(results) if name.startswith("accuracy_attacked[")]
    shown: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {"ε = 0": ("accuracy", with_spread)}
    shown |= {f"ε = {name.removeprefix('accuracy_attacked[')[:-1]}": (name, with_spread) for name in names}
    captions = [
        "ε: one gradient step on the input embeddings of each answer against its label, of ε × their norm.",
        *detectable(report, "pairs"),
    ]
    return metric_section(
        "Reward accuracy under attack", "model", results if names else [], shown, captions, chapter="scores"
    )


def policies(report: Report) -> Section:
    """Policies on the validation pairs, by their own rewards and by two measures that are the same for all."""
    shown: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
        "accuracy": ("accuracy", with_spread),
        "ties": ("tie_rate", percent),
        "by logp": ("accuracy_logp_mean", plain),
        "by ratio": ("accuracy_logratio", plain),
        "gold choice": ("accuracy_gold_choice", plain),
        "margin": ("margin", with_spread),
        "mean": ("reward_mean", plain),
        "std": ("reward_std", plain),
    }
    results = done_results(report, "base", "policy")
    captions = [
        *_rewards(results),
        "by logp: accuracy of the mean log-probability a token; by ratio: of the log-ratio to the reference.",
        *_pairs(report),
    ]
    return metric_section("Policies on the validation pairs", "policy", results, shown, captions, chapter="leaderboard")


def judged(report: Report) -> Section:
    """Generations, scored by the judges."""
    shown: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {"judge": ("judge_reward_mean", with_spread)}
    results = [found for found in done_results(report, "base", "policy") if metric(found, "length_words")["n"]]
    for name in metric_names(results):
        if name.startswith("judge_reward_mean["):
            shown[name.removeprefix("judge_reward_mean")] = (name, with_spread)
    shown |= {
        "std": ("judge_reward_std", plain),
        "win rate": ("win_rate_vs_base", with_spread),
        "gold accuracy": ("gold_accuracy", with_spread),
        "words": ("length_words", tenths),
        "answer tokens": ("length_tokens", tenths),
        "grade": ("readability_grade", tenths),
        "no end": ("unfinished_share", percent),
    }
    captions = [
        "win rate: against the base, prompt by prompt, ties ½; grade: Flesch–Kincaid; no end: answers cut off.",
        *detectable(report, "prompts"),
    ]
    if trained := (report.get("judge") or {}).get("trained"):
        captions.append(
            f"The judge is the very reward that {', '.join(map(one_line, trained))} learned from or picked by: of "
            f"{'it' if len(trained) == 1 else 'them'} its scores are no independent verdict."
        )
    return metric_section("Generations, judged", "policy", results, shown, captions, chapter="leaderboard")


def own_reward(report: Report) -> Section:
    """Policies by the reward model that they learned from or picked by, beside the judge and gold."""
    gains = _gains_over_base(report)
    base = next(iter(done_results(report, "base")), None)
    rows = []
    for found in done_results(report, "policy"):
        own = gains.get(found["cell"], {})
        for name in own:
            if name.startswith(PROXY_METRIC):
                reward = name.removeprefix(PROXY_METRIC)[:-1]
                mean = f"proxy_reward_mean[{reward}]"
                shown = (own.get(key) for key in (name, "judge_reward", "gold_accuracy"))
                rows.append(
                    (
                        one_line(found["cell"]),
                        one_line(reward),
                        plain(metric(found, mean)),
                        UNDEFINED if base is None else plain(metric(base, mean)),
                        *(UNDEFINED if gain is None else _gain(gain) for gain in shown),
                    )
                )
    columns = [text("policy"), text("reward", wraps=False), Column("own reward"), Column("base by it")]
    columns += [Column(heading) for heading in ("own gain", "judge gain", "gold gain")]
    captions = [
        "own reward: mean score of the policy's answers by the reward model that it learned from or picked by; base by "
        "it: the base's answers by the same model.",
        "Gains over the base, prompt by prompt, with 95% intervals. Own reward up and gold down: over-optimised.",
        *detectable(report, "prompts"),
    ]
    return Section("Own reward against judge and gold", columns, rows, captions, chapter="differences")


def texts(report: Report) -> Section:
    """What the texts of the generations are like."""
    shown: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
        "characters": ("length_characters", tenths),
        "distinct 1": ("distinct_1", plain),
        "distinct 2": ("distinct_2", plain),
        "distinct 3": ("distinct_3", plain),
        "repeated": ("repetition", percent),
    }
    results = [found for found in done_results(report, "base", "policy") if metric(found, "length_words")["n"]]
    captions = [
        "distinct n: different n-grams of words / all n-grams of all answers (Li et al. 2016); it falls as text grows.",
        "repeated: 4-grams of words that an answer has said before (Welleck et al. 2020), mean over answers.",
        *detectable(report, "prompts"),
    ]
    return metric_section("Texts of the generations", "policy", results, shown, captions, chapter="length")


def against_base(report: Report) -> Section:
    """Every policy checkpoint against the base."""
    bases = {found["cell"] for found in report["results"] if found["kind"] == "base"}
    chosen = [found for found in report["comparisons"] if found["level"] == "checkpoint" and found["b"] in bases]
    captions = [
        "A positive difference is a gain over the base. These are tests of checkpoints, not of methods.",
        *detectable(report, "pairs", "prompts"),
    ]
    return comparison_section(
        "Policies against the base",
        chosen,
        captions,
        [text("policy")],
        lambda one: [one["a"]],
        chapter="differences",
    )


def methods(report: Report) -> Section:
    """Every method against the others and the base, over seeds."""
    chosen = [found for found in report["comparisons"] if found["level"] == "method"]
    captions = ["n counts the seeds of the smaller group.", *detectable(report, "seeds")]
    return comparison_section(
        "Methods, over their seeds", chosen, captions, [text("a − b")], both, chapter="differences"
    )


def tuning(report: Report) -> Section:
    """Every trial of every method, where the suite has `tune`; what they cost stands among the costs."""
    tuned = report.get("tuning") or {"methods": {}}
    rows = [
        (
            one_line(name),
            str(number),
            one_line(_differing(trial["parameters"], found["trials"])),
            with_spread(trial["accuracy"]),
            "kept" if number == found["kept"] else "",
        )
        for name, found in tuned["methods"].items()
        for number, trial in enumerate(found["trials"])
    ]
    columns = [text("method"), Column("trial"), text("setting"), Column("accuracy"), text("", wraps=False)]
    captions = list(_tuning_captions(tuned)) if rows else []
    return Section("Trials on pairs held out of train", columns, rows, captions, chapter="training")


def costs(report: Report) -> Section:
    """What each finished cell cost and trained, what the trials cost, and where no other cell buys more for less."""
    spent = [(found["cell"], found["cost"]) for found in report["results"]]
    if tuned := report.get("tuning"):
        spent += [(f"trials of {name}", found["cost"]) for name, found in tuned["methods"].items()]
        spent += [("shared by trials", tuned["shared"]), ("all trials", tuned["cost"])]
    spent = [(what, cost) for what, cost in spent if cost]
    shown: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "wall time": lambda cost: duration(cost["seconds"]),
        "tokens": lambda cost: f"{cost['tokens']:,}",
        "peak memory": lambda cost: size(cost["peak_bytes"]),
    }
    counted = any(cost.get("flops") is not None for _, cost in spent)
    if counted:
        shown |= {
            "TFLOP": lambda cost: tera(cost.get("flops")),
            "of peak": lambda cost: percent({"value": cost.get("utilisation")}),
        }
    trained = {found["cell"]: found["trainable"] for found in report["results"]}
    rows = [
        (
            one_line(what),
            *(render(cost) for render in shown.values()),
            count(trained.get(what)),
            _unbeaten(report, what),
        )
        for what, cost in spent
    ]
    captions = [
        "What cells share (loading the base, reference log-probabilities, an online method's reward model) is charged "
        "to none of them.",
        "trained: parameters. Pareto: no other reward model, or no other policy, is as good on this metric for as few "
        "seconds.",
        *([OPERATIONS] if counted else []),
    ]
    columns = [text("cell"), *map(Column, shown), Column("trained"), text("Pareto")]
    return Section("Cost", columns, rows, captions if rows else [], chapter="cost")


def failures(report: Report) -> Section:
    """Cells without a result, and why."""
    tuned = report.get("tuning") or {"methods": {}}
    trials = [trial for found in tuned["methods"].values() for trial in found["trials"]]
    rows = [
        (one_line(found["cell"]), one_line(found["status"]), one_line(found["reason"] or UNDEFINED))
        for found in [*report["results"], *trials]
        if found["status"] != "done"
    ]
    columns = [text("cell"), text("status", wraps=False), text("reason")]
    return Section("Without a result", columns, rows, chapter="leaderboard")


def compared(report: Report, a: str, b: str) -> list[Mapping[str, Any]]:
    """Every comparison between the cells of two methods, turned to `a − b`; those of methods first.

    Args:
        report: a report.
        a, b: names of methods or cells; the same name twice compares a method's own cells.

    Raises:
        MissingResultError: no such method or cell in the report, or none of its cells finished.
    """
    left, right = members(report, a), members(report, b)
    chosen: list[Mapping[str, Any]] = []
    for level in ("method", "checkpoint"):
        for found in report["comparisons"]:
            if found["level"] != level:
                continue
            if found["a"] in left[level] and found["b"] in right[level]:
                chosen.append(found)
            elif found["a"] in right[level] and found["b"] in left[level]:
                chosen.append(turned(found))
    return chosen


def pairwise(report: Report, a: str, b: str) -> Section:
    """`compared` as a table.

    Args, Raises: as `compared`.
    """
    chosen = compared(report, a, b)
    captions = [f"A positive difference: {one_line(a)} is higher.", *detectable(report, "pairs", "prompts")]
    if not chosen:
        captions.insert(0, "Nothing to compare: reward models and policies are compared only among themselves.")
    if not any(found["level"] == "method" for found in chosen):
        captions.append("These are tests of checkpoints; a claim about the methods needs at least 3 seeds of each.")
    title = f"{one_line(a)} against {one_line(b)}"
    if len({(found["a"], found["b"]) for found in chosen}) == 1:  # the title says it
        return comparison_section(title, chosen, captions, [], lambda one: [], chapter="differences")
    return comparison_section(title, chosen, captions, [text("a − b")], both, chapter="differences")


def _differing(parameters: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> str:
    """Those parameters in which a method's trials differ."""
    names = [name for name in parameters if len({repr(trial["parameters"][name]) for trial in trials}) > 1]
    return ", ".join(f"{name}={parameters[name]}" for name in names)


def _tuning_captions(tuned: Mapping[str, Any]) -> Iterator[str]:
    settings, held = tuned["settings"], tuned["held_out"]
    size_of_slice = f"{held['pairs']:,} pairs of {held['prompts']:,} prompts" if held else "prompts"
    yield (
        f"Every method: {settings['trials']} trials ({settings['search']} search, seed {settings['seed']}), the first "
        f"with its own parameters; trained on train without {size_of_slice}, and measured on these."
    )
    yield (
        "accuracy: of the scores (reward models) or of the mean log-probability a token (policies), ties ½. The "
        "highest is kept, the earlier of equals, and trained anew on all of train. Being the best of several, it "
        "flatters; the tables above do not."
    )
    if base := tuned["base"]:
        yield f"The base, by the measure of policies: {with_spread(base)}."
    if bare := [name for name, found in tuned["methods"].items() if not found["trials"]]:
        yield f"No range declared or nothing trained, so nothing tuned: {one_line(', '.join(bare))}."
    if cost := tuned["cost"]:
        yield (
            f"Whole budget of the trials that finished: {duration(cost['seconds'])}, {cost['tokens']:,} tokens, "
            "the base's log-probabilities that they share included."
        )


def _gains_over_base(report: Report) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Policy → metric → its comparison with the base."""
    bases = {found["cell"] for found in report["results"] if found["kind"] == "base"}
    gains: dict[str, dict[str, Mapping[str, Any]]] = {}
    for one in report["comparisons"]:
        if one["level"] == "checkpoint" and one["b"] in bases:
            gains.setdefault(one["a"], {})[one["metric"]] = one
    return gains


def _gain(comparison: Mapping[str, Any]) -> str:
    return f"{number(comparison['difference'], signed=True)} {interval(comparison['low'], comparison['high'])}"


def _unbeaten(report: Report, cell: str) -> str:
    """The metrics in whose Pareto set a cell is."""
    return ", ".join(PARETO.get(one["metric"], one["metric"]) for one in report["pareto"] if cell in one["cells"])


def _rewards(results: Sequence[Result]) -> Iterator[str]:
    cells: dict[str, list[str]] = {}
    for found in results:
        if found["reward"]:
            cells.setdefault(found["reward"], []).append(found["cell"])
    if cells:
        defined = "; ".join(f"{one_line(reward)} ({one_line(', '.join(own))})" for reward, own in cells.items())
        yield f"Reward: {defined}."


def _pairs(report: Report) -> list[str]:
    longer = report["baselines"]["longer_wins"]
    baseline = [] if longer["value"] is None else [f"Preferring the longer answer: accuracy {with_spread(longer)}."]
    return [*detectable(report, "pairs"), *baseline, "±: half the 95% interval; a tie counts ½; lengths in words."]


def members(report: Report, name: str) -> dict[str, set[str]]:
    """Level → the names under which comparisons hold a method or a single cell, which is no method."""
    of_method = [found for found in report["results"] if name in (found["algorithm"], method_of(found["cell"]))]
    matching = of_method or [found for found in report["results"] if found["cell"] == name]
    if not matching:
        known = {found[key] for found in report["results"] for key in ("algorithm", "cell")}
        raise MissingResultError(f"The report has no {name!r}. {nearest(name, known, what='method')}")
    done = {found["cell"] for found in matching if found["status"] == "done"}
    if not done:
        reasons = "; ".join(f"{found['cell']} {found['status']}: {found['reason']}" for found in matching)
        raise MissingResultError(f"No cell of {name!r} finished: {reasons}")
    return {"checkpoint": done, "method": {method_of(cell) for cell in done} if of_method else set()}
