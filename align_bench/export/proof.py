"""Stored answers, scored again by an exported model as transformers and peft load it: nothing of ours computes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from align_bench.errors import ModelError
from align_bench.models.compute import compute_dtype
from align_bench.records import no_update
from align_bench.stages.answers import sequences

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.export.choose import Chosen
    from align_bench.models.base import Base
    from align_bench.models.exported import Exported
    from align_bench.models.precision import Precision
    from align_bench.records import Update

ANSWERS = 50
# Nats per token, or standard deviations of the stored scores: what the first batch of every model is held to, too.
TOLERANCE_FP32, TOLERANCE_ROUNDED = 1e-3, 0.1

Measure = Callable[[Sequence[int], Sequence[int]], float]


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer, and what the suite measured of it.

    Attributes:
        prompt, answer: token ids.
        value: its log-probability under the policy, nats; or its score by the reward model.
        of_base: its log-probability under the base, nats; None of a reward model.
    """

    prompt: Sequence[int]
    answer: Sequence[int]
    value: float
    of_base: float | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """How far the exported model is from what was stored.

    Attributes:
        answers: how many stored answers were scored again.
        largest, mean: absolute difference, over these answers, in `unit`.
        tolerance: what `largest` may be.
        unit: `nats per token`, or `standard deviations of the score`.
        of_base: the mean absolute difference of the base alone, which an adapter that does nothing would have; None of
            a reward model.
        loaded: what computed it, such as `float32 on cpu`.
    """

    answers: int
    largest: float
    mean: float
    tolerance: float
    unit: str
    of_base: float | None
    loaded: str

    def __str__(self) -> str:
        text = (
            f"{self.answers} stored answers scored again ({self.loaded}): largest difference {self.largest:.2g}, "
            f"mean {self.mean:.2g} {self.unit} (tolerance {self.tolerance:g})"
        )
        return text if self.of_base is None else f"{text}; the base alone is {self.of_base:.2g} away"


def stored_answers(chosen: Chosen, count: int = ANSWERS) -> list[Stored]:
    """Answers of a cell, evenly spread: of a policy its own, of a reward model those of validation pairs.

    Raises:
        MissingResultError: one of its results is not stored.
    """
    cell, results = chosen.cell, chosen.results
    table = results.load(chosen.graph.tables["val"])
    drift = cell.drift
    if drift is not None:
        assert cell.answers is not None, "drift is measured on answers"
        pairs = sequences(results.load(cell.answers), table)
        moved = results.load(drift)
        found = [
            Stored(prompt, answer, one["logp"], one["ref_logp"])
            for (prompt, answer), one in zip(pairs, moved, strict=True)
        ]
    else:
        assert cell.validation is not None, "a reward model is measured on validation pairs"
        columns = results.load(cell.validation)
        found = [
            Stored(row.prompt, answer, float(columns[side][place]))
            for place, row in enumerate(table.rows)
            for side, answer in (("chosen", row.chosen), ("rejected", row.rejected))
            if answer is not None
        ]
    count = min(count, len(found))
    return [found[place * len(found) // count] for place in range(count)]


def prove(model: Any, note: Exported, stored: Sequence[Stored], update: Update = no_update) -> Proof:
    """Score stored answers again.

    Args:
        model: from `plain_model`.
        note: the exported model's.
        stored: at least one answer.
        update: progress, in answers.

    Raises:
        ModelError: the model differs by more than rounding.
    """
    measure = _score(model) if note.kind == "reward" else _logp(model)
    apart = []
    for done, one in enumerate(stored, start=1):
        with torch.no_grad():
            apart.append(abs(measure(one.prompt, one.answer) - one.value))
        update(done, len(stored))
    unit, sizes = _sizes(note, stored)
    apart = [difference / size for difference, size in zip(apart, sizes, strict=True)]
    of_base = [abs(one.of_base - one.value) / size for one, size in zip(stored, sizes, strict=True) if one.of_base]
    exact = note.dtype == "float32" and (note.storage == "fp32" or note.form == "merged")
    proof = Proof(
        answers=len(stored),
        largest=max(apart),
        mean=statistics.fmean(apart),
        tolerance=TOLERANCE_FP32 if exact else TOLERANCE_ROUNDED,
        unit=unit,
        of_base=statistics.fmean(of_base) if of_base else None,
        loaded=f"{note.dtype} on {model.device.type}",
    )
    if not proof.largest <= proof.tolerance:  # NaN, too
        raise ModelError(
            f"the exported model is not the one that was measured: {proof}. Nothing was written",
            fix="report it with the suite; without --merge (or with it) the export may hold",
        )
    return proof


def _sizes(note: Exported, stored: Sequence[Stored]) -> tuple[str, list[float]]:
    """The unit of differences, and what each answer's is divided by."""
    if note.kind == "policy":
        return "nats per token", [float(len(one.answer)) for one in stored]
    spread = statistics.pstdev([one.value for one in stored])
    return "standard deviations of the score", [spread if spread > 0 else 1.0] * len(stored)


def plain_model(folder: Path, note: Exported, base: Base, precision: Precision, *, gguf: str | None = None) -> Any:
    """An exported model as its card says to load it.

    Args:
        folder: what was exported.
        note: its note.
        base: what an adapter stands on.
        precision: how the base was stored and computed with.
        gguf: name of the GGUF file that is to be read instead.
    """
    import transformers

    scalar = note.kind == "reward"
    loader = transformers.AutoModelForSequenceClassification if scalar else transformers.AutoModelForCausalLM
    more: dict[str, object] = {"num_labels": 1} if scalar else {}
    if note.form == "merged":
        more |= {"gguf_file": gguf} if gguf else {}
        return loader.from_pretrained(folder, dtype=compute_dtype(precision), **more).to(precision.device).eval()
    from peft import PeftModel

    if base.gguf:
        more["gguf_file"] = base.gguf
    if note.storage == "nf4":
        more["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype(precision),
            llm_int8_skip_modules=["lm_head", "score"],
        )
        more["device_map"] = {"": precision.device}
    below = loader.from_pretrained(base.folder, dtype=compute_dtype(precision), **more)
    if note.storage != "nf4":
        below.to(precision.device)
    if scalar:
        below.config.get_text_config().pad_token_id = None  # alone, a sequence is scored at its end
    return PeftModel.from_pretrained(below, folder).eval()


def _logp(model: Any) -> Measure:
    def measure(prompt: Sequence[int], answer: Sequence[int]) -> float:
        ids = torch.tensor([[*prompt, *answer]], device=model.device)
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
        return float(logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None]).double().sum())

    return measure


def _score(model: Any) -> Measure:
    def measure(prompt: Sequence[int], answer: Sequence[int]) -> float:
        return float(model(input_ids=torch.tensor([[*prompt, *answer]], device=model.device)).logits[0, 0])

    return measure
