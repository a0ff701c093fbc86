"""Hold what a fixed tiny workload needs to what it needed before: operators, passes, tokens, bytes; no clock is read.

The embedded model reads fixed rows under fixed seeds. One step of rm, DPO, KTO, SimPO and ORPO, one pass of scoring and
one batch of answers are counted, and what a training leaves behind is measured. A count that has grown is a failure;
one that has shrunk asks for an update. Operators are held where torch and transformers are those that they were counted
with, for these decide how many there are; all else is held everywhere.

Examples:
    python benchmarks/check_counts.py             # 1 where a count has grown
    python benchmarks/check_counts.py --update    # write the counts anew, and say in the commit why they grew
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from align_bench.data.chat import tokenize
from align_bench.data.preferences import DataSource, read
from align_bench.data.token_rows import TokenRows
from align_bench.evaluate.preference import mismatched_logps, table_logps
from align_bench.models.base import Base, find_base
from align_bench.models.generate import generate
from align_bench.models.layout import inner_of
from align_bench.models.load import add_adapter, load_policy, load_scorer, load_tokenizer, save_adapter
from align_bench.models.precision import Precision
from align_bench.plugins.registry import load_registry
from align_bench.records import TokenRow
from align_bench.store.files import write_atomically
from align_bench.suite.models import Generate, Lora, Train
from align_bench.train import checkpoints
from align_bench.train.job import TrainingJob
from align_bench.train.loop import train

FILE = Path(__file__).with_name("counts.json")
COMMAND = "python benchmarks/check_counts.py --update"
METHODS = ("rm", "dpo", "kto", "simpo", "orpo")
FP32 = Precision("fp32", "float32", "cpu")
PAIRS = 8  # two steps: the first also looks whether the model can take the shortcuts, the second is counted
SETTINGS = Train(batch_size=PAIRS // 2, max_length=128, micro_batch_tokens=512, checkpoint_minutes=1e-9)
NEW_TOKENS = 8
OPERATORS = "operators"  # in the names of counts that depend on the versions of libraries

Counts = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted so far.

    Attributes:
        operators: that torch dispatched; a backward pass has its own.
        passes: forward passes of the decoder.
        tokens: that these read, padding included.
        padding: those of them that a mask hides.
    """

    operators: int = 0
    passes: int = 0
    tokens: int = 0
    padding: int = 0

    def since(self, before: Tally) -> Tally:
        """What came after another."""
        return Tally(*(getattr(self, one.name) - getattr(before, one.name) for one in fields(self)))

    def counts(self, what: str, unit: str) -> dict[str, int]:
        """By names that begin with what was done."""
        return {
            f"{what}: {OPERATORS} per {unit}": self.operators,
            f"{what}: forward passes per {unit}": self.passes,
            f"{what}: tokens through the model per {unit}": self.tokens,
            f"{what}: padding among them": self.padding,
        }


