import io
import json
from dataclasses import asdict, replace
from typing import TypeVar

import pytest
from rich.console import Console

from align_bench.data.preferences import DataSource, read
from align_bench.data.summary import Lengths, rich_summary, summarise
from align_bench.records import Message, Preference, PreferenceSet

T = TypeVar("T")


def there(value: T | None) -> T:
    """What is not undefined."""
    assert value is not None
    return value


def row(
    prompt: str, chosen: str | None, rejected: str | None, pair: int = 0, gold_choice: int | None = None
) -> Preference:
    return Preference(pair, (Message("user", prompt),), chosen, rejected, gold_choice=gold_choice)


def some(*rows: Preference) -> PreferenceSet:
    return PreferenceSet(rows, "some shape", {"read": len(rows) + 1, "kept": len(rows), "dropped: equal answers": 1})


def printed(preferences: PreferenceSet, rows: int = 3, path: str = "data.jsonl") -> str:
    text = io.StringIO()
    Console(width=120, file=text).print(rich_summary(DataSource(path), preferences, rows=rows))
    return text.getvalue()


def test_numbers() -> None:
    preferences = some(
        row("one two", "a b c", "a"),
        row("one", "a", "a b"),
        row("one two three", "a b", "c d"),
        row("one", "a b c d", "a", gold_choice=1),
        row("one", "a b c d", "a", gold_choice=2),
    )
    summary = summarise(preferences)
    assert summary.prompt == Lengths(mean=1.6, median=1, p95=3, max=3, n=5)
    assert summary.chosen == Lengths(mean=2.8, median=3, p95=4, max=4, n=5)
    assert summary.rejected == Lengths(mean=1.4, median=1, p95=2, max=2, n=5)
    assert (summary.pairs, summary.chosen_longer, summary.equally_long) == (5, 0.6, 0.2)
    assert (summary.gold_pairs, summary.gold_agrees) == (2, 0.5)
    assert summary.shape == "some shape"
    assert summary.counts == {"read": 6, "kept": 5, "dropped: equal answers": 1}


def test_pairs_with_a_margin_are_counted() -> None:
    rows = [replace(row("q", "a", "b"), margin=margin) for margin in (0.5, None, 0.0)]
    assert summarise(some(*rows)).with_margin == 2
    assert "2 of 3 pairs say how much better the chosen answer is" in printed(some(*rows))
    assert "how much better" not in printed(some(rows[1]))


@pytest.mark.parametrize(("count", "p95"), [(1, 1), (19, 19), (20, 19), (21, 20), (100, 95), (101, 96)])
def test_p95_is_the_smallest_length_that_95_percent_do_not_exceed(count: int, p95: int) -> None:
    lengths = summarise(some(*[row("x " * (each + 1), "a", "b") for each in range(count)])).prompt
    naive = next(each for each in range(1, count + 1) if each >= 0.95 * count)
    assert lengths is not None
    assert lengths.p95 == p95 == naive


def test_cjk_is_counted_by_character() -> None:
    assert there(summarise(some(row("你好", "北京", "a"))).chosen).mean == 2


def test_all_turns_of_the_prompt_count() -> None:
    prompt = (Message("system", "be kind"), Message("user", "hi"))
    assert there(summarise(some(Preference(0, prompt, "a", "b"))).prompt).mean == 3


def test_unpaired_sets_have_no_shares() -> None:
    summary = summarise(some(row("q", "a b", None), row("q", None, "c")))
    assert (summary.pairs, summary.chosen_longer, summary.equally_long, summary.gold_agrees) == (0, None, None, None)
    assert (there(summary.chosen).n, there(summary.rejected).n) == (1, 1)
    assert summarise(some(row("q", "a", None))).rejected is None
    assert "n/a" in printed(some(row("q", "a", None)))


def test_as_dict_is_json() -> None:
    summary = summarise(some(row("q", "a b", "c")))
    assert json.loads(json.dumps(asdict(summary)))["chosen"]["mean"] == 2


def test_planted_bias_shows() -> None:
    bias = {
        name: summarise(read(DataSource("embedded/planted", split="val", bias=name))) for name in ("none", "strong")
    }
    assert there(bias["strong"].chosen_longer) > there(bias["none"].chosen_longer) + 0.2
    assert there(bias["none"].gold_agrees) > there(bias["strong"].gold_agrees)


def test_printed_summary_shows_counts_and_rows() -> None:
    text = printed(some(*[row(f"question {each}", "long answer", "short", pair=each) for each in range(5)]), rows=2)
    assert "dropped: equal answers" in text
    assert "some shape" in text
    assert "data.jsonl" in text
    assert "question 1" in text
    assert "question 2" not in text
    assert "user: question 0" in text
    assert "chosen: long answer" in text
    assert "rejected: short" in text
    assert "longer in 100.0% of 5 pairs" in text


def test_printed_texts_are_escaped_and_shortened() -> None:
    text = printed(some(row("[red]not markup[/red] [/nope]", "x" * 5000, "\x1b[31mred\x07")), path="[bold]a.jsonl")
    assert "[red]not markup[/red] [/nope]" in text
    assert "[bold]a.jsonl" in text
    assert "4,600 more characters" in text
    assert text.count("x") < 410
    assert "\x1b[31m" not in text
    assert "\x07" not in text


def test_gold_is_mentioned() -> None:
    text = printed(some(row("q", "a b", "c", gold_choice=1), row("q", "a b", "c", gold_choice=2)))
    assert "Of 2 pairs with one right answer, 50.0% have it as the chosen." in text
