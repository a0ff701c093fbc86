"""Which stages each cell consists of. A new stage of a cell is a line here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

from align_bench.api import OfflineAlgorithm, OnlineAlgorithm, Recipe, Selection
from align_bench.errors import SuiteError
from align_bench.models.micro_batches import scoring_tokens
from align_bench.planning.cells import Cell, Panelist
from align_bench.planning.variants import Variant
from align_bench.records import CellId
from align_bench.stages.audit import Audit
from align_bench.stages.drift import Drift
from align_bench.stages.generate import Generate, draw
from align_bench.stages.judge import Judge
from align_bench.stages.mismatched import Mismatched
from align_bench.stages.models import Policy, RewardModel
from align_bench.stages.prefixes import Prefixes
from align_bench.stages.proxy import Proxy
from align_bench.stages.reference import Reference
from align_bench.stages.select import Select
from align_bench.stages.train import Train, Trained
from align_bench.stages.train_online import TrainOnline
from align_bench.stages.train_recipe import TrainRecipe
from align_bench.stages.validate_judge import ValidateJudge
from align_bench.stages.validate_policy import ValidatePolicy
from align_bench.stages.validate_reward import ValidateReward
from align_bench.suite.models import (
    BASE_CELL,
    GOLD,
    GoldJudge,
    LoadedJudge,
)

if TYPE_CHECKING:
    from align_bench.planning.starts import Start
    from align_bench.plugins.registry import Plugin
    from align_bench.records import TokenTable
    from align_bench.stages.answers import Answers
    from align_bench.stages.classifier import Classifier
    from align_bench.stages.models import Frozen
    from align_bench.stages.rows import Rows
    from align_bench.stages.stage import Stage
    from align_bench.suite.models import Suite


TESTED_ON = "test pairs"


class Own(TypedDict):
    """What every stage of a cell is given: whose it is, and what its folder is named after."""

    owner: str
    stored_as: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Gives each cell its stages.

    Attributes:
        suite, frozen: as prepared.
        train: the rows that policies train on, as texts.
        val: what cells are measured on.
        texts: the same as texts.
        shown: what is shown while they are.
        test: pairs that policies and the base are measured on as well; None without any.
    """

    suite: Suite
    frozen: Frozen
    train: Rows
    val: Stage[TokenTable]
    texts: Rows
    shown: str = "validation pairs"
    test: Stage[TokenTable] | None = None

    @property
    def _limit(self) -> int:
        return scoring_tokens(self.suite.train.micro_batch_tokens, self.frozen.precision.device)

    def cell(
        self,
        identity: CellId,
        plugin: Plugin,
        point: Variant,
        seed: int,
        table: Stage[TokenTable],
        judges: Sequence[Cell],
        reward: Cell | None,
        start: Start | None = None,
    ) -> Cell:
        """A method's cell: what it trains, how that is measured, what it answers, and who scores that."""
        own: Own = {"owner": str(identity), "stored_as": f"{identity.method}-{seed}"}
        adapter, tested = None, None
        stages: list[Stage[object]] = []
        if isinstance(plugin.algorithm, Selection):
            stages += self._selected(own, plugin, plugin.algorithm, point, seed, reward, start)
        else:
            adapter = self._trained(own, plugin, point, seed, table, reward, start)
            tested = self._tested(own, adapter)
            stages += [adapter, *self._measured(own, adapter, tested)]
        answers = stages[-1] if plugin.algorithm.kind == "policy" else None
        if answers is not None:
            stages += self._scored(own, answers, adapter, judges, reward)  # type: ignore[arg-type]
        parameters, rate = point.parameters, point.learning_rate
        settings, every = point.settings, tuple(stages)
        return Cell(
            identity, plugin, parameters, rate, seed, every, settings=settings, reward=reward, start=start, test=tested
        )

    def base(self, seed: int, judges: Sequence[Cell], *, answers: bool) -> Cell:
        """The untrained base: its measurement; then its answers and who scores them, where policies are beside it."""
        own: Own = {"owner": BASE_CELL, "stored_as": BASE_CELL}
        tested = self._base_test() if answers else None
        stages: list[Stage[object]] = [self.base_pairs(), *([tested] if tested else [])]
        if answers:
            made = Generate(**own, policy=Policy(self.frozen), table=self.val, settings=self.suite.generate, seed=seed)
            stages += [made, *self._judged(own, made, judges)]
        return Cell(CellId(BASE_CELL), None, {}, None, seed, tuple(stages), test=tested)

    def base_pairs(self) -> Reference:
        """The base's log-probabilities of the validation pairs, which policies' rewards are read against."""
        return Reference(owner=BASE_CELL, table=self.val, frozen=self.frozen, max_tokens=self._limit, label=self.shown)

    def _base_test(self) -> Reference | None:
        """The same of the test pairs."""
        return None if self.test is None else replace(self.base_pairs(), table=self.test, label=TESTED_ON)

    def base_proxies(self, base: Cell, cells: Iterable[Cell]) -> Iterator[Proxy]:
        """The base's answers, scored by every reward model that a policy learned from or picked by."""
        rewards = {cell.reward.id: cell.reward for cell in cells if cell.reward is not None}
        own: Own = {"owner": BASE_CELL, "stored_as": BASE_CELL}
        for reward in rewards.values():
            assert base.answers is not None, "a policy learned from it"
            yield self._proxy(own, base.answers, reward, of_base=True)

    def loaded(self, identity: str, judge: Classifier) -> Cell:
        """A judge that is loaded as it is."""
        own: Own = {"owner": identity, "stored_as": identity}
        pairs = ValidateJudge(**own, judge=judge, table=self.val, texts=self.texts, max_tokens=self._limit)
        stages: tuple[Stage[object], ...] = (pairs, *self._audited(own, judge))
        return Cell(CellId(identity), None, {}, None, 0, stages, is_judge=True, loaded=judge)

    def _trained(
        self,
        own: Own,
        plugin: Plugin,
        point: Variant,
        seed: int,
        table: Stage[TokenTable],
        reward: Cell | None,
        start: Start | None,
    ) -> Trained:
        algorithm = plugin.algorithm
        assert point.learning_rate is not None
        frozen = start.policy.frozen if start else self.frozen
        shared: dict[str, Any] = {
            **own,
            "plugin": plugin,
            "parameters": point.parameters,
            "learning_rate": point.learning_rate,
            "seed": seed,
            "frozen": frozen,
            "lora": self.suite.lora,
            "settings": self.suite.train.model_copy(update=dict(point.settings)),
            "table": table,
            "start": start and start.policy,
            "reference_policy": point.reference_policy,
        }
        scoring = reward and reward.scoring
        assert scoring is None or isinstance(scoring, RewardModel)
        if isinstance(algorithm, Recipe):
            libraries = tuple(algorithm.libraries)
            return TrainRecipe(**shared, reward=scoring, texts=self.train, foreign=libraries)
        if isinstance(algorithm, OnlineAlgorithm):  # it measures its own answers
            if point.reference_policy == "base" and frozen != self.frozen:
                raise SuiteError(
                    f"methods: {own['owner']}: reference_policy: got base, but the start is a whole model, "
                    f"{frozen.base.name}, and an online method holds one model in memory, with its adapter on and off",
                    fix="delete reference_policy, or start from an adapter on the base",
                )
            return TrainOnline(**shared, reward=scoring, texts=self.train)
        if not algorithm.reference:
            return Train(**shared)
        held_to = (start and start.held_to) or Policy(self.frozen)
        measured: dict[str, Any] = {
            "owner": own["owner"],
            "stored_as": start.given if start and start.held_to else BASE_CELL,
            "table": table,
            "frozen": held_to.frozen,
            "adapter": held_to.adapter,
        }
        reference = Reference(**measured, max_tokens=self._limit)
        assert isinstance(algorithm, OfflineAlgorithm), "no other reads a reference"
        reading = algorithm.reading
        mismatched = Mismatched(**measured, max_tokens=self._limit) if reading.mismatched else None
        prefixes = Prefixes(**measured, max_tokens=self._limit) if reading.prefix else None
        return Train(**shared, reference=reference, mismatched=mismatched, prefixes=prefixes)

    def _tested(self, own: Own, adapter: Trained) -> ValidatePolicy | None:
        """Test pairs under a policy; nothing of a reward model."""
        base = self._base_test()
        if self.test is None or base is None or adapter.scalar:
            return None
        reference = _read_against(base, adapter)
        return ValidatePolicy(
            **own, table=self.test, max_tokens=self._limit, label=TESTED_ON, adapter=adapter, reference=reference
        )

    def _measured(self, own: Own, adapter: Trained, tested: ValidatePolicy | None) -> Iterator[Stage[object]]:
        """Validation pairs under what was trained; then the audit of a reward model, or test pairs and answers."""
        model = adapter.model
        shared: dict[str, Any] = {**own, "table": self.val}
        if isinstance(model, RewardModel):
            epsilons = tuple(self.suite.evaluate.epsilons)
            yield ValidateReward(**shared, reward=model, epsilons=epsilons, max_tokens=self._limit, label=self.shown)
            yield from self._audited(own, model)
            return
        reference = _read_against(self.base_pairs(), adapter)
        yield ValidatePolicy(**shared, adapter=adapter, reference=reference, max_tokens=self._limit, label=self.shown)
        if tested is not None:
            yield tested
        yield Generate(**shared, policy=model, settings=self.suite.generate, seed=adapter.seed)

    def _selected(
        self,
        own: Own,
        plugin: Plugin,
        algorithm: Selection,
        point: Variant,
        seed: int,
        reward: Cell | None,
        start: Start | None,
    ) -> Iterator[Stage[object]]:
        """Draws of the base or the start, which others of its temperature and seed share, and what was picked."""
        candidates = algorithm.settings(point.parameters)
        policy = start.policy if start else Policy(self.frozen)
        settings = self.suite.generate.model_copy(update={"temperature": candidates.temperature})
        count = settings.samples * candidates.n
        answers = Generate(owner=own["owner"], policy=policy, table=self.val, settings=settings, seed=seed)
        draws = tuple(draw(answers, number, count) for number in range(count))
        scoring = reward and reward.scoring
        assert scoring is None or isinstance(scoring, RewardModel)
        yield from draws
        yield Select(
            **own,
            plugin=plugin,
            parameters=point.parameters,
            draws=draws,
            table=self.val,
            frozen=policy.frozen,
            reward=scoring,
            texts=self.texts,
            max_tokens=self._limit,
        )

    def _scored(
        self,
        own: Own,
        answers: Answers,
        adapter: Trained | None,
        judges: Sequence[Cell],
        reward: Cell | None,
    ) -> Iterator[Stage[object]]:
        """What is measured on a policy's answers. A new measurement of answers is a line here."""
        if adapter is not None:
            yield from self._moved(own, answers, adapter)
        if reward is not None:
            yield self._proxy(own, answers, reward)
        yield from self._judged(own, answers, judges)

    def _moved(self, own: Own, answers: Answers, adapter: Trained) -> Iterator[Drift]:
        """How far a policy has moved from the base, and from its start where it has one."""
        drift = Drift(**own, answers=answers, policy=Policy(adapter.frozen, adapter), max_tokens=self._limit)
        on_base = adapter.frozen == self.frozen  # else its adapter stands on a model that was given as a start
        yield drift if on_base else replace(drift, reference=Policy(self.frozen))
        if adapter.start is not None:
            yield replace(drift, reference=adapter.start, from_start=True)

    def _proxy(self, own: Own, answers: Answers, reward: Cell, *, of_base: bool = False) -> Proxy:
        scoring = reward.scoring
        assert isinstance(scoring, RewardModel)
        return Proxy(
            **own,
            reward=scoring,
            reward_cell=reward.id,
            answers=answers,
            max_tokens=self._limit,
            of_base=of_base,
        )

    def _judged(self, own: Own, answers: Answers, judges: Sequence[Cell]) -> Iterator[Judge]:
        for judge in judges:
            assert judge.scoring is not None
            yield Judge(
                **own,
                judge=judge.scoring,
                judge_cell=judge.id,
                answers=answers,
                texts=self.texts,
                max_tokens=self._limit,
            )

    def _audited(self, own: Own, judge: RewardModel | Classifier) -> Iterator[Audit]:
        audit = self.suite.audit
        if audit.pairs:
            yield Audit(
                **own,
                judge=judge,
                table=self.val,
                texts=self.texts,
                pairs=audit.pairs,
                seed=audit.seed,
                max_tokens=self._limit,
            )


