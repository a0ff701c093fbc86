"""What a suite asks for against its base's positions: refused, lowered or said, before anything is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align_bench.errors import SuiteError
from align_bench.models.base import find_base
from align_bench.planning.inputs import prepare
from align_bench.planning.limits import cut_answers, within_positions
from align_bench.plugins.registry import load_registry
from align_bench.suite.load import load_suite

Write = Callable[..., Path]


@pytest.fixture
def short_base(base_folder: Path, tmp_path: Path) -> Path:
    """The small base with 64 positions."""
    folder = tmp_path / "short"
    shutil.copytree(base_folder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}), encoding="utf-8")
    return folder


def prepared(path: Path) -> Any:
    return prepare(load_suite(str(path)), load_registry())


def test_a_length_beyond_the_positions_is_refused(short_base: Path, write_suite: Write) -> None:
    path = write_suite(base=str(short_base), train={"max_length": 65})
    with pytest.raises(
        SuiteError, match=r"train\.max_length: got 65 tokens, but the base .* has 64 positions"
    ) as found:
        prepared(path)
    assert "max_position_embeddings: 64 in its config.json" in found.value.message
    assert "set train.max_length: 64 or less" in str(found.value.fix)
    prepared(write_suite(base=str(short_base), train={"max_length": 64}))


def test_a_length_that_nobody_set_is_lowered(short_base: Path, write_suite: Write) -> None:
    found = prepared(write_suite(base=str(short_base), train={"batch_size": 8}))
    assert found.suite.train.max_length == 64
    assert found.suite.train.batch_size == 8
    longer = prepared(write_suite(train={"batch_size": 8}))
    assert longer.suite.train.max_length == 1024


def test_prompts_that_leave_no_room_are_counted(short_base: Path, write_suite: Write) -> None:
    suite = load_suite(str(write_suite(base=str(short_base), generate={"max_new_tokens": 20})))
    base = find_base(str(short_base))
    assert cut_answers(suite, base, [10, 44]) is None
    found = cut_answers(suite, base, [10, 45, 60, *[44] * 37])
    assert found is not None
    assert found.share == 2 / 40
    assert not found.too_many
    assert "generate.max_new_tokens: got 20, but 2 of 40 prompts leave less room" in found.message
    assert "the longest has 60 tokens" in found.message
    assert "set generate.max_new_tokens: 4 or less" in found.fix
    more = cut_answers(suite, base, [45, 45, 45, *[44] * 37])
    assert more is not None
    assert more.too_many


def test_a_base_without_a_limit_refuses_nothing(short_base: Path, write_suite: Write) -> None:
    config = json.loads((short_base / "config.json").read_text(encoding="utf-8"))
    del config["max_position_embeddings"]
    (short_base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    suite, base = load_suite(str(write_suite(train={"max_length": 10**6}))), find_base(str(short_base))
    assert within_positions(suite, base) is suite
    assert cut_answers(suite, base, [10**9]) is None
