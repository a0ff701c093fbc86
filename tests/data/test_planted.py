"""The planted preference set: splits, determinism, the bias dial and the gold judge."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from dataclasses import fields
from typing import Any

import pytest

from align_bench.data import planted as module
from align_bench.data.planted import (
    BIASES,
    FILLERS,
    PADDED_MAX_WORDS,
    SPLITS,
    PlantedPair,
    Question,
    draw_planted,
    is_right,
    planted,
    planted_questions,
    questions,
    write_answer,
)

ALL_SPLITS = sorted(SPLITS)
BY_HASH = ["train", "judge", "val"]
# SHA-256 of every field of every pair, from before there was a split `test`.
DIGESTS = {
    ("train", "none"): "087a8e9451ef3a9af63ea6ac53d2424d671f2d81fa7b225002991f869d76f042",
    ("train", "default"): "0f193d13732e66e387dc5bac2e770ce627697a2d6a68d5e322652948f800cd87",
    ("train", "strong"): "556827b4a2f36618eab7f5327c0199e48899c70863955aeaeed88307e8e724d3",
    ("judge", "none"): "c58ac55cc388daa87656a3d9cb73a471e7fa864d861cc14a59706f63cf94e00d",
    ("judge", "default"): "60c0ecc8971200eaeb4178964367376548b7ceee8ef74f9316f2bec9ed7a3b46",
    ("judge", "strong"): "8e57189d26e3d661a2e38c9e79606d936e31f4c268ed45c774820ecd856711c5",
    ("val", "none"): "711cc08ab3a4943b6983596874c0432dd0f2fbfc44f740aec018f32487f3fcb7",
    ("val", "default"): "d6f244b63532a8158c4a3f330a2ec7508363fd30f711b915d6082a433e3457c8",
    ("val", "strong"): "5a96f432c3d709e03a09b7a5358f24ade1357a0861c98173de4dbda2b34092b3",
}


def words(text: str) -> int:
    return len(text.split())


def longer_preferred(pairs: list[PlantedPair]) -> float:
    """Share of the pairs of unequal length in which the longer answer was chosen."""
    unequal = [pair for pair in pairs if words(pair.chosen) != words(pair.rejected)]
    return sum(words(pair.chosen) > words(pair.rejected) for pair in unequal) / len(unequal)


def right_preferred(pairs: list[PlantedPair]) -> float:
    """Share of the pairs with one right answer in which it was chosen."""
    decided = [pair.gold_choice for pair in pairs if pair.gold_choice is not None]
    return decided.count(1) / len(decided)


@pytest.mark.parametrize("split", ALL_SPLITS)
def test_split_has_its_size_and_distinct_prompts(split: str) -> None:
    pairs = planted(split)
    assert len(pairs) == SPLITS[split]
    assert len({pair.prompt for pair in pairs}) == SPLITS[split]


def test_sizes() -> None:
    assert SPLITS == {"train": 3000, "judge": 2000, "val": 1000, "test": 1000}


@pytest.mark.parametrize(("split", "bias"), DIGESTS)
def test_the_splits_of_old_are_what_they_were(split: str, bias: str) -> None:
    rows = [tuple(getattr(pair, each.name) for each in fields(pair)) for pair in planted(split, bias=bias)]
    assert hashlib.sha256(repr(rows).encode()).hexdigest() == DIGESTS[split, bias]


@pytest.mark.parametrize("seeds", [(0, 0, 0), (7, 7, 7), (0, 1, 2)])
def test_splits_share_no_prompt(seeds: tuple[int, int, int]) -> None:
    prompts = [{p.prompt for p in planted(split, seed=s)} for split, s in zip(BY_HASH, seeds, strict=True)]
    assert len(set.union(*prompts)) == sum(SPLITS[split] for split in BY_HASH)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_test_split_has_prompts_of_its_own(seed: int) -> None:
    prompts = [{p.prompt for p in planted(split, seed=seed)} for split in ALL_SPLITS]
    assert len(set.union(*prompts)) == sum(SPLITS.values())


@pytest.mark.parametrize("split", ALL_SPLITS)
def test_same_seed_same_pairs_and_other_seed_other_pairs(split: str) -> None:
    questions.cache_clear()
    first = planted(split, seed=3)
    questions.cache_clear()
    assert first == planted(split, seed=3)
    assert first != planted(split, seed=4)


def test_rows_takes_the_first_rows() -> None:
    assert planted("val", rows=17) == planted("val")[:17]
    assert planted("val", rows=0) == []


def test_pairs_are_drawn_as_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, drawn = planted("val", seed=3, bias="strong"), list[Question]()

    def draw(question: Question, *rest: Any) -> Any:
        drawn.append(question)
        return draw_pair(question, *rest)

    draw_pair = module._draw_pair
    monkeypatch.setattr(module, "_draw_pair", draw)
    pairs = draw_planted("val", seed=3, bias="strong")
    assert [next(pairs) for _ in range(5)] == whole[:5]
    assert len(drawn) == 5
    assert list(pairs) == whole[5:]


@pytest.mark.parametrize("split", ALL_SPLITS)
def test_every_kind_is_in_every_split(split: str) -> None:
    kinds = Counter(pair.kind for pair in planted(split))
    assert len(kinds) >= 12
    assert set(kinds) == {question.kind for question in planted_questions()}


def test_two_answers_of_a_pair_differ_and_are_short() -> None:
    for split in ALL_SPLITS:
        for pair in planted(split):
            assert pair.chosen != pair.rejected
            assert words(pair.prompt) <= 15
            assert min(words(pair.chosen), words(pair.rejected)) >= 1
            assert max(words(pair.chosen), words(pair.rejected)) <= PADDED_MAX_WORDS


@pytest.mark.parametrize("bias", sorted(BIASES))
def test_gold_choice_agrees_with_is_right(bias: str) -> None:
    for pair in planted("judge", bias=bias):
        chosen, rejected = (is_right(text, pair.gold, pair.candidates) for text in (pair.chosen, pair.rejected))
        expected = None if chosen == rejected else (1 if chosen else 2)
        assert pair.gold_choice == expected, pair


def test_gold_is_a_candidate_or_a_number() -> None:
    for question in questions():
        assert question.gold in question.candidates if question.candidates else question.gold.isdigit()
        assert question.gold not in question.mistakes
        assert len(set(question.candidates)) == len(question.candidates)


def test_bias_moves_labels_and_nothing_else() -> None:
    plain, strong = planted("train", bias="none"), planted("train", bias="strong")
    for one, other in zip(plain, strong, strict=True):
        assert (one.prompt, one.gold, one.candidates, one.kind) == (
            other.prompt,
            other.gold,
            other.candidates,
            other.kind,
        )
        assert {one.chosen, one.rejected} == {other.chosen, other.rejected}
        if one.chosen != other.chosen:
            assert words(other.chosen) > words(one.chosen)
    assert plain != strong


def test_more_bias_prefers_longer_and_less_often_right_answers() -> None:
    dial = [planted("train", bias=bias) for bias in (0.0, 0.5, 1.0, 2.0, 4.0)]
    longer, right = [longer_preferred(pairs) for pairs in dial], [right_preferred(pairs) for pairs in dial]
    assert longer == sorted(set(longer))
    assert right == sorted(set(right), reverse=True)
    assert 0.45 < longer[0] < 0.55
    assert right[0] > 0.9


@pytest.mark.parametrize("split", ALL_SPLITS)
@pytest.mark.parametrize("seed", [0, 1])
def test_share_of_longer_preferred(split: str, seed: int) -> None:
    assert 0.65 <= longer_preferred(planted(split, seed=seed)) <= 0.75
    assert 0.80 <= longer_preferred(planted(split, seed=seed, bias="strong")) <= 0.90


def test_named_bias_equals_its_value() -> None:
    for name, value in BIASES.items():
        assert planted("val", bias=name) == planted("val", bias=value)
    assert planted("val") == planted("val", bias="default")


def test_filler_and_wordings_make_no_claim() -> None:
    names = {name for q in questions() for name in (*q.candidates, *q.mistakes, q.gold)}
    mention = module._mention(tuple(sorted(names)))
    wordings = [wording.replace("{a}", "").replace("{A}", "") for wording in (*module._DIRECT, *module._HEDGES)]
    for text in (*FILLERS, *wordings):
        assert mention.search(text) is None, text
        assert not any(character.isdigit() for character in text)


def test_written_answer_is_as_right_as_asked() -> None:
    rng = random.Random(0)
    for question in rng.sample(planted_questions(), 500):
        for correct in (True, False):
            terse = write_answer(question, correct=correct, padded=False, rng=rng)
            padded = write_answer(question, correct=correct, padded=True, rng=rng)
            assert words(terse) <= 5 < words(padded) <= PADDED_MAX_WORDS
            assert is_right(terse, question.gold, question.candidates) is correct
            assert is_right(padded, question.gold, question.candidates) is correct


CITIES = ("Berlin", "London", "Paris", "New York")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Paris.", True),
        ("paris", True),
        ("It is PARIS, not London.", True),
        ("“Paris”", True),
        ("The answer is 'Paris'.", True),
        ("Berlin, London, Paris, New York.", False),
        ("London. No, Paris.", False),
        ("Parisian food is good.", False),
        ("Parisian cafés are in Paris.", True),
        ("", False),
        ("   \n", False),
        ("I do not know.", False),
    ],
)
def test_is_right_takes_the_first_named_candidate(text: str, right: bool) -> None:
    assert is_right(text, "Paris", CITIES) is right


def test_is_right_with_names_inside_names_and_odd_characters() -> None:
    assert is_right("New York it is", "New York", CITIES)
    assert not is_right("York", "New York", CITIES)
    assert is_right("inside out", "inside", ("in", "inside"))
    assert not is_right("It's C.", "S", ("C", "S"))
    assert is_right("Oslo", "Oslo", ())


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("12.", "12", True),
        ("It is 12. I am sure.", "12", True),
        ("112", "12", False),
        ("123", "12", False),
        ("1 2 12", "12", False),
        ("11, 12, 13", "12", False),
        ("12.5", "12", False),
        ("-12", "12", False),
        ("1,200", "1200", True),
        ("x12 is 12", "12", True),
        ("twelve", "12", False),
        ("", "12", False),
    ],
)
def test_is_right_takes_the_first_number(text: str, gold: str, right: bool) -> None:
    assert is_right(text, gold, ()) is right


@pytest.mark.parametrize("split", ["tests", "", "TRAIN"])
def test_unknown_split(split: str) -> None:
    with pytest.raises(ValueError, match="train, judge, val, test"):
        planted(split)


@pytest.mark.parametrize("rows", [-1, 1001])
def test_too_many_rows(rows: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 1000"):
        planted("val", rows=rows)


def test_bad_bias() -> None:
    with pytest.raises(ValueError, match="none, default, strong"):
        planted("val", bias="huge")
    for bias in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            planted("val", bias=bias)


def test_the_probability_of_a_label_is_that_of_its_draw() -> None:
    """Labels are calibrated by it; without bias it depends on correctness alone."""
    unequal = [pair for pair in planted("train") if words(pair.chosen) != words(pair.rejected)]
    of_longer = [
        (pair.label_probability, 1) if words(pair.chosen) > words(pair.rejected) else (1 - pair.label_probability, 0)
        for pair in unequal
    ]
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        own = [(probability, won) for probability, won in of_longer if low <= probability < high]
        spread = math.sqrt(sum(probability * (1 - probability) for probability, _ in own))
        assert spread > 3
        assert abs(sum(won - probability for probability, won in own)) < 3 * spread
    plain = {round(pair.label_probability, 9) for pair in planted("val", bias="none")}
    assert plain == {round(1 / (1 + math.exp(-own)), 9) for own in (-module.QUALITY, 0.0, module.QUALITY)}
