"""Suites that nobody can mean: each is refused with exit code 2, naming file and place, without a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align_bench.errors import AlignBenchError, SuiteError
from align_bench.suite.load import load_suite
from align_bench.suite.models import Suite

Refused = Callable[..., str]

MINIMAL = "name: mine\nbase: embedded/tiny\ndata: {train: embedded/planted, val: embedded/planted}\nmethods: [dpo]\n"
HUGE = "9" * 400
HUGE_HEX = "0x" + "f" * 1000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{now}: &{now} [{', '.join([f'*{before}'] * 9)}]\n" for before, now in zip("abcdefgh", "bcdefghi", strict=True)
)

TEXTS = {
    "empty": "",
    "only a comment": "# nothing\n",
    "a list": "[1, 2]",
    "a text": "hello",
    "a number": "3",
    "null": "null",
    "a tab": "name:\tx\n\tbase: y",
    "an open bracket": "methods: [",
    "an open quote": "name: 'x",
    "a null character": "name: x\0y",
    "a byte order mark inside": "name: x\ufeff: y: z",
    "two documents": MINIMAL + "---\n" + MINIMAL,
    "an unknown tag": MINIMAL + "x: !!python/object/apply:os.system ['true']",
    "a python tuple": MINIMAL + "seeds: !!python/tuple [0]",
    "a python name": MINIMAL + "seeds: !!python/name:os.system",
    "an own tag": MINIMAL + "seeds: !mine [0]",
    "binary": MINIMAL + "seeds: [!!binary MA==]",
    "a set": MINIMAL + "seeds: !!set {0}",
    "an ordered mapping": MINIMAL + "seeds: !!omap [a: 1]",
    "pairs": MINIMAL + "seeds: !!pairs [a: 1]",
    "a binary name": MINIMAL.replace("mine", "!!binary bWluZQ=="),
    "a binary base": MINIMAL.replace("embedded/tiny", "!!binary bWluZQ=="),
    "an alias bomb": MINIMAL + BOMB,
    "an alias bomb of mappings": MINIMAL + BOMB.replace("[", "{x: [").replace("]", "]}"),
    "an alias of nothing": MINIMAL + "seeds: *a",
    "an alias of itself": MINIMAL + "seeds: &a [*a]",
    "a mapping in itself": MINIMAL + "lora: &a {r: *a}",
    "deep lists": "seeds: " + "[" * 5000 + "]" * 5000,
    "deep mappings": "seeds: " + "{a: " * 5000 + "1" + "}" * 5000,
    "deep blocks": "\n".join(" " * depth + "a:" for depth in range(300)),
    "deep dashes": "seeds:\n" + "- " * 2000 + "1",
    "a long file": MINIMAL + "#" + "x" * 10**6,
    "many values": MINIMAL + f"seeds: [{', '.join(map(str, range(60_000)))}]",
    "a long key": MINIMAL + f"? {'k' * 20_000}\n: 1\n",
    "a key that is a list": MINIMAL + "? [a]\n: 1\n",
    "a key that is a mapping": MINIMAL + "? {a: 1}\n: 1\n",
    "a key twice": MINIMAL + "name: other\n",
    "a key twice below": MINIMAL + "train: {epochs: 1, epochs: 2}\n",
    "a number as key": MINIMAL + "1: 2\n",
    "null as key": MINIMAL + "null: 2\n",
    "a day that is none": MINIMAL + "date: 2026-02-31\n",
    "an endless number": MINIMAL + f"seeds: [{HUGE * 20}]\n",
    "an endless hexadecimal": MINIMAL + f"seeds: [{HUGE_HEX}]\n",
    "a merge of a text": MINIMAL + "train: {<<: x}\n",
    "a merge of itself": MINIMAL + "train: &t {<<: *t}\n",
    "escapes in a key": MINIMAL + '"\\e[2J\\u202e": 1\n',
    "escapes in a value": MINIMAL.replace("mine", '"a\\e[2J\\u202eb"'),
    "escapes in a method": MINIMAL.replace("[dpo]", '["\\e[2Jdpo"]'),
    "a surrogate": MINIMAL.replace("mine", '"\\ud800"'),
    "no base": MINIMAL.replace("base: embedded/tiny\n", ""),
    "no methods": MINIMAL.replace("methods: [dpo]\n", ""),
    "extends itself": "extends: mine.yaml\n" + MINIMAL,
    "extends a list": "extends: [assignment]\n" + MINIMAL,
    "extends a number": "extends: 3\n" + MINIMAL,
    "extends nothing": "extends: ''\n" + MINIMAL,
    "extends a folder": "extends: .\n" + MINIMAL,
    "extends a long name": f"extends: {'x' * 5000}\n" + MINIMAL,
    "extends a null character": 'extends: "a\\0b"\n' + MINIMAL,
    "extends a device": "extends: /dev/zero\n" + MINIMAL,
    "a secret": MINIMAL + 'judge: {name: "${HF_TOKEN:-x}", data: embedded/planted}\n',
    "another secret": MINIMAL.replace("embedded/tiny", "${OPENAI_API_KEY:-x}"),
    "a password": MINIMAL.replace("embedded/tiny", "${db_password:-x}"),
    "a variable that is not set": MINIMAL.replace("embedded/tiny", "${NOT_SET_ANYWHERE}"),
}

# What is no whole number from 0 to 2^32 - 1; then numbers of other kinds, texts and so on.
NO_SEED = [
    "'0'",
    "true",
    "null",
    "0.5",
    "-1",
    "2.5e3x",
    "[0]",
    "{a: 1}",
    str(2**32),
    str(2**63),
    HUGE,
    "1e30",
    ".nan",
    ".inf",
    "''",
]
NO_COUNT = ["0", "-1", "'3'", "true", "2.5", ".inf", ".nan", HUGE, "[1]", "{}", "x", str(2**60)]
NO_SHARE = ["'0.1'", "true", "-0.1", "1.5", ".nan", ".inf", HUGE, "[0.1]", "{}", "x"]
NO_TRUTH = ["'yes'", "1", "0", "[]", "{}", "x", "1.0"]
NO_TEXT = ["3", "true", "[]", "{}", "1.5", "2026-01-01"]

WRONG: dict[str, list[str]] = {
    "seeds=[{}]": NO_SEED,
    "seeds={}": ["0", "'0'", "[]", "{}", "true", "[0, 0]", "[[0]]", "x"],
    "audit.seed={}": NO_SEED,
    "tune={{seed: {}}}": NO_SEED,
    "judge={{data: embedded/planted, seed: {}}}": NO_SEED,
    "train.epochs={}": NO_COUNT,
    "train.batch_size={}": NO_COUNT,
    "train.max_length={}": [*NO_COUNT, "1"],
    "train.micro_batch_tokens={}": NO_COUNT,
    "generate.prompts={}": NO_COUNT,
    "generate.max_new_tokens={}": NO_COUNT,
    "generate.samples={}": NO_COUNT,
    "lora.r={}": NO_COUNT,
    "data.train.rows={}": [value for value in NO_COUNT if value != "null"],
    "train.warmup={}": NO_SHARE,
    "lora.dropout={}": NO_SHARE,
    "judge={{data: embedded/planted, holdout: {}}}": NO_SHARE,
    "data.max_dropped={}": NO_SHARE,
    "tune={{holdout: {}}}": [*NO_SHARE, "0", "1"],
    "quick={}": NO_TRUTH,
    "report.course_figures={}": NO_TRUTH,
    "name={}": [*NO_TEXT, "''", "../x", "a/b", ".x", "x" * 101, '"a\\0b"', "'a b'", "'é'", '"a\\nb"', "null"],
    "base={}": [*NO_TEXT, "x" * 5000, '"a\\0b"', "null"],
    "precision={}": ["fp8", "3", "[]", "null", "true"],
    "data.train={}": ["3", "true", "[]", "{}", "[3]", "[[]]", "null", '"a\\0b"'],
    "data.train.prompts={}": [
        "[0]",
        "[0, 2]",
        "[1, 0]",
        "['0', '1']",
        "[true, 1]",
        "x",
        "[0, .nan]",
        "[0.5, 0.5]",
        "3",
    ],
    "data.train.columns={}": ["[]", "3", "{a: 1}", "{1: a}", "x"],
    "data.train.choice={}": ["[]", "3", "{a: 1}", "x"],
    "judge={}": ["3", "true", "[3]", "{}", "{model: 3}", "{method: 3}", "{nonsense: 1}", "[[]]", "{model: x, data: y}"],
    "judge={{model: x, name: {}}}": [*NO_TEXT, "''", "x" * 101],
    "methods={}": [
        *(
            "[]",
            "3",
            "{}",
            "[3]",
            "[null]",
            "[{dpo: 3}]",
            "[{dpo: {beta: []}}]",
            "[{dpo: {}, kto: {}}]",
            "[[]]",
            "null",
        ),
        *("[{3: {}}]", "[{dpo: {beta: {a: 1}, 3: 4}}]", "dpo", "[true]", "[{null: null}]"),
    ],
    "plugins={}": ["3", "{}", "[3]", "[null]", "x", "true"],
    "tune={}": ["3", "[]", "x", "{trials: 1}", "{search: x}", "{methods: 3}", "{methods: {dpo: 3}}", "{choose_by: x}"],
    "report={}": ["3", "[]", "{equivalence_dz: 0}", "{equivalence_dz: '0.1'}", "{seed_noise: 0}", "{nonsense: 1}"],
    "date={}": ["3", "'2026-1-1'", "2026-02-31", "x", "[]", "'2026-01-01T00:00'"],
    "chat_template_kwargs={}": ["3", "[]", "{messages: 1}", "{'a b': 1}", "{1: 2}", "{a: 2026-01-01}"],
    "evaluate.epsilons={}": ["3", "[0]", "['1']", "[-1]", "[.nan]", "[true]", "x"],
}
OVERRIDES = [pattern.format(value) for pattern, values in WRONG.items() for value in values]
NO_OVERRIDE = [
    *("", "=", "=3", "seeds", "seeds=[", "seeds=*a", "seeds=&a [*a]", "name.x=3", "methods.x=3", "seeds=!!binary MA=="),
    *(
        "seeds=" + "[" * 5000,
        "x" * 5000 + "=1",
        "a.b.c.d=1",
        ".=1",
        "..=1",
        "train.=1",
        ".train=1",
        "seeds=" + "1" * 10**5,
    ),
    *("\0=1", "name=\0", "\x1b[2J=1", "name=\x1b[2J", "\u202e=1", "train.epochs=1\x1b", "extends=assignment"),
    *("a" + ".a" * 5000 + "=1", "quick=!!python/none x", "seeds={? [a] : 1}"),
]


def test_there_are_many_cases() -> None:
    assert len(TEXTS) + len(OVERRIDES) + len(NO_OVERRIDE) > 400


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_malformed_file_is_refused(elsewhere: Path, refused: Refused, text: str) -> None:
    (elsewhere / "mine.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    said = refused("plan", "mine.yaml")
    assert "mine.yaml" in said or r"no method '\x1b[2Jdpo'" in said


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_wrong_value_is_refused(elsewhere: Path, override: str) -> None:
    (elsewhere / "mine.yaml").write_text(MINIMAL, encoding="utf-8")
    with pytest.raises(SuiteError) as caught:
        load_suite("mine.yaml", [override])
    said = str(caught.value)
    key = override.partition("=")[0]
    assert key.split(".")[0] in said
    assert len(said) < 4000


@pytest.mark.parametrize("override", NO_OVERRIDE)
def test_what_is_no_override_is_refused(elsewhere: Path, refused: Refused, override: str) -> None:
    (elsewhere / "mine.yaml").write_text(MINIMAL, encoding="utf-8")
    refused("plan", "mine.yaml", "--set", override)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "\0",
        "x" * 5000,
        "a/" * 3000,
        "..",
        ".",
        "/dev/zero",
        "/dev/null",
        "pipe",
        "no/such",
        "\x1b[2J",
        "-quick",
        "\ud800",
    ],
)
def test_what_is_no_suite_is_refused(elsewhere: Path, refused: Refused, name: str) -> None:
    os.mkfifo(elsewhere / "pipe")
    refused("plan", "--", name)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"\x80", b"name: \xc3\x28", bytes(range(256)), b"\x00" * 100, b"\x1f\x8b\x08"]
)
def test_what_is_no_text_is_refused(elsewhere: Path, refused: Refused, content: bytes) -> None:
    (elsewhere / "mine.yaml").write_bytes(content)
    assert "mine.yaml" in refused("plan", "mine.yaml")


def test_a_chain_of_files_ends(elsewhere: Path, refused: Refused) -> None:
    for number in range(100):
        (elsewhere / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n{MINIMAL}", encoding="utf-8")
    assert "files extend each other" in refused("plan", "0.yaml")


def test_variables_may_hold_numbers(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHS", "3")
    (elsewhere / "mine.yaml").write_text(MINIMAL + "train: {epochs: '${EPOCHS}'}\n", encoding="utf-8")
    assert load_suite("mine.yaml").train.epochs == 3


def said_of(name: str, *overrides: str) -> str:
    """What is said of a suite that is refused; nothing of one that is read."""
    try:
        load_suite(name, overrides)
    except AlignBenchError as error:
        return str(error)
    return ""


KEYS = st.sampled_from([*Suite.model_fields, "extends", "train.epochs", "data.train.rows", "judge.name", "lora.r", "x"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=KEYS, value=VALUES)
def test_any_value_of_any_key_is_read_or_refused(elsewhere: Path, key: str, value: object) -> None:
    (elsewhere / "mine.yaml").write_text(MINIMAL, encoding="utf-8")
    assert len(said_of("mine.yaml", f"{key}={yaml.safe_dump(value)}")) < 6000


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, len(MINIMAL)), end=st.integers(0, len(MINIMAL)), text=st.text(max_size=10))
def test_any_damage_to_a_file_is_read_or_refused(elsewhere: Path, start: int, end: int, text: str) -> None:
    damaged = MINIMAL[:start] + text + MINIMAL[end:]
    (elsewhere / "mine.yaml").write_bytes(damaged.encode("utf-8", "surrogatepass"))
    assert len(said_of("mine.yaml")) < 6000
