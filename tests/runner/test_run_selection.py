"""Best of n from end to end: it picks what a naive scoring would, shares its draws, resumes, and trains nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from align_bench.api import Selection
from align_bench.errors import PluginError, SuiteError
from align_bench.models.load import load_adapter, load_scorer
from align_bench.planning.graph import Graph, make_graph
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import CellId, MetricKey, Update, no_update
from align_bench.report.export import read_generations, read_scores, recompute
from align_bench.report.schema import Report
from align_bench.report.tables.differences import own_reward
from align_bench.runner.results import Results
from align_bench.runner.run import Folders, run
from align_bench.stages.answers import first_prompts
from align_bench.stages.drift import Drift
from align_bench.stages.select import Select
from align_bench.store.store import Store
from align_bench.suite.load import load_suite
from align_bench.testing.bench import plain_score

BEST = load_registry()["best_of_n"].algorithm
assert isinstance(BEST, Selection)
METHODS = [
    {"best_of_n": {"reward": ["rm", "gold"], "n": 3}},
    {"best_of_n": {"reward": "rm", "n": 2}},
    {"rm": {"learning_rate": 1e-2}},
]


class Recorder:
    """Records the stages of a run."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        self.stages.append(f"{cell}: {label}")
        yield no_update

    def log(self, text: str) -> None:
        pass


def execute(path: Path, root: Path, progress: Recorder | None = None) -> tuple[Graph, Results, Report]:
    prepared = prepare(load_suite(str(path)), load_registry())
    folders = Folders(root / "runs", root / "reports")
    report = run(prepared, progress or Recorder(), folders, command="x")
    results = Results(Store(folders.runs))
    return make_graph(prepared, results), results, report


Whole = tuple[Path, Path, Graph, Results, Report, Recorder]


