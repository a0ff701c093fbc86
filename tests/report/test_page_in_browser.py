"""The page in a real browser: what only a browser can show. Skipped where there is none."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import pytest

from align_bench.records import Cost, Generation
from align_bench.report.build import build_report
from align_bench.report.export import ReportRows, write_report
from align_bench.report.rows import TrainingRow
from tests.report.conftest import BASE, DPO, RM, SIMPO

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.report.conftest import Run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'align-bench[dev]'")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="NO BROWSER, page untested: apt-get install chromium")

WIDTHS = (390, 1440)
HOSTILE = {
    1: "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'>",
    2: "</script></textarea></template><!-- <script>window.ran = 3</script>",
    3: "\x1b[31mred\x1b[0m \u202eright to left\u202c \u200f mark",
    4: "x" * 100_000,
    5: "nul \x00 and a lone \ud800 surrogate",
    6: "{{ 7 * 7 }} ${1} =HYPERLINK(1) 我们 🙂",
}


Scheme = Literal["light", "dark"]


class Open(Protocol):
    def __call__(
        self, width: int = 1440, scheme: Scheme = "light", *, at: str = "", folded: bool = False, script: bool = True
    ) -> Page:
        """The page at one of its anchors, in a window of this width; by default with all chapters open."""


@pytest.fixture(scope="module")
def answers(shared_run: Run) -> list[Generation]:
    """The generations of the run, with hostile ones among dpo's."""
    return [
        replace(answer, text=HOSTILE[answer.prompt_id], prompt=f"{HOSTILE[answer.prompt_id][:300]}?")
        if answer.prompt_id in HOSTILE and answer.cell == "dpo"
        else answer
        for answer in sorted(shared_run.generations, key=lambda answer: answer.cell != "dpo")
    ]


