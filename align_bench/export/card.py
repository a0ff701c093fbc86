"""The model card: README.md with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from align_bench.data.preferences import EMBEDDED, local_files
from align_bench.export.snippet import snippet
from align_bench.models.base import EMBEDDED as EMBEDDED_BASES
from align_bench.models.exported import CARD
from align_bench.records import Estimate
from align_bench.report.decision import turned
from align_bench.report.formatting import count, interval, number, one_line, p_value, signed
from align_bench.report.render.markdown import literal
from align_bench.report.verdict import verdict
from align_bench.store.files import write_atomically

if TYPE_CHECKING:
    from align_bench.data.preferences import DataSource
    from align_bench.export.choose import Chosen
    from align_bench.export.proof import Proof
    from align_bench.models.exported import Exported
    from align_bench.plugins.registry import Plugin
    from align_bench.records import Json

UNKNOWN_LICENCE = "unknown"  # the hub's own word
EMBEDDED_LICENCE = "apache-2.0"

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What only the user knows.

    Attributes:
        command: what exports the model.
        licence: the hub's name of a licence; None where it was not given.
    """

    command: str
    licence: str | None


@dataclass(frozen=True, slots=True)
class Training:
    """What a cell was trained on.

    Attributes:
        split: its name in the report.
        source: where its rows come from.
    """

    split: str
    source: DataSource

    @property
    def embedded(self) -> bool:
        """Whether it ships with the package."""
        return self.source.path.startswith(EMBEDDED)

    @property
    def on_hub(self) -> bool:
        """Whether its path is a hub id."""
        return not self.embedded and local_files(self.source) is None

    @property
    def title(self) -> str:
        """Its hub id, or its file without the folder, which is nobody's business."""
        if self.embedded or self.on_hub:
            return self.source.path
        return ", ".join(Path(name).name for name in self.source.files or (self.source.path,))


