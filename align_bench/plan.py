"""Suite × methods × parameters × seeds → cells, and the address of every artefact that they need.

Pure: all that depends on files, weights or hardware comes in as `Inputs`.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from align_bench.api import Algorithm, Recipe, Selection
from align_bench.errors import SuiteError, nearest
from align_bench.records import OWN_SETTINGS, Kind
from align_bench.registry import Plugin, Registry
from align_bench.store import content_key
from align_bench.suite.models import (
    BASE_CELL,
    GOLD,
    JUDGE_CELL,
    AnyJudge,
    DataFile,
    Ensemble,
    Generate,
    GoldJudge,
    LoadedJudge,
    Method,
    Suite,
    TrainedJudge,
    judge_cell,
    judge_names,
)
from align_bench.tune import points


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the plan cannot know by itself.

    Attributes:
        train, val: fingerprints of the rows.
        judge: for each judge of the suite, the fingerprint of its rows, or the digest of the loaded model; None for
            gold.
        base: digest of the base's weights, tokenizer and template.
        precision: resolved storage, compute type and device, such as `nf4/float32/cpu`.
        versions: library → version, of those that numbers depend on.
        foreign: library → version, of those that only recipes train with.
    """

    train: str
    val: str
    judge: tuple[str | None, ...]
    base: str
    precision: str
    versions: Mapping[str, str]
    foreign: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Address:
    """Where an artefact lies in the store."""

    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One column of work: a method with its parameters and seed (or the untrained base), and its artefacts.

    Attributes:
        id: unique in the suite: `dpo`, `rm[learning_rate=1e-05]`, `dpo#1`, `base`, `judge`, `judge2`.
        plugin: its method; None for the base and for a loaded judge.
        parameters: all hyper-parameters of the loss, resolved.
        learning_rate: peak learning rate; None for the base.
        seed: seed of initialisation, row order and sampling.
        adapter: the trained adapter; None for the base and for a selection.
        reference: base log-probabilities of the training rows; None when the loss reads none.
        val: log-probabilities or scores of the validation pairs; None for a selection, which has none.
        generations: answers to the validation prompts; None for reward models.
        judged: id of a judge's cell → its scores of them.
        drift: their log-probabilities under the policy and under the base; None without a trained policy.
        audit: a reward model's scores of validation pairs with changed texts; None for other cells.
        rows: the table that it trains on: `train`, or a judge's own.
        loaded: the model of a loaded judge.
        reward: the reward model that an online method is trained against, or that a selection picks by; None for
            other methods and for `gold`.
        proxy: its own reward model's scores of its generations; None without a reward model.
        base_proxy: the same model's scores of the base's generations.
        draws: answers of the base that a selection picks among, a set of one an answered prompt; empty for others.
        settings: training settings of its own, in place of the suite's (`OWN_SETTINGS`).
        mismatched: base log-probabilities of the training rows with another row's answers; None when the loss reads
            none.
    """

    id: str
    plugin: Plugin | None
    parameters: Mapping[str, Any]
    learning_rate: float | None
    seed: int
    adapter: Address | None
    reference: Address | None
    val: Address | None
    generations: Address | None
    judged: Mapping[str, Address]
    drift: Address | None = None
    audit: Address | None = None
    rows: str = "train"
    loaded: LoadedJudge | None = None
    reward: Cell | None = None
    proxy: Address | None = None
    base_proxy: Address | None = None
    draws: tuple[Address, ...] = ()
    settings: Mapping[str, int] = field(default_factory=dict)
    mismatched: Address | None = None

    @property
    def algorithm(self) -> str:
        """The method's name; `base` for the base, `judge` for a judge."""
        if self.is_judge:
            return JUDGE_CELL
        return self.plugin.algorithm.name if self.plugin else self.id

    @property
    def is_judge(self) -> bool:
        """Whether it is a judge, or a member of a judge's ensemble (`judge#0`, `judge#1`, …)."""
        return self.rows != "train"

    @property
    def kind(self) -> Kind:
        """What the cell holds: a reward model, a policy, or the base."""
        if self.loaded is not None:
            return "reward"
        return self.plugin.algorithm.kind if self.plugin else "base"

    @property
    def all_parameters(self) -> dict[str, Any]:
        """Hyper-parameters with the learning rate, as reports show them."""
        if self.loaded is not None:
            return {"model": self.loaded.title, "revision": self.loaded.revision, "template": self.loaded.template}
        if self.plugin is None:
            return {}
        judge = {"method": self.plugin.algorithm.name} if self.is_judge else {}
        rate = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        return {**judge, **rate, **self.settings, **self.parameters}

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line for each hyper-parameter that is outside the range that its method declares."""
        if self.plugin is None:
            return ()
        algorithm, given = self.plugin.algorithm, self.all_parameters
        return tuple(
            f"{name}={given[name]:g} is outside the range {found} that {algorithm.name} declares "
            f"({'LoRA adapters' if name == 'learning_rate' else algorithm.paper})"
            for name, found in algorithm.ranges.items()
            if given[name] not in found
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of its numbers has to know beside its parameters."""
        algorithm = self.plugin and self.plugin.algorithm
        if not isinstance(algorithm, Selection):
            return ()
        bound = algorithm.kl_bound(self.parameters)
        return (
            f"picks each answer by {self.parameters['reward']} among {self.parameters['n']} of the base, sampled at "
            f"temperature {self.parameters['temperature']:g}; its KL divergence from that is at most {bound:.3f} nats "
            "a prompt; pairs have no log-probability under it",
        )


