"""Near texts are found by MinHash as by comparing every two of them."""

from __future__ import annotations

import random
import time

import pytest

from align_bench.data.near import NEAR, RUN, near_groups

WORDS = [
    "the",
    "a",
    "of",
    "river",
    "stone",
    "light",
    "quick",
    "brown",
    "seven",
    "under",
    "over",
    "between",
    "music",
    "glass",
    "paper",
    "north",
    "winter",
    "sand",
]


def jaccard(one: str, other: str) -> float:
    sets = [{text[i : i + RUN] for i in range(max(1, len(text) - RUN + 1))} for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def texts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randint(40, 120))) for _ in range(count)]


def edited(text: str, words: int, seed: int) -> str:
    draw, parts = random.Random(seed), text.split()
    for place in draw.sample(range(len(parts)), words):
        parts[place] = "zebra"
    return " ".join(parts)


def test_the_same_but_for_case_and_blanks_is_near() -> None:
    assert near_groups(["How are you?", "who are you", "how  ARE\nyou? ", "", " ", "x"]) == [0, 1, 0, 3, 3, 5]
    assert near_groups([]) == []


@pytest.mark.parametrize("seed", range(3))
def test_pairs_well_above_are_found_and_pairs_well_below_are_not(seed: int) -> None:
    originals = texts(200, seed)
    light = [edited(text, 1, seed) for text in originals]
    heavy = [edited(text, 16, seed) for text in originals]
    groups = near_groups([*originals, *light, *heavy])
    assert groups[:200] == list(range(200))
    for place, (text, one, other) in enumerate(zip(originals, light, heavy, strict=True)):
        if jaccard(text, one) > NEAR + 0.15:
            assert groups[200 + place] == place
        if jaccard(text, other) < NEAR - 0.2:
            assert groups[400 + place] != place
    assert sum(jaccard(text, one) > NEAR + 0.15 for text, one in zip(originals, light, strict=True)) > 50
    assert sum(jaccard(text, one) < NEAR - 0.2 for text, one in zip(originals, heavy, strict=True)) > 100


def test_short_texts_that_differ_are_not_near() -> None:
    asked = [f"What is {a} + {b}?" for a in range(20) for b in range(20)]
    assert near_groups(asked) == list(range(400))
    assert near_groups(["Hi 0?", "Hi 1?", "Yo.", "No."]) == [0, 1, 2, 3]


def test_no_text_reaches_into_the_next() -> None:
    """The same texts have the same groups whatever stands beside them."""
    one, other = texts(2, 7)
    alone = near_groups([one, edited(one, 1, 1)])
    beside = near_groups([one, other, edited(one, 1, 1)])
    assert (alone, beside) == ([0, 0], [0, 1, 0])


def test_other_scripts_are_compared_as_well() -> None:
    text = "今天天气很好，我们一起去公园散步，看看花，喝喝茶，聊聊最近读的书，然后回家做饭。" * 2
    assert near_groups([text, text.replace("公园", "海边", 1), "今天下雨。"]) == [0, 0, 2]
    assert near_groups(["lone \ud800 surrogate", "another"]) == [0, 1]


def test_groups_do_not_depend_on_the_order_of_the_process() -> None:
    found = texts(50, 3)
    mixed = [*found, *(edited(text, 1, 5) for text in found)]
    shuffled = list(range(100))
    random.Random(0).shuffle(shuffled)
    groups, other = near_groups(mixed), near_groups([mixed[place] for place in shuffled])
    same = {(a, b) for a in range(100) for b in range(100) if groups[a] == groups[b]}
    assert same == {(shuffled[a], shuffled[b]) for a in range(100) for b in range(100) if other[a] == other[b]}


def test_time_grows_as_the_texts_do() -> None:
    """Also where all texts are near, and every band is one group."""
    text = texts(1, 0)[0]

    def seconds(count: int) -> float:
        start = time.process_time()
        assert set(near_groups([f"{text} {number}" for number in range(count)])) == {0}
        return time.process_time() - start

    seconds(10)
    assert seconds(8000) < 30 * max(seconds(1000), 0.05)
