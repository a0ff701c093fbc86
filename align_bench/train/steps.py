"""The steps of a training: accumulated gradients, the optimizer, checkpoints, and memory that runs out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from align_bench.errors import ModelError, PluginError
from align_bench.models.activation_checkpointing import checkpoint_activations, keep_activations
from align_bench.models.cuda_graphs import Graphs, can_capture, graphs
from align_bench.models.flat_weights import FlatWeights, flattened
from align_bench.models.out_of_memory import is_out_of_memory
from align_bench.models.transfer import OnItsWay, queues
from align_bench.train import checkpoints
from align_bench.train.auxiliary import companion_of
from align_bench.train.checkpoints import Checkpoint
from align_bench.train.group import ALONE, GroupOutOfMemoryError

if TYPE_CHECKING:
    from align_bench.api import Algorithm, Loss, Running
    from align_bench.train.group import Group
    from align_bench.train.job import TrainingJob


T = TypeVar("T")
NO_FACTS: Mapping[str, float] = {}
_LEAST = 128  # tokens of a micro-batch, which nearly any example has


def one_process() -> Accelerator:
    """What backward passes and clipping go through; what other processes add, `train.group` exchanges.

    Raises:
        ModelError: when started as one of several processes, by something else than align-bench.
    """
    accelerator = Accelerator(mixed_precision="no")
    if accelerator.num_processes > 1:
        raise ModelError(
            "align-bench was started as one of several processes, and starts its own",
            fix="start it without accelerate launch or torchrun: train.processes in the suite says how many processes "
            "train a cell together, and --jobs auto trains a cell on each GPU",
        )
    return accelerator


@dataclass(frozen=True, slots=True)
class Sums:
    """What the log shows of one effective batch: scalars on the model's device, which nobody has waited for.

    Attributes:
        values: sums over the examples, float64 where the device has it.
        correlations: Pearson's r, not finite where a side does not vary.
    """

    values: Mapping[str, Tensor]
    correlations: Mapping[str, Tensor]


class Budget:
    """Padded tokens per micro-batch; halved whenever device or host run out of memory, and the step done again.

    Where passes of single examples are too much as well, layers keep their inputs only; where that is too much again,
    an accelerator leaves these in the host's memory. Each time passes are large again at first. A context: at its end,
    layers keep what they kept before.

    Attributes:
        tokens: of a micro-batch, padding included.

    Args:
        model: what trains.
        tokens: of the first micro-batch that is tried.
        say: takes a line for whoever watches.
        checkpointed: whether layers keep their inputs only from the start.
        graphed: whether passes on a CUDA device go as CUDA graphs.
        flat: the weights that learn.

    Raises:
        ModelError: they should, and the architecture cannot.
    """

    def __init__(
        self,
        model: Any,
        tokens: int,
        say: Callable[[str], None],
        *,
        checkpointed: bool,
        graphed: bool = False,
        flat: Sequence[FlatWeights] = (),
    ) -> None:
        self.tokens = tokens
        self._model = model
        self._flat = flat
        self._first = tokens
        self._say = say
        self._checkpointed = checkpointed
        self._offloaded = False
        self._graphs = Graphs(say, flat) if graphed and can_capture(model.device) else None

    def __enter__(self) -> Self:
        if self._checkpointed:
            checkpoint_activations(self._model)
        return self

    def __exit__(self, *_: object) -> None:
        keep_activations(self._model)  # the base goes on to the next training

    def run(self, attempt: Callable[[int], T], group: Group = ALONE) -> T:
        """What an attempt returns that is given as many tokens as fit; in a group, all halve them or none does."""
        while True:
            offloaded = torch.autograd.graph.save_on_cpu(pin_memory=True) if self._offloaded else nullcontext()
            try:
                with graphs(self._graphs), offloaded:
                    return attempt(self.tokens)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                told = group.size == 1 or isinstance(error, GroupOutOfMemoryError)
                if not told or not is_out_of_memory(error) or not self._shrink():
                    raise
            self._model.zero_grad(set_to_none=True)
            for flat in self._flat:
                flat.forget()
            if self._graphs is not None:
                self._graphs.forget()
            torch.cuda.empty_cache()

    def _shrink(self) -> bool:
        """Whether there is something left that takes less memory, which from now on is done."""
        if self.tokens > _LEAST:
            self.tokens //= 2
            return True
        if not self._checkpointed:
            try:
                checkpoint_activations(self._model)
            except ModelError:
                return False
            self._checkpointed = True
            how = "layers compute again in the backward pass (train.activation_checkpointing)"
        elif not self._offloaded and self._model.device.type != "cpu":
            self._offloaded = True
            how = "what the backward pass needs waits in the host's memory"
        else:
            return False
        self.tokens = self._first
        self._say(f"memory ran out with single examples: from here on, {how}, which takes longer")
        return True


def budget_of(job: TrainingJob[Algorithm], state: State) -> Budget:
    """What the micro-batches of a training may hold, while its context lasts."""
    settings = job.settings
    return Budget(
        job.model,
        job.pass_tokens,
        job.say,
        checkpointed=settings.activation_checkpointing,
        graphed=settings.cuda_graphs,
        flat=state.flat,
    )


def accumulated(accelerator: Accelerator, losses: Iterable[Loss], examples: int, group: Group = ALONE) -> Sums:
    """Backward over the losses of this process's micro-batches.

    Args:
        accelerator: from `one_process`.
        losses: of the micro-batches, one after the other.
        examples: how many the effective batch has, in all processes together.
        group: the processes.

    Returns:
        What the log shows, of all processes together.
    """
    sums: dict[str, Tensor] = {}
    correlated: dict[str, list[Tensor]] = {}
    with group.within_memory():
        for loss in losses:
            accelerator.backward(loss.values.sum() / examples)
            _add(sums, _logged(loss))
            for name, values in loss.correlations.items():
                both = [value.detach().to(loss.values.device, torch.float32) for value in values]
                correlated.setdefault(name, []).append(torch.stack(both))
    if group.size > 1:
        sums, correlated = _of_all(group, sums, correlated, accelerator.device)
    return Sums(sums, {name: _correlation(torch.cat(parts, dim=1)) for name, parts in correlated.items()})


def _of_all(
    group: Group, sums: Mapping[str, Tensor], correlated: Mapping[str, Sequence[Tensor]], device: torch.device
) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
    """The sums and the correlated values of all processes, in their order; they are exchanged through the host."""
    own = {name: value.cpu() for name, value in sums.items()}
    parts = {name: [part.cpu() for part in several] for name, several in correlated.items()}
    total: dict[str, Tensor] = {}
    together: dict[str, list[Tensor]] = {}
    for their_sums, their_parts in group.gathered((own, parts)):
        _add(total, their_sums)
        for name, several in their_parts.items():
            together.setdefault(name, []).extend(part.to(device) for part in several)
    return {name: value.to(device) for name, value in total.items()}, together


def _add(sums: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value


def _correlation(both: Tensor) -> Tensor:
    """Pearson's r of two rows, as `torch.corrcoef` has it, which looks at numbers on the way."""
    apart = both - both.mean(1, keepdim=True)
    covariance = apart @ apart.T / (both.shape[1] - 1)
    deviation = covariance.diagonal().sqrt()
    return (covariance[0, 1] / deviation[0] / deviation[1]).clamp(-1, 1)