@dataclass(frozen=True, slots=True)
class Panelist:
    """One judge of the suite.

    Attributes:
        name: the key of its scores.
        entry: what the suite says of it.
        members: its cell, or one for each member of its ensemble; none for gold.
        overlap: how many of its training rows are also the policies'; None where it is not trained here.
    """

    name: str
    entry: AnyJudge
    members: tuple[Cell, ...]
    overlap: Address | None

    @property
    def ensemble(self) -> Ensemble | None:
        """How the members' scores make one; None for a single one."""
        return self.entry.ensemble if isinstance(self.entry, TrainedJudge) else None


@dataclass(frozen=True, slots=True)
class Plan:
    """All cells of a suite, in the order in which they run.

    Attributes:
        tokens: split (`train`, `val`, `judge`, `judge2`, …) → its tokenised table.
        panel: the judges, the main one first.
        base: the untrained base.
        cells: one for each method, parameters and seed.
    """

    tokens: Mapping[str, Address]
    panel: tuple[Panelist, ...]
    base: Cell
    cells: tuple[Cell, ...]

    @property
    def fingerprint(self) -> str:
        """Changes whenever any artefact would."""
        return content_key([[label, address.kind, address.key] for label, address in self.addresses()])

    @property
    def judges(self) -> tuple[Cell, ...]:
        """The cells of all judges, members of ensembles one by one."""
        return tuple(cell for judge in self.panel for cell in judge.members)

    @property
    def judge(self) -> Cell | None:
        """The first judge's cell, or the first member of its ensemble."""
        return self.judges[0] if self.judges else None

    def addresses(self) -> Iterator[tuple[str, Address]]:
        """Every artefact once, with the label of the first cell that needs it."""
        seen: set[Address] = set()
        for split, address in self.tokens.items():
            yield f"tokens of {split}", address
        for panelist in self.panel:
            if panelist.overlap is not None:
                yield f"overlap of {panelist.name}", panelist.overlap
        for cell in [self.base, *self.judges, *self.cells]:
            scored = (cell.drift, *cell.judged.values(), cell.base_proxy, cell.proxy, cell.audit)
            for needed in (
                cell.reference,
                cell.mismatched,
                cell.adapter,
                cell.val,
                *cell.draws,
                cell.generations,
                *scored,
            ):
                if needed is not None and needed not in seen:
                    seen.add(needed)
                    yield cell.id, needed


