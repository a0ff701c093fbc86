"""The audit's texts: edits, other prompts, and which score belongs to which answer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from align_bench.judge.audit import LEAST_PROMPTS, audit, drawn, expected, other_prompts
from align_bench.judge.edits import FILLER, FILLER_UNSPACED, append_filler, double_last_paragraph, strip_marks
from align_bench.judge.overlap import Overlap, describe, overlap
from align_bench.metrics.counterfactual import VERSIONS
from align_bench.records import Conversation, Message, Preference, TokenRow, Update, no_update


def pair(number: int, prompt: str, chosen: str, rejected: str) -> Preference:
    return Preference(number, (Message("user", prompt),), chosen, rejected)


PAIRS = [pair(4, "one?", "**Yes**", "no"), pair(7, "two?", "a\n\nb", "b"), pair(9, "one?", "x", "yy")]


def by_text(
    conversations: Sequence[Conversation], *, max_tokens: int, update: Update = no_update
) -> tuple[list[float], int]:
    """A judge whose score tells what it was shown."""
    return [1000 * len(one.prompt[-1].content) + len(one.answer) for one in conversations], 0


def test_every_version_is_the_score_of_its_text() -> None:
    found = audit(by_text, PAIRS, seed=0, max_tokens=1)
    assert [(one.pair, one.side) for one in found] == [
        (number, side) for number in (4, 7, 9) for side in ("chosen", "rejected")
    ]
    first, second = found[0].scores, found[3].scores
    assert tuple(first) == VERSIONS
    assert first == {
        "plain": 4007,
        "shuffled": 4007,
        "empty": 7,
        "filler": 4007 + 1 + len(FILLER),
        "doubled": 4007 + 2 + 7,
        "stripped": 4003,
    }
    assert second["stripped"] is None  # nothing to strip
    assert found[2].scores["doubled"] == 4000 + len("a\n\nb\n\nb")


def test_a_shuffled_prompt_is_another_one_and_the_same_for_both_answers() -> None:
    prompts = [(Message("user", text),) for text in ("a", "b", "a", "c", "d")]
    found = other_prompts(prompts, 0)
    assert all(other not in (None, own) for other, own in zip(found, prompts, strict=True))
    assert found[0] == found[2]
    assert found == other_prompts(prompts, 0)
    assert any(other_prompts(prompts, seed) != found for seed in range(1, 6))
    assert other_prompts(prompts[:1] * 2, 0) == [None, None]


def test_whole_prompts_are_drawn_and_not_the_first_of_a_sorted_file() -> None:
    prompts = [place // 5 for place in range(5000)]  # sorted, five pairs each
    places = drawn(prompts, 200, 0)
    kept = {prompts[place] for place in places}
    assert len(kept) == LEAST_PROMPTS == 200  # 200 pairs alone would be 40 prompts
    assert places == [place for place, prompt in enumerate(prompts) if prompt in kept]
    assert 400 < sum(kept) / len(kept) < 600  # of the whole file
    assert drawn(prompts, 200, 0) == places
    assert drawn(prompts, 200, 1) != places
    assert {prompts[place] for place in drawn(prompts, 2000, 0)} > kept
    assert len(drawn(prompts, 2001, 0)) == 2005


def test_all_pairs_are_drawn_where_there_are_no_more() -> None:
    assert drawn([1, 2, 1, 3], 1, 0) == [0, 1, 2, 3]
    assert drawn(range(300), 250, 0) != list(range(250))
    assert len(drawn(range(300), 250, 0)) == 250
    assert drawn([], 5, 0) == []


@pytest.mark.parametrize(("pairs", "each"), [(200, 1), (200, 5), (1200, 5), (9000, 2)])
def test_a_plan_expects_about_as_many_pairs_as_are_drawn(pairs: int, each: int) -> None:
    prompts = [place // each for place in range(5000)]
    assert expected(pairs, len(prompts), len(set(prompts))) == pytest.approx(len(drawn(prompts, pairs, 0)), abs=each)


def test_filler_speaks_the_texts_language() -> None:
    assert append_filler("It is 4.") == f"It is 4. {FILLER}"
    assert append_filler("答案是四。") == f"答案是四。{FILLER_UNSPACED}"


def test_only_the_last_paragraph_is_doubled() -> None:
    assert double_last_paragraph("First.\n\nSecond\nline.\n") == "First.\n\nSecond\nline.\n\nSecond\nline."
    assert double_last_paragraph("One.") == "One.\n\nOne."


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("# Title\ntext", "Title\ntext"),
        ("- one\n  * two\n3. three", "one\n  two\n3. three"),
        ("**bold** and *italic*, __both__", "bold and italic, both"),
        ("see [here](http://x.org/a) and `code`", "see here and code"),
        ("```python\nx = 1\n```\nend", "x = 1\nend"),
        ("> quoted", "quoted"),
        ("2 * 3 * 4 = 24 and snake_case", "2 * 3 * 4 = 24 and snake_case"),
    ],
)
def test_marks_go_and_words_stay(marked: str, plain: str) -> None:
    assert strip_marks(marked) == plain


def test_rows_are_shared_by_content_whichever_answer_is_preferred() -> None:
    train = [TokenRow(0, (1, 2), (3,), (4,)), TokenRow(1, (5,), (6,), (7,))]
    judge = [TokenRow(9, (1, 2), (4,), (3,)), TokenRow(8, (5,), (6,), (8,)), TokenRow(7, (9,), (6,), (7,))]
    found = overlap(judge, train)
    assert found == Overlap(rows=3, same_rows=1, same_prompts=2)
    assert "1 of its 3 training rows" in str(describe("rm", found))
    assert describe("rm", overlap(judge[2:], train)) is None
