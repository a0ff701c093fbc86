"""The numbers behind the figures, derived anew; and that odd data is drawn or left out, never an error."""

from __future__ import annotations

import random
import re
import statistics
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from scipy.stats import ttest_ind

from align_bench.metrics.calibration import Bin
from align_bench.metrics.keywords import Keyword
from align_bench.records import CellId, Estimate
from align_bench.report.build import build_report
from align_bench.report.cells import gather
from align_bench.report.figures import all_figures
from align_bench.report.figures.against import prompt_differences
from align_bench.report.figures.base import Figure, Material
from align_bench.report.plots import canvas, standalone
from align_bench.report.plots.canvas import distinct, title_of
from align_bench.report.plots.curves import Panel, Series, curves
from align_bench.report.plots.looks import Look
from align_bench.report.rows import TrainingRow
from align_bench.report.schema import Agreement, Audit, AuditMetrics, Effects, KeywordList, Keywords, Report
from align_bench.stats.power import detectable_effect
from tests.report.conftest import BASE, DPO, RM, RM_FAST, header, judge

if TYPE_CHECKING:
    from tests.report.conftest import Run


def drawn(run: Run, training: Sequence[TrainingRow] = (), report: Report | None = None) -> dict[str, Figure]:
    """All figures of a run, of another report of it where one is given."""
    cells = gather(run.outcomes, run.scores, run.generations)
    return {figure.name: figure for figure in all_figures(Material(report or run.report(), cells, training))}


def losses(cell: CellId, *values: float) -> list[TrainingRow]:
    return [TrainingRow(str(cell), cell.name, 0, step, loss) for step, loss in enumerate(values, start=1)]


@pytest.fixture(scope="module")
def found(shared_run: Run) -> dict[str, Figure]:
    rng = random.Random(2)
    generations = [replace(one, kl=None if one.cell == "base" else rng.random()) for one in shared_run.generations]
    training = [row for cell in (RM, RM_FAST) for row in losses(cell, 1.0, 0.5, 0.75)]
    return drawn(replace(shared_run, generations=generations), training)


def test_win_rates_by_hand(found: dict[str, Figure], shared_run: Run) -> None:
    scores = {(one.cell, one.prompt_id): one.scores["rm"] for one in shared_run.generations}
    wins = sum(scores["dpo", prompt] > scores["simpo", prompt] for prompt in range(40))
    (row,) = [row for row in found["win-rates"].rows if row[:2] == ("dpo", "simpo")]
    assert row[2] == wins / 40
    (other,) = [row for row in found["win-rates"].rows if row[:2] == ("simpo", "dpo")]
    assert other[2] == 1 - wins / 40
    assert row[3:5] == (1 - number(other[4]), 1 - number(other[3]))
    assert f"{wins / 40:.0%}" in found["win-rates"].svg


def number(value: str | float | None) -> float:
    assert isinstance(value, float)
    return value


def test_score_groups_are_the_courses(found: dict[str, Figure], shared_run: Run) -> None:
    pairs = [
        (number(row.chosen_reward), number(row.rejected_reward)) for row in shared_run.scores if row.cell == str(RM)
    ]
    right = [chosen for chosen, rejected in pairs if chosen > rejected]
    wrong = [rejected for chosen, rejected in pairs if chosen < rejected]
    figure = found["score-groups"]
    for group, values in (("correct", right), ("wrong", wrong)):
        shown = [number(row[2]) for row in figure.rows if row[:2] == (str(RM), group)]
        assert sorted(shown) == pytest.approx(sorted(values))
    test = ttest_ind(right, wrong, equal_var=False)
    assert f"t = {test.statistic:.3f}" in figure.caption
    assert f"n = {len(right)} and {len(wrong)}" in figure.caption


def test_the_moving_average_uses_the_steps_that_are_there(found: dict[str, Figure]) -> None:
    rows = [row[1:] for row in found["losses"].rows if row[0] == str(RM)]
    assert rows == [(1, 1.0, 0.75), (2, 0.5, 0.75), (3, 0.75, 0.625)]


def test_a_sweep_is_drawn_where_a_method_has_a_grid(found: dict[str, Figure]) -> None:
    assert {row[0] for row in found["sweeps"].rows} == {str(RM), str(RM_FAST)}