def _read_against(base: Reference, adapter: Trained) -> Reference:
    """The log-probabilities that a policy's rewards of pairs are read against: the base's, or those of its start."""
    start = adapter.start
    if start is None or adapter.reference_policy == "base" or not adapter.plugin.algorithm.reference:
        return base
    owner = adapter.owner
    return replace(base, owner=owner, frozen=start.frozen, adapter=start.adapter, label=f"{base.label} under its start")


def refuse_judge_as_reward(point: Variant, reward: Cell | None, panel: Sequence[Panelist]) -> None:
    """A judge that is a policy's own reward is an error, unless the suite allows it.

    Args:
        point: the policy.
        reward: what it learns from or picks by; None for `gold`.
        panel: the judges.

    Raises:
        SuiteError: one of them is that reward.
    """
    name, how = (GOLD, "gold") if reward is None else (str(reward.id), "same rows, parameters and seed")
    for judge in panel:
        if reward is None:
            same = isinstance(judge.entry, GoldJudge)
        else:
            same = any(member.adapter == reward.adapter for member in judge.members)
        if same and not isinstance(judge.entry, LoadedJudge) and not judge.entry.allow_judge_as_reward:
            raise SuiteError(
                f"methods: {point.method}: its reward {name} is the judge itself ({how}), "
                "so the judge would score the policy with the reward that it was trained on or picked by",
                fix="give the judge rows of its own, or set judge.allow_judge_as_reward: true; the report then says so",
            )