@pytest.fixture(scope="module")
def folder(shared_run: Run, answers: list[Generation], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written report; what its cells cost is in different units."""
    rng = random.Random(5)
    training = [
        TrainingRow(
            cell=str(outcome.cell),
            algorithm=outcome.algorithm,
            seed=0,
            step=step,
            loss=math.exp(-step) + rng.random(),
            measures={"kl": 0.1 * step, "reward": rng.random()} if outcome.cell == SIMPO else {},
        )
        for outcome in shared_run.outcomes
        if outcome.status == "done" and outcome.kind != "base"
        for step in range(1, 30)
    ]
    costs = {BASE: (7.3, 900), RM: (7380.0, 3 * 2**20), DPO: (754.0, 2 * 2**30), SIMPO: (59.0, 5 * 2**10)}
    outcomes = [
        replace(outcome, cost=Cost(cost[0], 12_345, cost[1]) if (cost := costs.get(outcome.cell)) else None)
        for outcome in shared_run.outcomes
    ]
    path = tmp_path_factory.mktemp("page")
    report = build_report(shared_run.header, outcomes, shared_run.scores, answers)
    report = report.model_copy(update={"made": "2025-06-01"})
    pairs = [replace(pair, gold=f"{pair.pair} {HOSTILE[1]}" if pair.pair % 2 else None) for pair in shared_run.pairs]
    write_report(path, report, ReportRows(shared_run.scores, answers, training, pairs=pairs))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser, folder: Path) -> Iterator[Open]:
    """Opens the report; afterwards, neither a message on the console nor a request may have been seen."""
    contexts, seen = [], list[str]()
    url = (folder / "report.html").as_uri()

    def opened(
        width: int = 1440, scheme: Scheme = "light", *, at: str = "", folded: bool = False, script: bool = True
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: seen.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.on("dialog", lambda dialog: seen.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: seen.append(request.url) if request.url.split("#")[0] != url else None)
        page.goto(url + at)
        if not folded:
            page.click("#fold")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert seen == []


def violations(page: Page) -> list[tuple[str, list[str]]]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    return [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found.response["violations"]]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_word_fits_the_screen_and_is_accessible(
    open_page: Open, folder: Path, width: int, scheme: Scheme
) -> None:
    page = open_page(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.querySelectorAll('figure svg').length") == len(list((folder / "figures").iterdir()))
    assert violations(page) == []


@pytest.mark.parametrize("at", ["", "#summary"])
@pytest.mark.parametrize("width", WIDTHS)
def test_folded_and_as_a_summary_it_fits_the_screen_and_is_accessible(open_page: Open, width: int, at: str) -> None:
    page = open_page(width, at=at, folded=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert violations(page) == []


def test_under_the_title_stands_what_was_compared_when_and_by_which_command(open_page: Open) -> None:
    page = open_page(folded=True)
    assert page.inner_text("#compared").startswith("4 methods (rm, dpo, simpo, ")
    assert page.inner_text("header time") == "2025-06-01"
    assert page.inner_text("header code") == "align-bench run suites/demo.yaml"


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_wider_than_its_place_says_so_and_at_1440_no_column_is_hidden(open_page: Open, width: int) -> None:
    page = open_page(width)
    page.wait_for_timeout(200)
    found = page.evaluate(
        """() => [...document.querySelectorAll("main .scroll")].filter((box) => box.checkVisibility()).map((box) => {
            const inside = box.firstElementChild.getBoundingClientRect(), own = box.getBoundingClientRect();
            const shadow = getComputedStyle(box).boxShadow !== "none";
            return [box.ariaLabel, inside.right > own.right + 1, box.previousElementSibling.checkVisibility(), shadow];
        })"""
    )
    hidden = [name for name, beyond, *_ in found if beyond]
    assert [name for name, _, hint, _ in found if hint] == hidden
    assert [name for name, _, _, shadow in found if shadow] == hidden
    assert "Table: Policies against the base" in [name for name, *_ in found]
    assert ("Table: Policies against the base" in hidden) == (width == 390)
    if width == 1440:
        assert hidden == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_shadow_tells_of_chapters_beyond_the_edge(open_page: Open, width: int) -> None:
    bar = open_page(width).locator("nav ul")
    cut = bar.evaluate("bar => bar.scrollWidth > bar.clientWidth + 1")
    assert cut == (width == 390)
    assert ("more-right" in (bar.get_attribute("class") or "").split()) == cut
    assert (bar.evaluate("bar => getComputedStyle(bar).boxShadow") != "none") == cut


def test_a_shadow_stands_where_more_columns_are(open_page: Open) -> None:
    page = open_page(390)
    box = page.locator('.scroll[aria-label="Table: Policies against the base"]')
    for place, sides in ((0, ["more-right"]), (30, ["more-left", "more-right"]), (10_000, ["more-left"])):
        box.evaluate("(box, place) => { box.scrollLeft = place; }", place)
        page.wait_for_timeout(100)
        classes = (box.get_attribute("class") or "").split()
        assert [side for side in ("more-left", "more-right") if side in classes] == sides


def test_chapters_fold_and_unfold_by_keyboard(open_page: Open) -> None:
    page = open_page(folded=True)
    chapters = page.locator("details.chapter")
    states = "(all) => Object.fromEntries(all.map((one) => [one.parentElement.id, one.open]))"
    before = chapters.evaluate_all(states)
    assert {name for name, is_open in before.items() if is_open} == {"verdict"}
    summary = page.locator("#differences > details > summary")
    table = page.locator("#differences table").first
    for key, shown in (("Enter", True), ("Space", False)):
        summary.press(key)
        assert table.is_visible() is shown
    page.locator('nav a[href="#differences"]').press("Enter")
    assert table.is_visible()
    for label, is_open in (("Open all", True), ("Fold all", False)):
        assert page.inner_text("#fold") == label
        page.click("#fold")
        assert set(chapters.evaluate_all(states).values()) == {is_open}


def test_without_scripts_chapters_unfold_and_the_summary_is_shown(open_page: Open) -> None:
    page = open_page(folded=True, script=False)
    page.locator("#differences > details > summary").click()
    assert page.locator("#differences table").first.is_visible()
    page.click('nav a[href="#summary"]')
    assert page.locator("#summary").is_visible()
    assert page.locator("#verdict").is_hidden()


def test_a_link_opens_its_example(open_page: Open) -> None:
    page = open_page(at="#example=12", folded=True)
    view = page.locator("#example-view")
    assert view.is_visible()
    assert page.inner_text("#example-count") == "Prompt 13 of 40 (40 in the page)"
    assert view.locator("a").get_attribute("href") == "#example=12"
    page.fill("#example-search", "LONE")
    page.evaluate("location.hash = '#example=7'")
    page.wait_for_function("document.getElementById('example-count').textContent.startsWith('Prompt 8 of 40')")
    assert view.locator("a").get_attribute("href") == "#example=7"
    page.evaluate("location.hash = '#example=4000'")
    page.wait_for_function("document.getElementById('example-count').textContent.endsWith('is not in the page.')")
    page.click("#example-next")
    link = view.locator("a")
    link.click()
    assert page.evaluate("location.hash") == link.get_attribute("href") == "#example=8"


def test_examples_show_the_right_answer_and_which_answers_are_right(open_page: Open, answers: list[Generation]) -> None:
    page = open_page(at="#example=1")
    assert page.locator("#example-view .right").inner_text() == f"Right answer: 1 {HOSTILE[1]}"
    for prompt in (1, 2):
        page.evaluate(f"location.hash = '#example={prompt}'")
        page.wait_for_function(f"document.querySelector('#example-view a').hash === '#example={prompt}'")
        right = {answer.cell for answer in answers if answer.prompt_id == prompt and answer.scores["gold"] == 1}
        for cell in ("dpo", "simpo"):
            card = page.locator(".answer", has=page.locator(f'h3[title="{cell}"]'))
            assert card.locator(".verdict").inner_text() == ("✓ right" if cell in right else "✗ not right")
    assert page.locator("#example-view .right").count() == 0


def test_the_summary_prints_on_one_sheet_of_paper(open_page: Open) -> None:
    page = open_page(at="#summary", folded=True)
    assert page.locator("#summary svg").count() == 2
    assert page.locator("#summary .made li").count() == 3
    assert page.locator("#verdict").is_hidden()
    for paper in ("A4", "Letter"):
        assert pages(page.pdf(format=paper)) == 1
    page.click("text=Whole report")
    assert page.locator("#summary").is_hidden()
    assert page.locator("#verdict").is_visible()
    assert pages(page.pdf(format="A4")) > 3


def pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def test_printing_opens_what_is_folded_and_folds_it_again(open_page: Open) -> None:
    page = open_page(folded=True)
    page.emulate_media(media="print")
    for event, folded in (("beforeprint", 0), ("afterprint", None)):
        page.evaluate(f"window.dispatchEvent(new Event('{event}'))")
        found = page.locator("details:not([open])").count()
        assert found == folded if folded is not None else found > 5
    assert page.locator("#verdict table").first.is_visible()


def test_no_label_of_a_figure_is_cut_and_each_figure_has_its_words(open_page: Open) -> None:
    page = open_page()
    outside = page.evaluate(
        """() => [...document.querySelectorAll("figure svg")].flatMap((svg) => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll("text")].filter((text) => {
                const own = text.getBoundingClientRect();
                return own.left < box.left - 1 || own.right > box.right + 1
                    || own.top < box.top - 1 || own.bottom > box.bottom + 1;
            }).map((text) => `${svg.closest("figure").id}: ${text.textContent}`);
        })"""
    )
    assert outside == []
    for figure in page.query_selector_all("figure"):
        drawing, caption = figure.query_selector("svg"), figure.query_selector("figcaption")
        assert drawing is not None
        assert len(drawing.get_attribute("aria-label") or "") > 20
        assert caption is not None
        assert len(caption.inner_text()) > 60


def test_tables_are_sorted_by_their_headings(open_page: Open) -> None:
    page = open_page()
    table = page.locator("section#results table", has=page.get_by_role("button", name="judge", exact=True))
    heading = table.get_by_role("button", name="judge", exact=True)
    column = 1

    def shown() -> list[float]:
        return [
            float(text.split()[0]) for text in table.locator(f"tbody tr td:nth-child({column + 1})").all_inner_texts()
        ]

    before = shown()
    heading.click()
    assert shown() == sorted(before, reverse=True) != before
    heading.click()
    assert shown() == sorted(before)
    table.get_by_role("button", name="policy").click()
    names = table.locator("tbody tr td:first-child").all_inner_texts()
    assert names == sorted(names, key=str.casefold)


def test_what_is_undefined_is_sorted_last(open_page: Open) -> None:
    page = open_page()
    table = page.locator("section#results table", has=page.get_by_role("button", name="win rate"))
    for _ in range(2):
        table.get_by_role("button", name="win rate").click()
        index = (
            table.locator("thead th")
            .all_inner_texts()
            .index(next(text for text in table.locator("thead th").all_inner_texts() if text.startswith("win rate")))
        )
        assert table.locator(f"tbody tr td:nth-child({index + 1})").all_inner_texts()[-1] == "n/a"


def test_durations_and_sizes_are_sorted_by_their_size(open_page: Open) -> None:
    page = open_page()
    table = page.locator("section#cost table")
    cells = table.locator("tbody tr td:first-child")
    for heading, names in (
        ("wall time", ["rm lr 1e-05", "dpo", "simpo", "base"]),
        ("peak memory", ["dpo", "rm lr 1e-05", "simpo", "base"]),
    ):
        table.get_by_role("button", name=heading).click()
        assert cells.all_inner_texts() == names
    shown = [text.split()[-1] for text in table.locator("tbody tr td:nth-child(4)").all_inner_texts()]
    assert shown == ["GiB", "MiB", "KiB", "B"]


def test_text_in_a_column_of_numbers_is_sorted_by_its_first_number(open_page: Open) -> None:
    page = open_page()
    texts = ["-0.246 ±0.036", "3 of 6", "1.235e+05 [+1.000, +2.000]", "n/a"]
    found = page.evaluate("(texts) => texts.map((text) => numberIn(make('td', { textContent: text })))", texts)
    assert found[:3] == [-0.246, 3, 123500]
    assert math.isnan(found[3])


def test_examples_are_filtered_by_outcome_and_text(open_page: Open, answers: list[Generation]) -> None:
    page = open_page()
    scores = {(answer.cell, answer.prompt_id): answer.scores["rm"] for answer in answers}
    gains = {prompt: scores["simpo", prompt] - scores["base", prompt] for prompt in range(40)}
    page.select_option("#example-policy", "simpo")
    for outcome, kept in (
        ("win", sum(gain > 0 for gain in gains.values())),
        ("loss", sum(g < 0 for g in gains.values())),
    ):
        page.select_option("#example-outcome", outcome)
        assert f"of {kept} (" in page.inner_text("#example-count")
    page.select_option("#example-outcome", "tie")
    assert page.inner_text("#example-count") == "No prompt matches."
    page.select_option("#example-outcome", "all")
    page.select_option("#example-order", "gain")
    assert page.inner_text("#example-list li:first-child .quiet") == f"+{max(gains.values()):.3f}"
    page.select_option("#example-order", "loss")
    assert page.inner_text("#example-list li:first-child .quiet") == f"−{-min(gains.values()):.3f}"
    page.fill("#example-search", "LONE")
    assert page.inner_text("#example-count") == "Prompt 1 of 1 (40 in the page)"


def test_examples_are_browsed_by_keyboard(open_page: Open) -> None:
    page = open_page()
    page.focus('#example-list button[aria-current="true"]')
    for key, place in (("ArrowDown", 2), ("j", 3), ("k", 2), ("ArrowUp", 1), ("ArrowUp", 1)):
        page.keyboard.press(key)
        assert page.inner_text("#example-count").startswith(f"Prompt {place} of 40")
        assert page.evaluate("document.activeElement.ariaCurrent") == "true"
    for _ in range(29):
        page.keyboard.press("ArrowDown")  # onto the second page of the list
    assert page.inner_text("#example-count").startswith("Prompt 30 of 40")
    page.click("#example-next")
    assert page.inner_text("#example-count").startswith("Prompt 31 of 40")
    page.uncheck("#example-cells label:has-text('simpo') input")
    assert not any(text.startswith("simpo") for text in page.locator(".answer h3").all_inner_texts())


def test_dark_is_a_choice(open_page: Open) -> None:
    page = open_page(scheme="light")
    colours = [page.evaluate("getComputedStyle(document.body).backgroundColor")]
    axis = "getComputedStyle(document.querySelector('#differences-figure svg text, figure svg text')).fill"
    axes = [page.evaluate(axis)]
    page.click("#theme")
    colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    axes.append(page.evaluate(axis))
    assert colours == ["rgb(255, 255, 255)", "rgb(21, 23, 26)"]
    assert axes == ["rgb(28, 30, 33)", "rgb(230, 232, 234)"]


def test_the_numbers_of_a_figure_can_be_downloaded(open_page: Open, shared_run: Run) -> None:
    page = open_page()
    with page.expect_download() as started:
        page.click("button[data-numbers=judged]")
    text = Path(started.value.path()).read_text(encoding="utf-8")
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["cell", "score"]
    assert [float(value) for cell, value in rows if cell == "simpo"] == pytest.approx(
        [answer.scores["rm"] for answer in shared_run.generations if answer.cell == "simpo"], rel=1e-4
    )


def test_hostile_answers_change_nothing_but_what_they_show(open_page: Open) -> None:
    page = open_page()
    shown = {}
    for prompt in HOSTILE:
        page.evaluate("window.scrollTo(0, 0)")
        while not page.inner_text("#example-count").startswith(f"Prompt {prompt + 1} of"):
            page.click("#example-next")
        card = page.locator(".answer", has=page.locator("h3", has_text="dpo"))
        shown[prompt] = card.locator(".text").evaluate("(element) => element.textContent")
        assert page.evaluate("document.documentElement.scrollWidth") == 1440
    assert page.evaluate("window.ran") is None
    assert shown[1] == HOSTILE[1]
    assert shown[2] == HOSTILE[2]
    assert shown[3] == "\\u001b[31mred\\u001b[0m \\u202eright to left\\u202c \\u200f mark"
    assert shown[4] == "x" * 20_000
    assert shown[5] == "nul \\u0000 and a lone \\ud800 surrogate"
    assert shown[6] == HOSTILE[6]
    assert page.locator("#example-view script, #example-view img").count() == 0


def test_it_prints_in_light_without_controls(open_page: Open) -> None:
    page = open_page(scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator("#examples").is_hidden()
    assert page.locator("figure svg").first.is_visible()


def test_the_page_is_well_formed_json_and_all(folder: Path) -> None:
    html = (folder / "report.html").read_bytes().decode("utf-8")
    blocks = [part.split("</script>")[0].split(">", 1)[1] for part in html.split('<script type="application/json"')[1:]]
    assert len(blocks) == len(list((folder / "figures").iterdir())) + 1
    assert all(json.loads(block) for block in blocks)