@dataclass(frozen=True, slots=True)
class Tuning:
    """The trials of a suite with `tune`, as a plan of their own.

    Attributes:
        plan: its `train` is the part of train that trials train on, its `val` the held-out rest; its cells are all
            trials. It has no judge, and nothing is generated.
        trials: a method's cell, without its seed → its trials, in order; none for a method without declared ranges.
    """

    plan: Plan
    trials: Mapping[str, tuple[Cell, ...]]


# What is code: modules, and the page of the report.
CODE = {".py", ".j2", ".css", ".js"}


@cache
def code_digest(*names: str) -> str:
    """sha256 over the source of some of this package's subpackages and modules (`tune.py`).

    Code that changed must not reuse old results.
    """
    digest = hashlib.sha256()
    for name in names:
        place = Path(__file__).parent / name
        for path in [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.suffix in CODE):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def make_plan(
    suite: Suite, registry: Registry, inputs: Inputs, tuned: Mapping[str, Mapping[str, Any]] | None = None
) -> Plan:
    """Lay out the whole suite.

    Args:
        suite, registry, inputs: what the plan follows from.
        tuned: a method's cell, without its seed → the parameters that take the place of the given ones.

    Raises:
        SuiteError: for a parameter that a method does not have, or a value out of its bounds.
        PluginError: for an unknown method, or one whose file is broken.
    """
    tokens = {
        "train": _tokens(suite, suite.data.train, inputs.train, inputs),
        "val": _tokens(suite, suite.data.val, inputs.val, inputs),
    }
    for place, judge in enumerate(suite.judge):
        if isinstance(judge, TrainedJudge):
            tokens[judge_cell(place)] = _tokens(suite, judge.data, str(inputs.judge[place]), inputs)
    layout = _Layout(suite, inputs, tokens)
    panel = layout.panel(registry)
    judges = [cell for judge in panel for cell in judge.members]
    named = _named_variants(suite, registry)
    for name, found in (tuned or {}).items():
        named[name] = _variant(registry[named[name].method].algorithm, found, where=f"trials of {name}")
    laid_out: dict[str, Cell] = {}
    entries = [
        (f"{name}#{seed}" if len(suite.seeds) > 1 else name, variant, seed)
        for seed, (name, variant) in itertools.product(suite.seeds, named.items())
    ]
    for identity, variant, seed in _rewards_first(entries):
        plugin = registry[variant.method]
        reward = _reward_of(variant, seed, laid_out.values(), panel) if plugin.algorithm.rewarded else None
        laid_out[identity] = layout.cell(identity, plugin, variant, seed, "train", judges, reward)
    cells = tuple(laid_out[identity] for identity, _, _ in entries)
    return Plan(tokens, panel, layout.base(suite.seeds[0], judges), cells)


def plan_trials(suite: Suite, registry: Registry, inputs: Inputs) -> Tuning | None:
    """Lay out the trials of a suite with `tune`, all with its first seed; None for one without.

    Raises:
        as `make_plan` does.
    """
    if suite.tune is None:
        return None
    layout = _Layout(suite, inputs, {part: _cut(suite, inputs, part) for part in ("train", "val")})
    seed = suite.seeds[0]
    trials: dict[str, tuple[Cell, ...]] = {}
    named = [(name, variant, seed) for name, variant in _named_variants(suite, registry).items()]
    for name, variant, _ in _rewards_first(named):
        plugin = registry[variant.method]
        tried = points(plugin.algorithm, variant.everything, suite.tune)
        variants = [_variant(plugin.algorithm, point, where=f"trials of {name}") for point in tried]
        rewards = [several[0] for several in trials.values() if several]  # as the suite gives them
        reward = _reward_of(variant, seed, rewards, ()) if plugin.algorithm.rewarded else None
        trials[name] = tuple(
            replace(
                layout.cell(f"{name} trial {number}", plugin, one, seed, "train", (), reward),
                generations=None,
                proxy=None,
                base_proxy=None,
                drift=None,
                audit=None,
            )
            for number, one in enumerate(variants)
        )
    base = replace(layout.base(seed, ()), generations=None)
    return Tuning(Plan(layout.tokens, (), base, tuple(itertools.chain(*trials.values()))), trials)