@pytest.fixture(scope="module")
def whole(small_suite: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A straight run: its suite, its folder, its graph, what it stored, its report and its stages."""
    root = tmp_path_factory.mktemp("whole")
    generate = {"prompts": 6, "max_new_tokens": 5, "samples": 2, "temperature": 1.0}
    path = root / "small.yaml"
    path.write_text(yaml.safe_dump({**small_suite, "methods": METHODS, "generate": generate}), encoding="utf-8")
    graph, results, report = execute(path, root, progress := Recorder())
    return path, root, graph, results, report, progress


def trained_scorer(graph: Graph, results: Results) -> Any:
    """The suite's reward model, as a plain classification model."""
    (cell,) = [cell for cell in graph.cells if cell.id == CellId("rm")]
    assert cell.adapter is not None
    frozen = cell.adapter.frozen
    model = load_scorer(frozen.base, frozen.precision, seed=0)
    return load_adapter(model, results.artefact(cell.adapter).folder).get_base_model()


def test_the_first_of_the_best_is_picked() -> None:
    assert isinstance(BEST, Selection)
    rewards = torch.tensor([[0.0, 2.0, 2.0], [3.0, 1.0, 2.0], [-5.0, -5.0, -4.0]])
    assert BEST.pick(rewards, BEST.resolve({"n": 3})) == [1, 0, 2]


@pytest.mark.parametrize(("n", "bound"), [(1, 0.0), (2, math.log(2) - 0.5), (8, 1.2044415416798357)])
def test_the_bound_is_that_of_the_paper(n: int, bound: float) -> None:
    assert isinstance(BEST, Selection)
    assert BEST.bound(BEST.resolve({"n": n})) == pytest.approx(bound, rel=1e-12)


def test_picks_are_those_of_a_naive_scoring(whole: Whole) -> None:
    """Every draw scored on its own by the reward model; its best is what stands among the generations."""
    _, _, graph, results, report, progress = whole
    assert {found.status for found in report.results} == {"done"}
    picks = {str(cell.id): cell.answers for cell in graph.cells if isinstance(cell.answers, Select)}
    three, two = picks["best_of_n[reward=rm,n=3]"], picks["best_of_n[reward=rm,n=2]"]
    assert [len(pick.draws) for pick in (three, two)] == [6, 4]
    assert set(two.draws) < set(three.draws) == set(picks["best_of_n[reward=gold,n=3]"].draws)
    assert len([stage for stage in progress.stages if ": draw " in stage]) == 6, "shared draws are made once"
    scorer = trained_scorer(graph, results)
    prompts = {row.pair: row.prompt for row in first_prompts(results.load(graph.tables["val"]), 6)}
    drawn = [results.load(draw) for draw in three.draws]
    assert len({tuple(tuple(line["ids"]) for line in draw) for draw in drawn}) == 6, "draws differ"
    assert graph.base.answers is not None
    assert results.load(graph.base.answers)[0]["ids"] not in [draw[0]["ids"] for draw in drawn]
    for pick, n in ((three, 3), (two, 2)):
        picked = {(line["pair"], line["sample"]): line for line in results.load(pick)}
        assert len(picked) == 12
        for (pair, sample), line in picked.items():
            candidates = [next(a for a in draw if a["pair"] == pair) for draw in drawn[sample * n : (sample + 1) * n]]
            scores = [plain_score(scorer, prompts[pair], candidate["ids"]) for candidate in candidates]
            assert line["ids"] == candidates[scores.index(max(scores))]["ids"]
            assert line["rewards"] == pytest.approx(scores, abs=1e-4)


def test_pairs_are_undefined_and_the_bound_is_told(whole: Whole) -> None:
    _, root, _, _, report, _ = whole
    found = {result.name: result for result in report.results}
    best = found["best_of_n[reward=rm,n=3]"]
    assert best.kind == "policy"
    assert best.parameters == {"reward": "rm", "n": 3, "temperature": 1.0}
    for name in ("accuracy", "accuracy_logp_mean", "accuracy_logratio", "reward_mean", "margin"):
        assert getattr(best.metrics, name).value is None
    assert best.metrics.judge_reward_mean.n == 6
    assert best.cost is not None
    assert found["base"].cost is not None
    assert best.cost.tokens > found["base"].cost.tokens / 2, "its draws are counted"
    folder = root / "reports" / "small"
    assert not [row for row in read_scores(folder) if row.cell.startswith("best_of_n")]
    assert len([one for one in read_generations(folder) if one.cell == best.name]) == 12
    assert "at most 0.432 nats per prompt" in (folder / "report.md").read_text(encoding="utf-8")
    again = recompute(folder)
    assert (again.results, again.notes) == (report.results, report.notes)


def test_own_rewards_score_the_generations_and_the_bases(whole: Whole) -> None:
    """What a policy was picked by scores its answers and the base's, by name, and is compared prompt by prompt."""
    _, root, graph, results, report, _ = whole
    scorer = trained_scorer(graph, results)
    prompts = {row.pair: row.prompt for row in first_prompts(results.load(graph.tables["val"]), 6)}
    by_cell: dict[str, dict[int, list[float]]] = {}
    generations = read_generations(root / "reports" / "small")
    ids = {str(cell.id): iter(results.load(cell.answers)) for cell in (graph.base, *graph.cells) if cell.answers}
    for answer in generations:
        line = next(ids[answer.cell])
        assert set(answer.scores) == {"rm", "gold"}
        if "gold" in answer.cell:
            assert answer.proxies == {}, "gold is no reward model"
            continue
        assert set(answer.proxies) == {"rm"}
        own = answer.proxies["rm"]
        assert own == pytest.approx(plain_score(scorer, prompts[answer.prompt_id], line["ids"]), abs=1e-4)
        by_cell.setdefault(answer.cell, {}).setdefault(answer.prompt_id, []).append(own)
    means = {cell: {key: sum(v) / 2 for key, v in found.items()} for cell, found in by_cell.items()}
    picked, base = means["best_of_n[reward=rm,n=3]"], means["base"]
    wanted = (CellId("best_of_n", (("reward", "rm"), ("n", 3))), CellId("base"), MetricKey("proxy_reward", of="rm"))
    (found,) = [one for one in report.comparisons if (one.a, one.b, one.metric) == wanted]
    assert found.difference == pytest.approx(sum(picked[key] - base[key] for key in base) / len(base))
    (of_base,) = [result.metrics.proxies for result in report.results if result.name == "base"]
    assert [proxy.reward for proxy in of_base] == ["rm"]
    assert of_base[0].mean.value == pytest.approx(sum(base.values()) / len(base))
    section = own_reward(report)
    assert [row[:2] for row in section.rows] == [
        ("best_of_n[reward=rm,n=3]", "rm"),
        ("best_of_n[reward=rm,n=2]", "rm"),
    ]
    assert str(section.rows[0][4]).startswith(f"{found.difference:+.3f} [")
    assert "Own reward against judge and gold" in (root / "reports" / "small" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("label", ["draw 2 of 6", "pick", "proxy rm"])
def test_kill_9_and_run_again_gives_the_same_numbers(
    whole: Whole, tmp_path: Path, killed_at: Callable[[Path, Path, str], None], label: str
) -> None:
    path, _, _, _, straight, _ = whole
    killed_at(path, tmp_path, f"best_of_n[reward=rm,n=3]: {label}")
    _, _, resumed = execute(path, tmp_path, progress := Recorder())
    assert not any("draw 1 of" in stage for stage in progress.stages), "what was done is not done again"
    assert any(label in stage for stage in progress.stages)
    own, other = ([each.model_copy(update={"cost": None}) for each in one.results] for one in (resumed, straight))
    assert own == other
    assert resumed.comparisons == straight.comparisons


def test_it_has_no_learning_rate_and_trains_nothing(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="best_of_n has no parameter 'learning_rate'"):
        graph_of(write_suite(methods=["rm", {"best_of_n": {"learning_rate": 1e-4}}]), tmp_path)
    cell = graph_of(write_suite(methods=["rm", "best_of_n"]), tmp_path).cells[1]
    assert (cell.adapter, cell.validation, cell.the(Drift)) == (None, None, None)
    assert isinstance(cell.answers, Select)
    assert len(cell.answers.draws) == 8
    tuned = graph_of(write_suite(methods=["rm", "best_of_n"], tune={"trials": 2}), tmp_path)
    assert tuned.searches[CellId("rm")].cells
    assert tuned.searches[CellId("best_of_n")].cells == ()


def test_the_judge_is_no_reward_of_a_selection(
    write_suite: Callable[..., Path], small_suite: dict[str, Any], tmp_path: Path
) -> None:
    judge = {"method": "rm", "data": {**small_suite["data"]["train"], "split": "train"}}
    with pytest.raises(SuiteError, match="best_of_n: its reward rm is the judge itself"):
        graph_of(write_suite(methods=["rm", "best_of_n"], judge=judge), tmp_path)
    graph_of(write_suite(methods=["rm", "best_of_n"], judge={**judge, "allow_judge_as_reward": True}), tmp_path)
    with pytest.raises(SuiteError, match="reward: 'judge' is not a reward model of this suite"):
        graph_of(write_suite(methods=["rm", {"best_of_n": {"reward": "judge"}}]), tmp_path)


@pytest.mark.parametrize(
    "returned", ["rewards.max(1).values", "rewards.argmax(0)", "rewards.argmax(1) + 3", "3", "rewards.argmax()"]
)
def test_a_choice_that_is_no_place_is_told(tmp_path: Path, returned: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from align_bench.api import selection\n\n"
        "@selection(paper='none', kl_bound=lambda n: 0.0)\n"
        f"def mine(rewards):\n    '''Mine.'''\n    return {returned}\n",
        encoding="utf-8",
    )
    mine = load_registry(extra=[str(file)])["mine"].algorithm
    assert isinstance(mine, Selection)
    with pytest.raises(PluginError, match=r"expected an integer tensor of shape \(2,\) below 3"):
        mine.pick(torch.tensor([[0.5, 2.0, 1.0], [3.0, 1.5, 2.5]]), mine.resolve({"n": 3}))


def graph_of(path: Path, runs: Path) -> Graph:
    return make_graph(prepare(load_suite(str(path)), load_registry()), Results(Store(runs)))
