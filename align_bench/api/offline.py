"""Methods whose loss reads given answers, and the decorator that declares them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from align_bench.api.algorithms import Algorithm, checked_rate, checked_rates, documentation
from align_bench.api.auxiliaries import Auxiliary
from align_bench.api.batches import Batch, Running, fields_of
from align_bench.api.declaring import checked_function, declaring, in_short, is_number
from align_bench.api.loss import Loss, RewardField, checked_loss
from align_bench.api.readings import READINGS, OfflineData, Reading, agreed, as_record, batch_type, names_a_record
from align_bench.api.signatures import named_by, parameters_of
from align_bench.errors import PluginError, nearest
from align_bench.records import Parameters, Scalar

ClosedForm: TypeAlias = float | tuple[float, float]
FallsWith: TypeAlias = Literal["sides", "margin", "nothing"]
AtReference: TypeAlias = ClosedForm | Callable[..., ClosedForm]


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineAlgorithm(Algorithm):
    """A method whose loss reads given answers: log-probabilities of a policy, or scores of a reward model.

    Attributes:
        function: the loss.
        reading: what the loss reads.
        at_reference, normalised, uses_rejected, falls_with: what the conformance kit may hold it to; see `algorithm`.
        auxiliary: from the hyper-parameters, by keyword, to what stands beside the reward model; None for nothing.
        running: what the method remembers; see `algorithm`.
        moving_reference: after how many optimizer steps the policy becomes the reference; see `algorithm`.
    """

    function: Callable[..., object]
    reading: Reading
    at_reference: AtReference | None = None
    normalised: bool | None = None
    uses_rejected: bool | Callable[..., bool] = True
    falls_with: FallsWith = "sides"
    auxiliary: Callable[..., Auxiliary] | None = None
    running: Callable[..., Running] | None = None
    moving_reference: Callable[..., int] | None = None

    @property
    def reference_in_words(self) -> str:
        """Whether it reads a reference, and whether that one moves."""
        if self.moving_reference is not None:
            return "yes, a moving one"
        return "yes" if self.reference else "no"

    @property
    def reward_fields(self) -> tuple[RewardField, ...]:
        """The fields of `Loss` that hold its rewards."""
        return ("rewards",) if self.data in ("chosen", "unpaired") else ("chosen_rewards", "rejected_rewards")

    def beside(self, parameters: Parameters) -> Auxiliary | None:
        """What stands beside the reward model at these hyper-parameters; None for nothing.

        Raises:
            PluginError: when it is not what the loss's batch is annotated to bring.
        """
        if self.auxiliary is None:
            return None
        found = self.auxiliary(**named_by(self.auxiliary, parameters))
        expected = self.reading.auxiliary or get_args(Auxiliary)
        if not isinstance(found, expected):
            named = getattr(expected, "__name__", "a BiasExpert, an Adversary or a LengthHead")
            raise PluginError(f"{self.name}: its auxiliary is {found!r}, expected {named}, which its batch reads")
        return found

    def remembered(self, before: Running, batch: Batch, parameters: Parameters) -> dict[str, float]:
        """What the method remembers once it has seen one more effective batch.

        Args:
            before: what it remembered until then; empty at the first batch.
            batch: the whole effective batch, no gradient.
            parameters: its hyper-parameters.

        Raises:
            PluginError: when it is no mapping from names to finite numbers.
        """
        if self.running is None:
            return {}
        found: object = self.running(before, batch, **named_by(self.running, parameters))
        if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
            raise PluginError(
                f"{self.name}: running= returned {in_short(found)}, expected a mapping from names to numbers"
            )
        numbers = {name: float(value) for name, value in found.items()}
        if bad := [name for name, value in numbers.items() if not is_number(value)]:
            raise PluginError(f"{self.name}: running= returned {bad[0]}={numbers[bad[0]]}, expected a finite number")
        return numbers

    def of_one_batch(self, rows: Batch, parameters: Parameters) -> Batch:
        """What the loss reads where these rows are the whole effective batch, and the first one."""
        if not self.reading.batch:
            return rows
        import torch

        running = self.remembered({}, rows, parameters)
        whole = {"batch": rows, "place": torch.arange(len(rows)), "running": running}
        return as_record(self.reading, fields_of(rows) | whole)

    def sync_steps(self, parameters: Parameters) -> int | None:
        """Optimizer steps after which the policy becomes its own reference, each time; None where that one stays.

        Raises:
            PluginError: when it is no whole number ≥ 1.
        """
        if self.moving_reference is None:
            return None
        found: object = self.moving_reference(**named_by(self.moving_reference, parameters))
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise PluginError(
                f"{self.name}: moving_reference= returned {in_short(found)}, expected a whole number of steps ≥ 1"
            )
        return found

    def remarks(self, parameters: Parameters, start: str = "the base") -> tuple[str, ...]:
        """When its reference moves, where it does."""
        steps = self.sync_steps(parameters)
        if steps is None:
            return ()
        return (
            f"its reference becomes the policy every {steps} optimizer steps; rewards of pairs are read against the "
            "first one",
        )

    def closed_form(self, parameters: Parameters) -> ClosedForm | None:
        """The declared loss where the policy equals the reference; None when none is declared."""
        if callable(self.at_reference):
            return self.at_reference(**named_by(self.at_reference, parameters))
        return self.at_reference

    def reads_rejected(self, parameters: Parameters) -> bool:
        """Whether rejected (undesirable) answers move the loss at these hyper-parameters, as declared."""
        if callable(self.uses_rejected):
            return self.uses_rejected(**named_by(self.uses_rejected, parameters))
        return self.uses_rejected

    def __call__(self, batch: Batch, **parameters: Scalar) -> Loss:
        """The loss of one batch.

        Raises:
            PluginError: when it is not what the contract asks for.
        """
        found = self.function(batch, **parameters)
        return checked_loss(found, self.name, len(batch), self.data, self.reward_fields)


@declaring
def algorithm(
    *,
    paper: str,
    learning_rate: float,
    reward: str,
    data: OfflineData | None = None,
    reference: bool | None = None,
    learning_rate_range: tuple[float, float] | None = None,
    at_reference: AtReference | None = None,
    normalised: bool | None = None,
    uses_rejected: bool | Callable[..., bool] = True,
    falls_with: FallsWith = "sides",
    auxiliary: Callable[..., Auxiliary] | None = None,
    running: Callable[..., Running] | None = None,
    moving_reference: Callable[..., int] | None = None,
) -> Callable[[Callable[..., Loss]], OfflineAlgorithm]:
    """Declare a loss on given answers as a method of the benchmark. Its signature is its hyper-parameter schema.

    What it reads is the annotated type of its first argument, one of the records of `batches`. Functions of
    hyper-parameters (`at_reference`, `uses_rejected`, `auxiliary`, `moving_reference`) get those that they name, by
    keyword.

    Args:
        paper: citation, such as `arXiv:2305.18290`.
        learning_rate: default peak learning rate for LoRA adapters.
        reward: definition of the rewards in the returned `Loss`, in one phrase for the tables.
        data: the kind of data, where the batch has no annotation that tells it: `pairs`, `chosen`, `unpaired` or
            `scores`.
        reference: whether the loss reads reference log-probabilities, likewise.
        learning_rate_range: lowest and highest one that suit LoRA adapters; outside of them a run warns.
        at_reference: the closed form of a row's loss where the policy equals the reference (`scores`: where both scores
            are 0) and the margin is 1, or a function of the hyper-parameters that returns it; a pair of numbers stands
            for desirable and undesirable answers. `align-bench check` holds the loss to it.
        normalised: True when the loss reads log-probabilities per token, so that answers twice as long at the same `s̄`
            leave it alone; False when it reads sums and never token counts; None when neither holds.
        uses_rejected: whether rejected (undesirable) answers move the loss, or a function of the hyper-parameters that
            tells it.
        falls_with: what lowers the loss near the reference. `sides`: a likelier chosen answer, and a less likely
            rejected one. `margin`: a wider margin, where the chosen answer itself may become less likely. `nothing`:
            by its source, the loss need not fall with the margin there; nothing is checked.
        auxiliary: a function of the hyper-parameters that returns a `BiasExpert`, an `Adversary` or a `LengthHead`,
            whose record the loss reads; for scores only.
        running: for losses that read the whole batch: a function of what the method remembered so far (a mapping from
            names to numbers, empty at first), the whole effective batch and the hyper-parameters that it names, which
            returns what the method remembers from there on. It is called once per effective batch, before the loss,
            whose record holds the result; checkpoints keep it.
        moving_reference: for losses that read a reference: a function of the hyper-parameters that returns after how
            many optimizer steps the policy becomes the reference, each time. Until the first time it is the stored one,
            as for every other method; checkpoints keep its weights.

    Returns:
        A decorator that turns the function into an `OfflineAlgorithm`.

    Raises:
        PluginError: when the declaration or the signature cannot be used.
    """

    def declare(function: Callable[..., Loss]) -> OfflineAlgorithm:
        name = function.__name__
        if data is not None and data not in get_args(OfflineData):
            raise PluginError(f"{name}: data={data!r}. {nearest(str(data), get_args(OfflineData), what='data kind')}")
        doc = documentation(function)
        rate = checked_rate(name, learning_rate)
        reading = _reading(function, data, reference)
        if normalised not in (True, False, None):
            raise PluginError(f"{name}: normalised={in_short(normalised)}, expected True, False or None")
        if not isinstance(uses_rejected, bool) and not callable(uses_rejected):
            raise PluginError(f"{name}: uses_rejected={in_short(uses_rejected)}, expected True, False or a function")
        if auxiliary is not None:
            checked_function(name, "auxiliary", auxiliary)
        if at_reference is not None and not reading.reference and reading.data != "scores":
            raise PluginError(
                f"{name}: at_reference is declared, but the loss reads no reference",
                fix="annotate a record with a reference, such as ReferencedPairLogps, or leave at_reference out",
            )
        if falls_with not in get_args(FallsWith):
            raise PluginError(
                f"{name}: falls_with={falls_with!r}. {nearest(str(falls_with), get_args(FallsWith), what='direction')}"
            )
        if falls_with == "margin" and reading.data not in ("pairs", "scores"):
            raise PluginError(f"{name}: falls_with='margin', but data={reading.data!r} bring no margin")
        if running is not None:
            checked_function(name, "running", running)
            if not reading.batch:
                raise PluginError(
                    f"{name}: running= is declared, but its batch holds no whole effective batch",
                    fix="annotate a record that does, such as BatchPairLogps",
                )
        if moving_reference is not None:
            checked_function(name, "moving_reference", moving_reference)
            if not reading.reference:
                raise PluginError(
                    f"{name}: moving_reference= is declared, but the loss reads no reference",
                    fix="annotate a record with a reference, such as ReferencedPairLogps",
                )
        if auxiliary is not None and reading.data != "scores":
            raise PluginError(
                f"{name}: auxiliary= stands beside scores, got data={reading.data!r}",
                fix="annotate the batch as its record, such as BiasExpertScores",
            )
        if auxiliary is not None and reading.margin:
            raise PluginError(
                f"{name}: no record holds both a margin and an auxiliary's scores", fix="read one of them"
            )
        if reading.auxiliary is not None and auxiliary is None:
            raise PluginError(
                f"{name} reads the scores of a {reading.auxiliary.__name__}, but declares no auxiliary",
                fix=f"declare auxiliary=lambda: {reading.auxiliary.__name__}(…)",
            )
        return OfflineAlgorithm(
            name=name,
            function=function,
            reading=reading,
            data=reading.data,
            reference=reading.reference,
            paper=paper,
            learning_rate=rate,
            reward=reward,
            parameters=parameters_of(function, doc),
            doc=doc,
            at_reference=at_reference,
            normalised=normalised,
            uses_rejected=uses_rejected,
            falls_with=falls_with,
            auxiliary=auxiliary,
            running=running,
            moving_reference=moving_reference,
            learning_rate_range=checked_rates(name, rate, learning_rate_range),
        )

    return declare


def _reading(function: Callable[..., object], data: OfflineData | None, reference: bool | None) -> Reading:
    """What the loss reads, by the type of its batch, or as declared where that has none."""
    name, batch = function.__name__, batch_type(function)
    found = READINGS.get(batch) if isinstance(batch, type) else None
    if found is None and ((data is None and batch is not None) or names_a_record(batch)):
        shown = getattr(batch, "__name__", batch)
        raise PluginError(
            f"{name}: its batch is annotated as {shown}, which is no record of given answers",
            fix="annotate one, such as logps: PairLogps; a loss on the policy's own answers is @online's",
        )
    if found is None and data is None:
        raise PluginError(
            f"{name}: its batch has no type that tells what it reads",
            fix="annotate the first argument, such as logps: PairLogps, or declare data='pairs'",
        )
    if found is None:
        assert data is not None
        if data == "scores" and reference:
            raise PluginError(f"{name}: reference=True, but scores have none", fix="leave reference out")
        return Reading(data, bool(reference), mismatched=data == "unpaired" and bool(reference))
    others = " or ".join(kind.__name__ for kind, each in READINGS.items() if each.data == (data or found.data))
    agreed(name, batch, known=others, what="data", read=found.data, said=data)
    agreed(name, batch, known=others, what="reference", read=found.reference, said=reference)
    return found
