"""What is wrong with rows is counted and named, each kind on rows that have it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from align_bench.data.check_rows import Sides
from align_bench.data.doctor import Finding, Repeats, examine, find_repeats, scripts
from align_bench.data.summary import summarise
from align_bench.records import Message, Preference, PreferenceSet

LONG = "Please write a short story about a lighthouse keeper who finds a letter in a bottle on the beach at dawn"


def pair(number: int, prompt: str, chosen: str | None, rejected: str | None) -> Preference:
    return Preference(number, (Message("user", prompt),), chosen, rejected)


def rows_of(*cells: tuple[str, str | None, str | None]) -> list[Preference]:
    return [pair(number, *row) for number, row in enumerate(cells)]


def found_in(rows: Sequence[Preference], **more: object) -> dict[str, Finding]:
    found = PreferenceSet(tuple(rows), "pairs", {})
    return {each.what: each for each in examine(found, summarise(found), **more)}  # type: ignore[arg-type]


def test_duplicates_contradictions_and_repeated_prompts() -> None:
    rows = rows_of(
        ("q0", "yes", "no"), ("q0", "yes", "no"), ("q0", "no", "yes"), ("q0", "yes", "maybe"), ("q1", "yes", "no")
    )
    expected = Repeats(
        duplicates=(1,), near_duplicates=(), contradictions=(0, 1, 2), prompts=(1, 2, 3), near_prompts=()
    )
    assert find_repeats(rows) == expected
    found = found_in(rows)
    assert [found[what].rows for what in ("duplicate pairs", "contradictory pairs", "repeated prompts")] == [1, 3, 3]
    assert found["contradictory pairs"].first == (0, 1, 2)
    assert found["contradictory pairs"].share == 0.6
    assert "label them again" in (found["contradictory pairs"].advice or "")


def test_rows_of_one_answer_contradict_by_their_label() -> None:
    rows = rows_of(("q", "yes", None), ("q", None, "yes"), ("q", None, "no"), ("r", "yes", None), ("r", "yes", None))
    assert find_repeats(rows).contradictions == (0, 1)
    assert find_repeats(rows).duplicates == (4,)


def test_near_duplicates_need_every_part_to_be_near() -> None:
    rows = rows_of(
        (LONG, "Once upon a time.", "No."),
        (LONG.upper(), "Once  upon a time.", "no."),
        (LONG + "!", "No.", "Once upon a time."),
        (LONG + ".", "Something else.", "No."),
    )
    found = find_repeats(rows)
    assert (found.near_duplicates, found.near_prompts, found.duplicates, found.prompts) == ((1,), (1, 2, 3), (), ())


def test_a_prompt_is_all_its_turns() -> None:
    turns = (Message("user", "hello"), Message("assistant", "hi"), Message("user", "and now?"))
    rows = [Preference(0, turns, "a", "b"), Preference(1, turns[2:], "a", "b")]
    assert find_repeats(rows) == Repeats((), (), (), (), ())


def test_numbers_are_those_of_the_source() -> None:
    rows = [pair(number, "q", "a", "b") for number in (3, 10, 11)]
    assert find_repeats(rows).duplicates == (10, 11)


def test_prompts_of_another_set() -> None:
    train = rows_of(("q0", "a", "b"), (LONG, "a", "b"))
    val = rows_of(("q0", "c", "d"), ("q0", "e", "f"), (LONG + "?", "a", "b"), ("q5", "a", "b"))
    found = found_in(val, against={"train": PreferenceSet(tuple(train), "pairs", {})})
    assert (found["prompts of train"].rows, found["prompts of train"].first) == (2, (0, 1))
    assert (found["near prompts of train"].rows, found["near prompts of train"].first) == (1, (2,))
    assert found["prompts of train"].advice
    apart = found_in(train[:1], against={"val": PreferenceSet(tuple(val[3:]), "pairs", {})})
    assert (apart["prompts of val"].rows, apart["prompts of val"].advice) == (0, None)


@pytest.mark.parametrize(("first", "wrong"), [(90, True), (10, True), (60, False), (40, False)])
def test_labels_on_one_side(first: int, wrong: bool) -> None:
    found = found_in(rows_of(("q", "a", "b")), sides=Sides(100, first))["labels: first answer preferred"]
    assert (found.rows, found.of, found.advice is not None) == (first, 100, wrong)
    unpaired = found_in(rows_of(("q", "a", None)), sides=Sides(100, first))["labels: desirable"]
    assert (unpaired.rows, unpaired.advice is not None) == (first, wrong)


def test_the_longer_answer() -> None:
    rows = [pair(n, f"q{n}", "one two three", "one") for n in range(7)]
    rows += [pair(n, f"q{n}", "one", "one two") for n in range(7, 9)]
    rows += [pair(9, "q9", "one two", "two one")]
    found = found_in(rows)["longer answer preferred"]
    assert (found.rows, found.of) == (7, 9)
    assert (found.advice or "").startswith("the longer answer wins")
    swapped = [Preference(row.pair, row.prompt, row.rejected, row.chosen) for row in rows]
    assert (found_in(swapped)["longer answer preferred"].advice or "").startswith("the shorter answer wins")
    assert found_in(rows[5:9])["longer answer preferred"].advice is None
    assert found_in(rows[9:])["longer answer preferred"].share is None


def test_scripts_of_rows() -> None:
    rows = rows_of(*[("what?", "this", "that")] * 8, ("что?", "это", "то"), ("1+1", "2", "3"))
    assert scripts(rows) == {"Latin": 8, "Cyrillic": 1, "no letters": 1}
    found = found_in(rows)
    assert found["mostly in another script than Latin"].rows == 1
    assert found["without letters"].rows == 1
    assert found["mostly in Cyrillic"].rows == 1
    assert "Latin and Cyrillic" in (found["mostly in another script than Latin"].advice or "")
    assert found_in(rows[:8])["mostly in another script than Latin"].advice is None


def test_what_became_of_rows_as_tokens() -> None:
    counts = {"kept": 7, "truncated": 2, "dropped: refused by the chat template": 3}
    found = found_in(rows_of(*[("q", "a", "b")] * 10), tokens=counts, max_length=64)
    assert (found["beyond 64 tokens"].rows, found["dropped: refused by the chat template"].share) == (2, 0.3)
    assert found["beyond 64 tokens"].advice
    assert found["dropped: refused by the chat template"].advice


def test_rows_without_anything_wrong_need_no_advice() -> None:
    rows = [pair(n, f"question {n}", *(("a b", "c") if n % 2 else ("a", "b c"))) for n in range(20)]
    assert [found.what for found in found_in(rows, sides=Sides(20, 10)).values() if found.advice] == []