def _rewards_first(entries: Iterable[tuple[str, _Variant, int]]) -> list[tuple[str, _Variant, int]]:
    """Reward models before the rest: the key of a method that names a reward rests on it."""
    return sorted(entries, key=lambda entry: "reward" in entry[1].parameters)


def _reward_of(variant: _Variant, seed: int, cells: Iterable[Cell], panel: Sequence[Panelist]) -> Cell | None:
    """The reward model that a method names: the first of that reward method with its seed; None for `gold`."""
    name = variant.parameters["reward"]
    if name == GOLD:
        _refuse_as_judge(variant, GOLD, [judge for judge in panel if isinstance(judge.entry, GoldJudge)])
        return None
    found = next(
        (cell for cell in cells if cell.kind == "reward" and (cell.algorithm, cell.seed) == (name, seed)), None
    )
    if found is None:
        trained = {cell.algorithm for cell in cells if cell.kind == "reward"} | {GOLD}
        raise SuiteError(
            f"methods: {variant.method}: reward: {name!r} is no reward model of this suite. "
            + nearest(name, trained, what="reward"),
            fix=f"add {name} to methods, before or after {variant.method}",
        )
    graded = [judge for judge in panel if any(member.adapter == found.adapter for member in judge.members)]
    _refuse_as_judge(variant, found.id, graded)
    return found


def _refuse_as_judge(variant: _Variant, reward: str, judges: Sequence[Panelist]) -> None:
    """A judge that is a policy's own reward is an error, unless the suite allows it."""
    for judge in judges:
        if not isinstance(judge.entry, LoadedJudge) and not judge.entry.may_be_reward:
            how = "gold" if reward == GOLD else "same rows, parameters and seed"
            raise SuiteError(
                f"methods: {variant.method}: its reward {reward} is the judge itself ({how}), "
                "so that the judge would grade the policy by what it was trained on or picked by",
                fix="give the judge rows of its own, or set judge.may_be_reward: true; the report then says so",
            )


@dataclass(frozen=True, slots=True)
class _Variant:
    """One point of a method's grid: the parameters given, and all resolved."""

    method: str
    parameters: Mapping[str, Any]
    learning_rate: float | None
    settings: Mapping[str, int]

    @property
    def everything(self) -> dict[str, Any]:
        rate = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        return {**rate, **self.settings, **self.parameters}


def _named_variants(suite: Suite, registry: Registry) -> dict[str, _Variant]:
    """Every point of every method's grid, under the name that its cells have without their seed."""
    variants = [variant for method in suite.methods for variant in _variants(registry[method.name].algorithm, method)]
    searched = {one.method: set(registry[one.method].algorithm.searched) if suite.tune else set() for one in variants}
    names = _names(variants, searched)
    if duplicates := {name for name in names if names.count(name) > 1}:
        equal = "equal parameters, those that tune searches aside" if suite.tune else "equal parameters"
        raise SuiteError(f"methods: {', '.join(sorted(duplicates))} stands twice with {equal}", fix="delete one")
    return dict(zip(names, variants, strict=True))


def _variants(algorithm: Algorithm, method: Method) -> list[_Variant]:
    points = [dict(zip(method.grid, values, strict=True)) for values in itertools.product(*method.grid.values())]
    return [_variant(algorithm, point, where=f"methods: {method.name}") for point in points]