def test_cells_are_called_by_what_tells_them_apart(found: dict[str, Figure]) -> None:
    for name in ("losses", "sweeps", "score-groups", "length-reward"):
        assert "rm lr 1e-05" in found[name].svg
        assert "rm lr 2e-05" in found[name].svg
        assert str(RM) not in found[name].svg


def test_long_names_lose_their_middle_unless_they_differ_there() -> None:
    start, end = "a" * 30, "z" * 30
    assert distinct(["dpo", f"{start}-{end}"]) == ["dpo", f"{'a' * 16}…{'z' * 17}"]
    both = [f"{start}{middle}{end}" for middle in "01"]
    assert distinct(both) == both


def test_a_drawing_is_as_matplotlib_lays_it_out_when_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Look("#0072b2")
    panels = [
        Panel(f"panel {place}", "steps", "loss", [Series(name, [0, 1, 10**place], [1, 3, 2], look) for name in "ab"])
        for place in range(5)
    ]
    own = curves(panels)
    saving: list[bool] = []
    execute, set_layout_engine = ConstrainedLayoutEngine.execute, MatplotlibFigure.set_layout_engine

    def only_when_saved(engine: ConstrainedLayoutEngine, figure: MatplotlibFigure) -> None:
        saving.append(figure.canvas.is_saving())
        if saving[-1]:
            execute(engine, figure)

    def kept(figure: MatplotlibFigure, layout: Literal["constrained"] | None) -> None:
        if layout is not None:
            set_layout_engine(figure, layout)

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", only_when_saved)
    monkeypatch.setattr(MatplotlibFigure, "set_layout_engine", kept)
    assert curves(panels) == own
    assert saving == [False, True]


def test_titles_stand_where_matplotlib_would_put_them(monkeypatch: pytest.MonkeyPatch) -> None:
    panels = [Panel("two\nlines", "", "y", [Series("", [0, 1], [1, 2], Look("#0072b2"))]) for _ in range(4)]
    own = curves(panels)
    monkeypatch.delitem(canvas._STYLE, "axes.titley")
    assert curves(panels) == own


def test_ticks_have_numbers_where_these_say_something() -> None:
    def numbers(*, heights: bool, reach: float) -> tuple[int, int]:
        """How often 2000, along y, and 2, along x, stand in two rows of three panels."""
        panels = [
            Panel("", "x", "y", [Series("", [0, 4 + reach * place], [0, 8000], Look("#0072b2"))], y_ticks=heights)
            for place in range(6)
        ]
        drawn = curves(panels)
        return drawn.count(">2000<"), drawn.count(">2<")

    assert numbers(heights=True, reach=0.01) == (6, 6)
    assert numbers(heights=True, reach=0) == (6, 3)
    assert numbers(heights=False, reach=0) == (0, 3)


def test_a_title_breaks_between_words_and_loses_none() -> None:
    title = title_of("poe_rm noise 1 · length_expert off · bias_weight 0", 3)
    assert title.split("\n") == ["poe_rm noise 1 ·", "length_expert off ·", "bias_weight 0"]


def test_judges_are_no_sweep(shared_run: Run) -> None:
    outcomes = [replace(one, algorithm="judge") if one.kind == "reward" else one for one in shared_run.outcomes]
    judges = [one.cell for one in outcomes if one.algorithm == "judge"]
    training = [row for cell in judges for row in losses(cell, 1.0, 0.5, 0.25)]
    found = drawn(replace(shared_run, outcomes=outcomes), training)
    assert len(judges) == 2
    assert "losses" in found
    assert "sweeps" not in found


def test_online_methods_are_drawn_by_what_they_measure(shared_run: Run) -> None:
    kl = {1: 0.0, 2: 0.5, 3: None}
    online = [replace(row, measures={"kl": kl[row.step], "reward": 2.0}) for row in losses(DPO, 1.0, 0.5, 0.25)]
    found = drawn(shared_run, [*online, *losses(RM, 1.0, 0.5, 0.25)])["online"]
    assert found.rows == [
        *(("dpo", "reward", step, 2.0) for step in (1, 2, 3)),
        ("dpo", "kl", 1, 0.0),
        ("dpo", "kl", 2, 0.5),
    ]
    assert "KL, nats per answer" in found.svg


