"""Scripts are told by the names of characters."""

import pytest

from align_bench.data.scripts import NONE, script_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello, naïve world", "Latin"),
        ("Привет world, как дела", "Cyrillic"),
        ("καλημέρα", "Greek"),
        ("今天天气很好", "Han"),
        ("今日は天気がいい", "Japanese"),
        ("ｶﾀｶﾅ", "Japanese"),
        ("안녕하세요", "Korean"),
        ("สวัสดีครับ", "Thai"),
        ("नमस्ते दुनिया", "Devanagari"),
        ("مرحبا بالعالم", "Arabic"),
        ("ＡＢＣ", "Latin"),
        ("1 + 1 = 2 🙂", NONE),
        ("", NONE),
    ],
)
def test_script(text: str, script: str) -> None:
    assert script_of([text]) == script


def test_letters_are_counted_over_all_texts() -> None:
    assert script_of(["abc", "привет всем"]) == "Cyrillic"
    assert script_of(["abcdefghijkl", "привет"]) == "Latin"
    assert script_of(["1 2 3 4 5 6 7 8 9", "да"]) == "Cyrillic"