def _logged(loss: Loss) -> dict[str, Tensor]:
    """Sums over the micro-batch of the loss, the rewards and the method's own metrics."""
    values: dict[str, Tensor] = {"loss": loss.values, **loss.metrics}
    if loss.chosen_rewards is not None and loss.rejected_rewards is not None:
        margin = loss.chosen_rewards - loss.rejected_rewards
        values |= {"chosen_reward": loss.chosen_rewards, "rejected_reward": loss.rejected_rewards, "margin": margin}
        values["accuracy"] = (margin > 0).float() + 0.5 * (margin == 0).float()
    if loss.rewards is not None:
        values["reward"] = loss.rewards
    device = loss.values.device  # a plugin may leave its metrics on another one
    return {name: value.detach().sum().to(device, _widest(device)) for name, value in values.items()}


def _widest(device: torch.device) -> torch.dtype:
    """What sums are kept in: float64, which Apple's and some of Intel's GPUs do not have."""
    return torch.float32 if device.type in ("mps", "xpu") else torch.float64


class _Numbers:
    """The numbers of a step, which come to the host in one copy.

    Args:
        step: its number, from 1 on.
        sums: of its effective batch.
        examples: in that.
        norm: of the gradient.
        known: further numbers for the log, which the host knows.
    """

    def __init__(self, step: int, sums: Sums, examples: int, norm: Tensor, known: Mapping[str, float]) -> None:
        scalars = [*sums.values.values(), *sums.correlations.values(), norm]
        self._coming = OnItsWay(torch.stack([scalar.to(_widest(norm.device)) for scalar in scalars]))
        self._step, self._examples, self._known = step, examples, known
        self._means, self._correlations = [*sums.values], [*sums.correlations]

    def entry(self) -> dict[str, float]:
        """The step's entry in the log: means over the examples, and correlations where there are any.

        Raises:
            PluginError: the loss or the gradient is not finite.
        """
        *read, gradient_norm = self._coming.read().tolist()
        means = {name: value / self._examples for name, value in zip(self._means, read, strict=False)}
        if not (math.isfinite(means["loss"]) and math.isfinite(gradient_norm)):
            raise PluginError(
                f"loss {means['loss']} and gradient norm {gradient_norm} at step {self._step}: training diverged",
                fix="lower its learning_rate, or check the loss at extreme margins",
            )
        correlations = zip(self._correlations, read[len(means) :], strict=True)
        finite = {name: value for name, value in correlations if math.isfinite(value)}
        return {"step": self._step, **means, **finite, **self._known, "gradient_norm": gradient_norm}