class Counter(TorchDispatchMode):
    """Counts while it is open what torch dispatches, and what passes through a model's decoder."""

    def __init__(self, model: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        inner = inner_of(model)
        self._decoder = getattr(inner, inner.base_model_prefix)
        self._operators = self._passes = self._tokens = self._padding = 0

    @property
    def tally(self) -> Tally:
        """So far."""
        return Tally(self._operators, self._passes, self._tokens, self._padding)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._operators += 1
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> Self:
        self._hook = self._decoder.register_forward_pre_hook(self._passed, with_kwargs=True)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        self._hook.remove()

    def _passed(self, module: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        ids, mask = kwargs["input_ids"] if "input_ids" in kwargs else args[0], kwargs.get("attention_mask")
        self._passes += 1
        self._tokens += ids.numel()
        if mask is not None and mask.dim() == 2:
            operators = self._operators
            # While answers are written, the mask covers what the cache holds as well.
            self._padding += int((mask[:, -ids.shape[1] :] == 0).sum())
            self._operators = operators  # looking is no work


@dataclass(frozen=True)
class Workload:
    """The embedded model and the first training rows of the planted set."""

    base: Base
    tokenizer: Any
    rows: Sequence[TokenRow]

    @classmethod
    def embedded(cls) -> Workload:
        base = find_base("embedded/tiny")
        tokenizer = load_tokenizer(base)
        found = read(DataSource("embedded/planted", split="train", rows=PAIRS))
        return cls(base, tokenizer, tokenize(tokenizer, found, max_length=SETTINGS.max_length).rows)

    def counts(self) -> dict[str, int]:
        """All of them."""
        frozen = load_policy(self.base, FP32)
        reference = table_logps(frozen, self.rows, max_tokens=512) | mismatched_logps(frozen, self.rows, max_tokens=512)
        found: dict[str, int] = {}
        for method in METHODS:
            found |= self._step(method, reference)
        model = add_adapter(frozen, Lora(), seed=0).eval()
        found |= self._scoring(model) | self._generation(model)
        table = TokenRows.of(self.rows)
        # Each answer with a prompt of its own, as a table of padded rows would have it.
        tokens = sum(2 * len(row.prompt) + len(row.chosen or ()) + len(row.rejected or ()) for row in self.rows)
        return found | {f"token table: tokens of {PAIRS} pairs": tokens, "token table: bytes": table.table.nbytes}

    def _step(self, method: str, reference: Mapping[str, Tensor]) -> dict[str, int]:
        """The second step of a training, and what this leaves behind."""
        declared: Any = load_registry()[method].algorithm
        load = load_scorer if declared.kind == "reward" else load_policy
        model = add_adapter(load(self.base, FP32), Lora(), seed=0)
        answers = 2 if declared.data == "unpaired" else 1
        after: list[Tally] = []
        with tempfile.TemporaryDirectory() as name, Counter(model) as counter:
            folder = Path(name)
            job = TrainingJob(
                model=model,
                rows=self.rows,
                algorithm=declared,
                parameters=declared.resolve({}),
                learning_rate=1e-3,
                settings=SETTINGS.model_copy(update={"batch_size": SETTINGS.batch_size * answers}),
                seed=0,
                checkpoint=folder / "checkpoint.pt",
                update=lambda *_: after.append(counter.tally),
            )
            train(job, reference if declared.reference else None)
            first, second = after
            checkpoint = checkpoints.last_good(folder / "checkpoint.pt", print)
            save_adapter(model, folder)
            adapter = (folder / "adapter_model.safetensors").stat().st_size
        kept = sum(value.nbytes for value in tree_leaves(checkpoint) if isinstance(value, Tensor))
        sizes = {f"{method}: bytes of tensors in a checkpoint": kept, f"{method}: bytes of an adapter": adapter}
        return second.since(first).counts(method, "step") | sizes

    def _scoring(self, model: Any) -> dict[str, int]:
        table_logps(model, self.rows[:1], max_tokens=512)  # looks whether the model can take the shortcuts
        with Counter(model) as counter:
            table_logps(model, self.rows, max_tokens=512)
        return counter.tally.counts("scoring", f"{PAIRS} pairs")

    def _generation(self, model: Any) -> dict[str, int]:
        prompts, wanted = [row.prompt for row in self.rows], Generate(max_new_tokens=NEW_TOKENS)
        generate(model, self.tokenizer, prompts[:1], wanted, seed=0)
        with Counter(model) as counter:
            answers = generate(model, self.tokenizer, prompts, wanted, seed=0)
        tokens = sum(len(one.ids) for several in answers for one in several)
        return counter.tally.counts("generation", f"{PAIRS} answers") | {"generation: tokens of answers": tokens}


def held_with() -> str:
    """The versions that decide how many operators there are."""
    names = ("torch", "transformers")
    return ", ".join(f"{name} {'.'.join(version(name).split('.')[:2])}" for name in names)


@dataclass(frozen=True, slots=True)
class Known:
    """What was counted before.

    Attributes:
        operators: versions → counts of operators.
        counts: all others.
    """

    operators: Mapping[str, Counts]
    counts: Counts

    @classmethod
    def in_file(cls, path: Path) -> Known:
        """That of a file; nothing where there is none."""
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else cls({}, {})

    def with_those(self, found: Counts, versions: str) -> Known:
        """The same with what was counted now; operators of other versions stay."""
        counts = {name: count for name, count in found.items() if OPERATORS not in name}
        operators = {name: count for name, count in found.items() if OPERATORS in name}
        return Known(dict(sorted({**self.operators, versions: operators}.items())), counts)

    def write(self, path: Path) -> None:
        """Put it into a file."""
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison comes to, in lines.

    Attributes:
        grown: counts that grew, and those that only one side has: a failure.
        shrunk: counts that fell.
        skipped: what could not be held, and why.
    """

    grown: tuple[str, ...]
    shrunk: tuple[str, ...]
    skipped: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """For whoever reads it, with what to do."""
        lines = [*self.grown]
        if self.grown:
            lines.append(f"More is needed than before. If this is meant, run {COMMAND} and say why in the commit.")
        lines += self.shrunk
        if self.shrunk:
            lines.append(f"Less is needed than before. Run {COMMAND}, so that it stays so.")
        return [*lines, *self.skipped] or ["no count has changed"]


def compare(found: Counts, known: Known, versions: str) -> Verdict:
    """Hold counts to those that are known.

    Args:
        found: what was counted now.
        known: what was counted before.
        versions: that it was counted with now, as of `held_with`.
    """
    skipped: tuple[str, ...] = ()
    expected = dict(known.counts)
    if versions in known.operators:
        expected |= known.operators[versions]
    else:
        others = " and of ".join(known.operators) or "none"
        skipped = (f"operators are not held: here are {versions}, and the counts are those of {others}",)
        found = {name: count for name, count in found.items() if OPERATORS not in name}
    both = [(name, expected[name], found[name]) for name in found if name in expected]
    only = [f"{name}: {found[name]:,}, of which nothing is known" for name in found if name not in expected]
    gone = [
        f"{name}: was {count:,}, and is not counted any more" for name, count in expected.items() if name not in found
    ]
    return Verdict(
        (*(_line(*each) for each in both if each[2] > each[1]), *only, *gone),
        tuple(_line(*each) for each in both if each[2] < each[1]),
        skipped,
    )


def _line(name: str, before: int, now: int) -> str:
    return f"{name} {before:,} → {now:,}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, compare, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help=f"write {FILE.name} anew")
    given = parser.parse_args(arguments)
    found, known, versions = Workload.embedded().counts(), Known.in_file(FILE), held_with()
    verdict = compare(found, known, versions)
    if given.update:
        known.with_those(found, versions).write(FILE)
        print(*verdict.grown, *verdict.shrunk, f"{FILE.name} is written; say in the commit why", sep="\n")
        return 0
    print(*verdict.lines, sep="\n")
    return 1 if verdict.grown else 0


if __name__ == "__main__":
    sys.exit(main())