def _variant(algorithm: Algorithm, given: Mapping[str, Any], *, where: str) -> _Variant:
    rest = dict(given)
    rate = None
    if algorithm.learning_rate is not None:
        given_rate = rest.pop("learning_rate", algorithm.learning_rate)
        number = isinstance(given_rate, int | float) and not isinstance(given_rate, bool)
        if not number or not 0 < given_rate < math.inf:
            raise SuiteError(f"{where}: learning_rate: got {given_rate!r}, expected a number > 0")
        rate = float(given_rate)
    settings = {} if rate is None else {key: rest.pop(key) for key in OWN_SETTINGS if key in rest}
    for key, value in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SuiteError(f"{where}: {key}: got {value!r}, expected a whole number > 0")
    try:
        return _Variant(algorithm.name, algorithm.resolve(rest), rate, settings)
    except ValueError as error:
        raise SuiteError(f"{where}: {error}", fix=f"align-bench show {algorithm.name} lists its parameters") from None


def _names(variants: list[_Variant], searched: Mapping[str, Collection[str]]) -> list[str]:
    """A name for each variant, with just those parameters in brackets that tell a method's variants apart.

    Args:
        variants: all variants of a suite.
        searched: method → parameters that tuning will change, so that they tell nothing apart.
    """

    def full(variant: _Variant) -> dict[str, Any]:
        return {key: value for key, value in variant.everything.items() if key not in searched[variant.method]}

    names = []
    for variant in variants:
        siblings = [full(other) for other in variants if other.method == variant.method]
        differing = [key for key in full(variant) if len({repr(sibling.get(key)) for sibling in siblings}) > 1]
        shown = ",".join(f"{key}={full(variant)[key]}" for key in differing)
        names.append(f"{variant.method}[{shown}]" if shown else variant.method)
    return names


def _tokens(suite: Suite, file: DataFile, fingerprint: str, inputs: Inputs) -> Address:
    return Address(
        "tokens",
        content_key(
            {
                "data": fingerprint,
                "tokenizer": inputs.base,
                "max_length": suite.train.max_length,
                "too_long": file.too_long,
                "code": code_digest("data"),
                "transformers": inputs.versions["transformers"],
            }
        ),
    )


def _cut(suite: Suite, inputs: Inputs, part: str) -> Address:
    """A part of the training rows: those that trials train on (`train`), or the held-out ones (`val`)."""
    assert suite.tune is not None
    needs = {
        "train": _tokens(suite, suite.data.train, inputs.train, inputs).key,
        "val": _tokens(suite, suite.data.val, inputs.val, inputs).key,
        "part": part,
        "tune": suite.tune.model_dump(include={"seed", "holdout"}),
        "code": code_digest("tune.py"),
    }
    return Address("tokens", content_key(needs))


def draw_settings(generate: Generate, parameters: Mapping[str, Any]) -> Generate:
    """How the base answers once for a selection: as the suite says, at the selection's temperature."""
    return generate.model_copy(update={"temperature": parameters["temperature"], "samples": 1})


def draw_seed(seed: int, number: int) -> int:
    """The seed of a selection's draw: apart from those of cells, and the same for every number of draws."""
    return 1_000_000 * (number + 1) + seed