def test_accuracy_by_length_counts_each_pair_once(run: Run) -> None:
    rng = random.Random(4)
    model = next(row for row in run.scores if row.cell == "dpo")
    fixed = replace(model, rejected_words=500, rejected_reward=0.0)
    gaps = rng.sample(range(-200, 200), 160)
    pairs = [replace(fixed, pair=k, chosen_words=500 + gap, chosen_reward=float(gap)) for k, gap in enumerate(gaps)]
    rows = drawn(replace(run, scores=pairs))["accuracy-by-length"].rows
    assert [row[5] for row in rows] == [20] * 8
    assert sum(number(row[2]) * 20 for row in rows) == sum(gap > 0 for gap in gaps) + 0.5 * (0 in gaps)
    assert statistics.mean(number(row[1]) for row in rows) == pytest.approx(statistics.mean(gaps))


def test_the_frontier_holds_means_over_prompts(found: dict[str, Figure], shared_run: Run) -> None:
    rows = {row[0]: row[1:] for row in found["frontier"].rows}
    assert rows["base"][0] == 0
    for cell, own in rows.items():
        value, low, high = map(number, own[3:6])
        assert value == pytest.approx(statistics.mean(o.scores["rm"] for o in shared_run.generations if o.cell == cell))
        assert low < value < high


def test_the_forests_band_is_the_detectable_difference(found: dict[str, Figure]) -> None:
    row = next(row for row in found["differences"].rows if row[1] == "judge_reward")
    low, high, hidden, n = number(row[3]), number(row[4]), row[5], row[7]
    assert isinstance(n, int)
    effect = detectable_effect(n)
    assert effect is not None
    assert hidden == pytest.approx(effect * (high - low) / 2 / 1.96 * n**0.5, rel=1e-3)


def test_prompt_differences_are_paired(shared_run: Run) -> None:
    cells = gather(shared_run.outcomes, shared_run.scores, shared_run.generations)
    figure = prompt_differences(Material(shared_run.report(), cells, []), [(DPO, BASE)])
    assert figure is not None
    scores = {(one.cell, one.prompt_id): one.scores["rm"] for one in shared_run.generations}
    assert [row[3] for row in figure.rows] == [scores["dpo", k] - scores["base", k] for k in range(40)]


def test_figures_show_the_main_judge(shared_run: Run) -> None:
    """Answers name `rm` first, and the panel `other`."""
    assert next(iter(shared_run.generations[0].scores)) == "rm"
    named = shared_run.header.model_copy(update={"judges": shared_run.header.judges[::-1]})
    swapped = replace(shared_run, header=named)
    cells = gather(swapped.outcomes, swapped.scores, swapped.generations)
    figure = prompt_differences(Material(swapped.report(), cells, []), [(DPO, BASE)])
    assert figure is not None
    scores = {(one.cell, one.prompt_id): one.scores["other"] for one in shared_run.generations}
    assert [row[3] for row in figure.rows] == [scores["dpo", k] - scores["base", k] for k in range(40)]
    panels = {row[0] for row in drawn(swapped)["length-reward"].rows}
    assert "other, of all generations" in panels
    assert not any(panel.startswith("rm, of") for panel in panels if isinstance(panel, str))


def test_gold_as_the_main_judge_is_drawn(shared_run: Run) -> None:
    panel = [judge("gold"), *shared_run.header.judges]
    shown = drawn(replace(shared_run, header=shared_run.header.model_copy(update={"judges": panel})))
    assert "gold, of all generations" in {row[0] for row in shown["length-reward"].rows}


def audit(scorer: str, error: float, reliability: list[Bin]) -> Audit:
    unknown = Estimate(None)
    estimates = {
        name: unknown for name in AuditMetrics.model_fields if name not in ("effects", "edits", "calibration_p")
    }
    return Audit(
        scorer=scorer,
        metrics=AuditMetrics(
            **{**estimates, "calibration_error": Estimate(error)},
            calibration_p=None,
            effects=Effects(words=unknown, grade=unknown, list_items=unknown, headings=unknown, bold=unknown),
            edits=[],
        ),
        reliability=reliability,
    )