def write_card(folder: Path, chosen: Chosen, note: Exported, proofs: Sequence[Proof], provenance: Provenance) -> None:
    """Write the card of an exported model into its folder."""
    split = chosen.cell.id.name if chosen.cell.is_judge else "train"
    training = Training(split, chosen.prepared.inputs.rows[split].source)
    own = chosen.frozen.base.name in EMBEDDED_BASES and training.embedded
    licence = provenance.licence or (EMBEDDED_LICENCE if own else UNKNOWN_LICENCE)
    front = yaml.safe_dump(_front_matter(chosen, note, training, licence), sort_keys=False, allow_unicode=True)
    parts = [
        f"# {literal(chosen.cell.id)}",
        _summary(chosen, note),
        f"## Use\n\n```python\n{snippet(chosen, note)}```",
        "## How it was made\n\n" + _table(("", ""), _made(chosen, training)),
        "## How it was measured\n\n" + "\n\n".join(_measured(chosen)),
        f"## Proof\n\n{_proven(note, proofs)}",
        f"## Reproduce\n\n```sh\n{one_line(chosen.report.command)}\n{one_line(provenance.command)}\n```",
        f"## Licence\n\n{_licence(chosen, training, licence)}",
    ]
    write_atomically(folder / CARD, f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n")


def _front_matter(chosen: Chosen, note: Exported, training: Training, licence: str) -> dict[str, Json]:
    """The hub refuses a base or a data set that it does not have, so that others are named in the text alone."""
    repository, adapter, scalar = chosen.frozen.base.hub_id, note.form == "adapter", _is_reward(note)
    tags = ["align-bench", "preference-alignment", "reward-model" if scalar else "preference-tuned", _method(chosen)]
    return {
        **({"base_model": repository} if repository else {}),
        **({"base_model_relation": "adapter" if adapter else "finetune"} if repository else {}),
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-classification" if scalar else "text-generation",
        "license": licence,
        "tags": [*tags, *(["lora"] if adapter else [])],
        **({"datasets": [training.title]} if training.on_hub else {}),
    }


def _is_reward(note: Exported) -> bool:
    return note.kind == "reward"


def _plugin(chosen: Chosen) -> Plugin:
    assert chosen.cell.plugin is not None, "what was trained has a method"
    return chosen.cell.plugin


def _method(chosen: Chosen) -> str:
    return str(_plugin(chosen).algorithm.name)


def _base(chosen: Chosen) -> str:
    """What the weights stand on: the suite's base, or the name of a model that was given as a start."""
    base = chosen.frozen.base
    own = base.digest == chosen.report.base.digest
    return literal(chosen.report.base.name if own else base.hub_id or Path(base.name).name)


def _summary(chosen: Chosen, note: Exported) -> str:
    what = "A reward model" if _is_reward(note) else "A policy"
    form = "a LoRA adapter" if note.form == "adapter" else "the whole model, its adapter merged into the base"
    report = chosen.report
    return (
        f"{what} that `{_method(chosen)}` trained on {_base(chosen)}, as {form}. "
        f"It is the cell `{one_line(chosen.cell.id)}` of the suite `{report.suite.name}`, run with "
        f"align-bench {report.environment.align_bench}."
    )


def _made(chosen: Chosen, training: Training) -> Iterator[Row]:
    report, cell, suite = chosen.report, chosen.cell, chosen.prepared.suite
    algorithm, facts = _plugin(chosen).algorithm, report.data[training.split]
    yield "base", f"{_base(chosen)} (files: `{chosen.frozen.base.digest}`)"
    if chosen.frozen.base.digest != report.base.digest:
        yield "base of the suite", f"{literal(report.base.name)} (files: `{report.base.digest}`)"
    yield "weights of the base in training", literal(report.base.precision)
    yield "rows", f"{literal(training.title)}: {_counts(facts.read)}; as tokens: {_counts(facts.tokens)}"
    yield "shape of the rows", literal(facts.shape)
    yield "method", f"{_method(chosen)}: {literal(algorithm.summary)} ({literal(algorithm.paper)})"
    if cell.start is not None:
        yield "trained after", literal(" → ".join(cell.chain))
    if cell.start is not None and cell.kind == "policy":
        yield "reference", "the base" if cell.start.reference == "base" else f"{literal(cell.start.name)}, its start"
    if cell.reward is not None:
        yield "reward", literal(cell.reward.id)
    yield "hyper-parameters", _settings(cell.all_parameters)
    yield "seed", str(cell.seed)
    yield "LoRA", _settings(suite.lora.model_dump())
    training_settings = suite.train.model_dump(
        exclude={"activation_checkpointing", "checkpoint_minutes", "micro_batch_tokens", "processes"}
    )
    yield "training", _settings({**training_settings, **cell.settings})
    if cell.adapter is not None and cell.adapter.processes > 1:
        yield "processes", str(cell.adapter.processes)
    if chosen.result.trainable is not None:
        yield "trainable parameters", count(chosen.result.trainable)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{literal(reason)} {number_of:,}" for reason, number_of in counts.items())


def _settings(settings: dict[str, Json] | dict[str, bool | int | float | str | None]) -> str:
    return ", ".join(f"{literal(name)} = {literal(value)}" for name, value in settings.items() if value is not None)


def _measured(chosen: Chosen) -> Iterator[str]:
    report, result = chosen.report, chosen.result
    val = report.data["val"]
    yield (
        f"On {literal(Training('val', chosen.prepared.inputs.rows['val'].source).title)} ({_counts(val.tokens)}). "
        "Intervals are at 95%."
    )
    yield _table(("metric", "value", "interval", "n", ""), _metrics(chosen))
    judges = ", ".join(literal(judge.name) for judge in report.judges)
    if judges and result.kind == "policy":
        yield f"Judges: {judges}; metrics of the judge are by the first."
    against = list(_against_base(chosen))
    if against:
        yield "Against the base, p-values Holm-adjusted over the tests of the metric; intervals are not adjusted:"
        yield _table(("metric", "difference", "interval", "p", "shown"), against)


def _metrics(chosen: Chosen) -> Iterator[Row]:
    metrics = chosen.result.metrics
    for name, field in type(metrics).model_fields.items():
        value = getattr(metrics, name)
        if isinstance(value, Estimate):
            yield from _metric(name, value, field.description or "")
    for attack in metrics.attacked:
        yield from _metric(f"accuracy at ε = {attack.epsilon:g}", attack.accuracy, "Under attack.")
    for judge in metrics.other_judges:
        yield from _metric(f"judge_reward_mean of {judge.judge}", judge.mean, "")
    for proxy in metrics.proxies:
        yield from _metric(f"reward by {proxy.reward}", proxy.mean, "What it learned from.")


def _metric(name: str, estimate: Estimate, meaning: str) -> Iterator[Row]:
    if estimate.value is not None:
        known = estimate.low is not None and estimate.high is not None
        bounds = f"[{number(estimate.low)}, {number(estimate.high)}]" if known else ""
        yield literal(name), number(estimate.value), bounds, count(estimate.n), literal(" ".join(meaning.split()))


def _against_base(chosen: Chosen) -> Iterator[Row]:
    bases = {result.cell for result in chosen.report.results if result.kind == "base"}
    for found in chosen.report.comparisons:
        if found.level == "checkpoint" and found.difference is not None and {found.a, found.b} & bases:
            if chosen.cell.id not in (found.a, found.b):
                continue
            own = found if found.a == chosen.cell.id else turned(found)
            bounds = "" if own.low is None else interval(own.low, own.high)
            yield literal(own.metric), signed(own.difference), bounds, p_value(own.p_holm), literal(verdict(own))


def _proven(note: Exported, proofs: Sequence[Proof]) -> str:
    what = "scores of validation answers" if _is_reward(note) else "log-probabilities of its own answers"
    lines = [
        f"The files of this folder were loaded with plain transformers{' and peft' if note.form == 'adapter' else ''}, "
        f"and the stored {what} were computed again: {proofs[0]}."
    ]
    if note.form == "merged":
        lines.append(f"{_merging(note)} The difference above holds all that this changes.")
    lines += [f"The same of `model.gguf`, read by transformers: {proof}." for proof in proofs[1:]]
    if note.storage == "nf4" and note.form == "adapter":
        lines.append("The adapter was trained on the base in NF4, and was measured on it here.")
    return " ".join(lines)


def _merging(note: Exported) -> str:
    if note.storage == "nf4":
        return (
            "The adapter was added, in fp32, to the base's NF4 weights as they dequantise, which it was trained on, "
            f"not to the base's original weights; the sum is stored in {note.dtype}."
        )
    return f"The adapter was added, in fp32, to the base's {note.storage} weights; the sum is stored in {note.dtype}."


def _licence(chosen: Chosen, training: Training, licence: str) -> str:
    base = _base(chosen)
    if licence == UNKNOWN_LICENCE:
        return (
            f"Not stated. The licences of the base ({base}) and of the rows ({literal(training.title)}) bind whoever "
            "uses this model; set `license` above, or export with `--license`, once you have read them."
        )
    return f"{literal(licence)}, within the licences of the base ({base}) and of the rows ({literal(training.title)})."


def _table(headings: Row, rows: Iterable[Row]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