@dataclass(frozen=True, slots=True)
class _Layout:
    """Gives each artefact its key: a hash of all that it depends on."""

    suite: Suite
    inputs: Inputs
    tokens: Mapping[str, Address]

    def cell(
        self,
        name: str,
        plugin: Plugin,
        variant: _Variant,
        seed: int,
        split: str,
        judges: Sequence[Cell],
        reward: Cell | None = None,
    ) -> Cell:
        algorithm = plugin.algorithm
        if isinstance(algorithm, Selection):
            return self._selection(name, plugin, variant, seed, judges, reward)
        stored = algorithm.reference and not algorithm.online  # an online method measures its own answers
        reference = self._reference(split) if stored else None
        mismatched = self._reference(split, mismatched=True) if stored and algorithm.data == "unpaired" else None
        libraries = algorithm.libraries if isinstance(algorithm, Recipe) else ()
        training = content_key(
            {
                "base": self._base(),
                "tokens": self.tokens[split].key,
                "reference": reference and reference.key,
                "mismatched": mismatched and mismatched.key,
                "plugin": plugin.digest,
                "libraries": {library: self.inputs.foreign[library] for library in libraries},
                "method": algorithm.name,
                "parameters": dict(variant.parameters),
                "learning_rate": variant.learning_rate,
                "seed": seed,
                "lora": self.suite.lora.model_dump(),
                "train": self.suite.train.model_dump(exclude={"checkpoint_minutes", "max_length", "trackers"})
                | dict(variant.settings),
                "code": code_digest("models", "train", "data", *(["judge"] if algorithm.online else [])),
                **({"reward": reward.adapter.key} if reward and reward.adapter else {}),
            }
        )
        scores = algorithm.kind == "reward"
        val = self._val(training, self.suite.evaluate.epsilons if scores else [])
        generate = self.suite.generate
        generations = self._generations(training, seed, generate) if algorithm.kind == "policy" else None
        return Cell(
            id=name,
            plugin=plugin,
            parameters=variant.parameters,
            learning_rate=variant.learning_rate,
            seed=seed,
            adapter=Address("adapter", training),
            reference=reference,
            val=val,
            generations=generations,
            judged=self._judged(generations, judges),
            drift=self._drift(generations),
            audit=self._audit(training) if scores else None,
            rows=split,
            reward=reward,
            proxy=self._proxy(generations, reward),
            base_proxy=self._proxy(self._base_generations(), reward),
            settings=variant.settings,
            mismatched=mismatched,
        )

    def _selection(
        self, name: str, plugin: Plugin, variant: _Variant, seed: int, judges: Sequence[Cell], reward: Cell | None
    ) -> Cell:
        """A cell without a training: it rests on draws of the base, which others of its temperature and seed share."""
        settings = draw_settings(self.suite.generate, variant.parameters)
        count = self.suite.generate.samples * variant.parameters["n"]
        draws = tuple(self._generations(None, draw_seed(seed, number), settings) for number in range(count))
        needs = {
            "draws": [draw.key for draw in draws],
            "plugin": plugin.digest,
            "method": plugin.algorithm.name,
            "parameters": dict(variant.parameters),
            "reward": reward and reward.adapter and reward.adapter.key,
            "code": code_digest("models", "judge", "data"),
        }
        generations = Address("generations", content_key(needs))
        return Cell(
            id=name,
            plugin=plugin,
            parameters=variant.parameters,
            learning_rate=None,
            seed=seed,
            adapter=None,
            reference=None,
            val=None,
            generations=generations,
            judged=self._judged(generations, judges),
            reward=reward,
            proxy=self._proxy(generations, reward),
            base_proxy=self._proxy(self._base_generations(), reward),
            draws=draws,
        )

    def base(self, seed: int, judges: Sequence[Cell]) -> Cell:
        generations = self._base_generations()
        judged = self._judged(generations, judges)
        reference = self._reference("val")
        return Cell(BASE_CELL, None, {}, None, seed, None, None, reference, generations, judged)

    def panel(self, registry: Registry) -> tuple[Panelist, ...]:
        """The judges of the suite, in its order."""
        named = zip(judge_names(self.suite.judge), self.suite.judge, strict=True)
        return tuple(self._panelist(place, name, judge, registry) for place, (name, judge) in enumerate(named))

    def _panelist(self, place: int, name: str, judge: AnyJudge, registry: Registry) -> Panelist:
        cell = judge_cell(place)
        if isinstance(judge, GoldJudge):
            return Panelist(name, judge, (), None)
        if isinstance(judge, LoadedJudge):
            return Panelist(name, judge, (self._loaded(cell, judge, str(self.inputs.judge[place])),), None)
        needs = {"judge": self.tokens[cell].key, "train": self.tokens["train"].key, "code": code_digest("judge")}
        return Panelist(name, judge, self._trained(cell, judge, registry), Address("overlap", content_key(needs)))

    def _trained(self, cell: str, judge: TrainedJudge, registry: Registry) -> tuple[Cell, ...]:
        plugin = registry[judge.method]
        if plugin.algorithm.kind != "reward":
            rewards = [name for name, other in registry.plugins.items() if other.algorithm.kind == "reward"]
            raise SuiteError(
                f"judge.method: {judge.method} trains a policy, expected a reward method. "
                + nearest(judge.method, rewards, what="reward method")
            )
        variant = _variant(plugin.algorithm, judge.parameters, where="judge.parameters")
        if judge.ensemble is None:
            return (self.cell(cell, plugin, variant, judge.seed, cell, ()),)
        seeds = range(judge.seed, judge.seed + judge.ensemble.size)
        return tuple(self.cell(f"{cell}#{seed}", plugin, variant, seed, cell, ()) for seed in seeds)

    def _loaded(self, name: str, judge: LoadedJudge, digest: str) -> Cell:
        model = content_key({"model": digest, "template": judge.template, "code": code_digest("models", "judge")})
        return Cell(
            id=name,
            plugin=None,
            parameters={},
            learning_rate=None,
            seed=0,
            adapter=None,
            reference=None,
            val=self._val(model, []),
            generations=None,
            judged={},
            audit=self._audit(model),
            rows=name,
            loaded=judge,
        )

    def _base(self) -> dict[str, Any]:
        return {"digest": self.inputs.base, "precision": self.inputs.precision, "versions": dict(self.inputs.versions)}

    def _reference(self, split: str, *, mismatched: bool = False) -> Address:
        needs = {
            "tokens": self.tokens[split].key,
            "mismatched": mismatched,
            "code": code_digest("models", "evaluate", "data"),
        }
        return Address("reference", content_key({"base": self._base(), **needs}))

    def _val(self, training: str, epsilons: Sequence[float]) -> Address:
        reference = self._reference("val")
        needs = {
            "adapter": training,
            "reference": reference.key,
            "epsilons": list(epsilons),
            "code": code_digest("models", "evaluate"),
        }
        return Address("val", content_key(needs))

    def _generations(self, training: str | None, seed: int, settings: Generate) -> Address:
        needs = {
            "base": self._base(),
            "adapter": training,
            "tokens": self.tokens["val"].key,
            "generate": settings.model_dump(),
            "seed": seed,
            "code": code_digest("models", "evaluate"),
        }
        return Address("generations", content_key(needs))

    def _base_generations(self) -> Address:
        return self._generations(None, self.suite.seeds[0], self.suite.generate)

    def _proxy(self, generations: Address | None, reward: Cell | None) -> Address | None:
        if generations is None or reward is None or reward.adapter is None:
            return None
        needs = {
            "generations": generations.key,
            "reward": reward.adapter.key,
            "code": code_digest("models", "judge"),
        }
        return Address("proxy", content_key(needs))

    def _drift(self, generations: Address | None) -> Address | None:
        if generations is None:
            return None
        needs = {"generations": generations.key, "code": code_digest("models", "evaluate")}
        return Address("drift", content_key(needs))

    def _judged(self, generations: Address | None, judges: Sequence[Cell]) -> dict[str, Address]:
        if generations is None:
            return {}
        return {
            judge.id: Address(
                "judged",
                content_key(
                    {
                        "generations": generations.key,
                        "judge": [part.key for part in (judge.adapter or judge.val,) if part],
                        "code": code_digest("models", "judge"),
                    }
                ),
            )
            for judge in judges
        }

    def _audit(self, scorer: str) -> Address | None:
        if not self.suite.audit.pairs:
            return None
        needs = {
            "base": self._base(),
            "scorer": scorer,
            "tokens": self.tokens["val"].key,
            "audit": self.suite.audit.model_dump(),
            "code": code_digest("models", "judge", "data"),
        }
        return Address("audit", content_key(needs))