def _groups(model: Any, learning_rate: float) -> list[tuple[list[FlatWeights], float]]:
    """The trained parameters by their peak learning rate: the adapter first, then its companion where one learns."""
    companion = companion_of(model)
    beside = [] if companion is None else list(companion.parameters())
    known = {id(parameter) for parameter in beside}
    adapter = [value for value in model.parameters() if value.requires_grad and id(value) not in known]
    groups = [(flattened(adapter), learning_rate)]
    if companion is not None and beside:
        groups.append((flattened(beside), learning_rate * companion.learning_rate_factor))
    return groups


class State:
    """All that a step changes, so that a checkpoint of it is the whole truth; goes on from one where there is one.

    Where the host can be ahead of the device, a step's numbers are read when the next one is queued: the device has
    work while the host lays out rows. Before a checkpoint, and at the end, all are read.

    Attributes:
        flat: the weights that learn.
        step: optimizer steps so far.
        tokens: tokens of prompts and answers so far.
        log: a mapping for each step whose numbers were read.
        running: what the method remembers of the batches so far.
        reference: the trained weights of a reference that has moved, by name; empty where none has.

    Args:
        job: the training.
        total: its steps.
        group: the processes that train together.
        shown: the number of a step that progress shows.
    """

    def __init__(self, job: TrainingJob[Algorithm], total: int, group: Group = ALONE, *, shown: str = "loss") -> None:
        from transformers import get_scheduler

        model, settings = job.model, job.settings
        self.group = group
        self.trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.settings = settings
        rate = job.learning_rate
        groups = _groups(model, rate)
        self.flat = [one for several, _ in groups for one in several]
        self.optimizer = torch.optim.AdamW(
            [{"params": [one.buffer for one in several], "lr": own} for several, own in groups],
            lr=rate,
            weight_decay=settings.weight_decay,
            betas=(0.9, 0.999),
            fused={one.buffer.device.type for one in self.flat} <= {"cpu", "cuda"},
        )
        warmup = math.ceil(settings.warmup * total)
        name = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
        self.scheduler = get_scheduler(name, self.optimizer, num_warmup_steps=warmup, num_training_steps=total)
        self.step = 0
        self.tokens = 0
        self.log: list[dict[str, float]] = []
        self.running: Running = {}
        self.reference: dict[str, Tensor] = {}
        self._job, self._total, self._shown = job, total, shown
        self._unread: list[_Numbers] = []
        torch.manual_seed(job.seed)
        self.checkpoint = job.checkpoint if group.rank == 0 else None
        path = job.checkpoint
        found = None if path is None else group.from_first(lambda: checkpoints.last_good(path, job.say))
        if found is not None:
            self._restore(found)
        self._saved = self._started = time.monotonic()

    def advance(
        self, accelerator: Accelerator, sums: Sums, examples: int, tokens: int, facts: Mapping[str, float] = NO_FACTS
    ) -> None:
        """One optimizer step from the gradients that all processes have accumulated; its numbers are logged once read.

        Args:
            accelerator: what clips.
            sums: of the effective batch.
            examples: in it.
            tokens: that these brought.
            facts: further numbers for the log.

        Raises:
            PluginError: the loss or the gradient is not finite.
        """
        for one in self.flat:
            one.gather()
        buffers = [one.buffer for one in self.flat]
        self.group.sum_gradients(buffers)
        norm = accelerator.clip_grad_norm_(buffers, self.settings.max_grad_norm)
        known = {**facts, "learning_rate": self.scheduler.get_last_lr()[0]}
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += tokens
        self._unread.append(_Numbers(self.step, sums, examples, norm, known))
        self.read(but=1 if queues(norm.device) else 0)

    def read(self, *, but: int = 0) -> None:
        """Log and show the steps whose numbers were not read yet, but for the last few.

        Raises:
            PluginError: the loss or the gradient of one is not finite.
        """
        while len(self._unread) > but:
            entry = self._unread.pop(0).entry()
            entry["seconds"] = time.monotonic() - self._started
            self.log.append(entry)
            self._job.log(entry)
            self._job.update(len(self.log), self._total, f"{self._shown} {entry[self._shown]:.3f}")

    def save_if_due(self) -> None:
        """Write the checkpoint, `settings.checkpoint_minutes` after the last one."""
        if self.checkpoint is not None and time.monotonic() - self._saved > 60 * self.settings.checkpoint_minutes:
            self.read()
            checkpoints.write(self.checkpoint, self._content())
            self._saved = time.monotonic()

    def _content(self) -> Checkpoint:
        return {
            "weights": {name: parameter.detach().cpu() for name, parameter in self.trainable.items()},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": json.dumps(self.scheduler.state_dict()),
            "step": self.step,
            "tokens": self.tokens,
            "log": json.dumps(self.log),
            "running": json.dumps(dict(self.running)),
            "reference": {name: weight.cpu() for name, weight in self.reference.items()},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def _restore(self, content: Checkpoint) -> None:
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                parameter.copy_(content["weights"][name])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scheduler.load_state_dict(json.loads(content["scheduler"]))
        self.step, self.tokens = content["step"], content["tokens"]
        self.log = json.loads(content["log"])
        self.running = json.loads(content["running"])
        self.reference = {name: weight.to(self.trainable[name].device) for name, weight in content["reference"].items()}
        torch.set_rng_state(content["random"])
        if torch.cuda.is_available() and self.group.size == 1:  # of several, each sees a device of its own
            torch.cuda.set_rng_state_all(content["random_cuda"])