def test_audit_agreement_and_keywords_are_drawn_where_the_report_has_them(shared_run: Run) -> None:
    share = Estimate(0.6, 0.5, 0.7, 90)
    report = shared_run.report()
    words = KeywordList(of="$x$", kind="favoured", texts=9, keywords=[Keyword("_a", 0.5)])
    known = {
        "audit": [audit("rm", 0.15, [Bin(0.5, 0.6, 0.55, 0.2, 7)])],
        "agreement": [Agreement(a="rm", b="gold", methods=2, kendall_tau=None, agreement=share, reversed=[])],
        "keywords": Keywords(segmentation="", lists=[words]),
    }
    shown = drawn(shared_run, report=report.model_copy(update=known))
    assert shown["reliability"].rows == [("rm", 0.5, 0.6, 0.55, 0.2, 7)]
    assert "rm 0.150, n = 7" in shown["reliability"].caption
    assert shown["agreement"].rows == [("rm", "gold", 0.6, 0.5, 0.7, 90, None)]
    assert "60%" in shown["agreement"].svg
    assert shown["keywords"].rows == [("$x$, favoured", "_a", 0.5)]
    bare = {"audit": [], "agreement": [], "keywords": Keywords(segmentation="", lists=[])}
    undrawn = drawn(shared_run, report=report.model_copy(update=bare))
    assert undrawn.keys().isdisjoint({"reliability", "agreement", "keywords"})


def test_nothing_is_drawn_of_nothing() -> None:
    assert all_figures(Material(build_report(header(), [], [], []), [], [])) == []


@pytest.mark.parametrize("value", [0.0, None, float("nan"), float("inf"), 1e30])
def test_constant_missing_and_huge_rewards_are_no_error(run: Run, value: float | None) -> None:
    scores = [replace(row, chosen_reward=value, rejected_reward=value) for row in run.scores]
    mark = value if value is not None else float("nan")
    generations = [replace(one, scores={"rm": mark, "gold": 0.0}, text="", kl=mark) for one in run.generations]
    shown = drawn(replace(run, scores=scores, generations=generations))
    assert "score-groups" not in shown or value == 1e30


def test_a_single_prompt_and_pair_are_no_error(run: Run) -> None:
    scores = [row for row in run.scores if row.pair == 0]
    generations = [one for one in run.generations if one.prompt_id == 0]
    assert "cost" in drawn(replace(run, scores=scores, generations=generations))


def test_drawings_are_well_formed_small_and_free_of_foreign_markup(found: dict[str, Figure]) -> None:
    for figure in found.values():
        for text in (figure.svg, standalone(figure.svg, figure.alternative)):
            root = ElementTree.fromstring(text)
            assert not [element.tag for element in root.iter() if element.tag.endswith(("script", "image"))]
        assert len(figure.svg) < 150_000
        assert not re.search(r"#[0-9a-f]{6}", figure.svg.replace("href=", "")), "every colour is a variable"
        assert "var(" not in standalone(figure.svg, "")
        counted = re.search(r"n = \d", figure.caption) or figure.chapter in ("training", "cost")
        assert counted, figure.name


def test_two_drawings_of_one_report_are_equal(found: dict[str, Figure], shared_run: Run) -> None:
    again = drawn(shared_run)
    for name in ("cost", "words", "differences"):
        assert again[name].svg == found[name].svg


def test_two_points_of_a_grid_have_two_titles(found: dict[str, Figure]) -> None:
    svg = found["score-groups"].svg
    assert "1e-05" in svg
    assert "2e-05" in svg


def test_the_forest_never_leaves_out_gold(run: Run) -> None:
    scored = [replace(one, proxies={str(RM): 0.1 * one.prompt_id}) for one in run.generations]
    metrics = {row[1] for row in drawn(replace(run, generations=scored))["differences"].rows}
    assert metrics == {"accuracy_logp_mean", "judge_reward", "gold_accuracy"}


def test_a_drawing_grows_with_its_legend() -> None:
    points = [Series(f"a_method_{place}#0", [place], [place], Look("#000000", "-"), "points") for place in range(40)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, when nothing is left for the axes
        few, many = (curves([Panel("drift", "KL", "score", points[:count])] * 2) for count in (8, 40))
    heights = [float(re.search(r'height="([\d.]+)', drawn)[1]) for drawn in (few, many)]  # type: ignore[index]
    assert heights[1] > heights[0] + 50
