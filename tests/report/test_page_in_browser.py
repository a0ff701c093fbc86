"""The page in a real browser: what only a browser can show. Skipped where there is none."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from align_bench.records import Generation
from align_bench.report.export import write_report

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


@pytest.fixture(scope="module")
def answers(shared_run: Any) -> list[Generation]:
    """The generations of the run, with hostile ones among dpo's."""
    return [
        replace(answer, text=HOSTILE[answer.prompt_id], prompt=f"{HOSTILE[answer.prompt_id][:300]}?")
        if answer.prompt_id in HOSTILE and answer.cell == "dpo"
        else answer
        for answer in sorted(shared_run.generations, key=lambda answer: answer.cell != "dpo")
    ]


@pytest.fixture(scope="module")
def folder(shared_run: Any, answers: list[Generation], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written report."""
    from align_bench.report.build import build_report

    rng = random.Random(5)
    training = [
        {
            "cell": cell.cell,
            "algorithm": cell.algorithm,
            "seed": 0,
            "step": step,
            "loss": math.exp(-step) + rng.random(),
        }
        | ({"kl": 0.1 * step, "reward": rng.random()} if cell.cell == "simpo" else {})
        for cell in shared_run.outcomes
        if cell.status == "done" and cell.kind != "base"
        for step in range(1, 30)
    ]
    path = tmp_path_factory.mktemp("page")
    report = build_report(shared_run.header, shared_run.outcomes, shared_run.scores, answers)
    write_report(path, report, shared_run.scores, answers, training)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, folder: Path) -> Iterator[Callable[..., Any]]:
    """Opens the report; afterwards, neither a message on the console nor a request may have been seen."""
    contexts, seen = [], []

    def opened(width: int = 1440, scheme: str = "light", name: str = "report.html") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: seen.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.on("dialog", lambda dialog: seen.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: seen.append(request.url) if request.url != url else None)
        url = (folder / name).as_uri()
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert seen == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_word_fits_the_screen_and_is_accessible(
    open_page: Any, folder: Path, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.querySelectorAll('figure svg').length") == len(list((folder / "figures").iterdir()))
    found = Axe().run(page)
    told = [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found.response["violations"]]
    assert told == []


def test_no_label_of_a_figure_is_cut_and_each_figure_has_its_words(open_page: Any) -> None:
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
        assert len(figure.query_selector("svg").get_attribute("aria-label")) > 20
        assert len(figure.query_selector("figcaption").inner_text()) > 60


def test_tables_are_sorted_by_their_headings(open_page: Any) -> None:
    page = open_page()
    table = page.locator("section#leaderboard table", has=page.get_by_role("button", name="judge", exact=True))
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


def test_what_is_undefined_is_sorted_last(open_page: Any) -> None:
    page = open_page()
    table = page.locator("section#leaderboard table", has=page.get_by_role("button", name="win rate"))
    for _ in range(2):
        table.get_by_role("button", name="win rate").click()
        index = (
            table.locator("thead th")
            .all_inner_texts()
            .index(next(text for text in table.locator("thead th").all_inner_texts() if text.startswith("win rate")))
        )
        assert table.locator(f"tbody tr td:nth-child({index + 1})").all_inner_texts()[-1] == "n/a"


def test_durations_and_sizes_are_sorted_by_their_size(open_page: Any) -> None:
    page = open_page()
    texts = [
        "7.3 s",
        "12 min 34 s",
        "2 h 3 min",
        "813.2 MiB",
        "3.0 GiB",
        "12,345",
        "3.5e-202",
        "-0.246 ±0.036",
        "95.4%",
    ]
    found = page.evaluate("(texts) => texts.map(numberIn)", texts)
    assert found == [7.3, 754, 7380, 813.2 * 2**20, 3 * 2**30, 12345, 3.5e-202, -0.246, 95.4]
    assert page.evaluate("Number.isNaN(numberIn('n/a'))")


def test_examples_are_filtered_by_outcome_and_text(open_page: Any, answers: list[Generation]) -> None:
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


def test_examples_are_browsed_by_keyboard(open_page: Any) -> None:
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


def test_dark_is_a_choice(open_page: Any) -> None:
    page = open_page(scheme="light")
    colours = [page.evaluate("getComputedStyle(document.body).backgroundColor")]
    axis = "getComputedStyle(document.querySelector('#differences-figure svg text, figure svg text')).fill"
    axes = [page.evaluate(axis)]
    page.click("#theme")
    colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    axes.append(page.evaluate(axis))
    assert colours == ["rgb(255, 255, 255)", "rgb(21, 23, 26)"]
    assert axes == ["rgb(28, 30, 33)", "rgb(230, 232, 234)"]


def test_the_numbers_of_a_figure_can_be_downloaded(open_page: Any, shared_run: Any) -> None:
    page = open_page()
    with page.expect_download() as started:
        page.click("button[data-numbers=judged]")
    text = Path(started.value.path()).read_text(encoding="utf-8")
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["cell", "score"]
    assert [float(value) for cell, value in rows if cell == "simpo"] == pytest.approx(
        [answer.scores["rm"] for answer in shared_run.generations if answer.cell == "simpo"], rel=1e-4
    )


def test_hostile_answers_change_nothing_but_what_they_show(open_page: Any) -> None:
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


def test_it_prints_in_light_without_controls(open_page: Any) -> None:
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
