"""What a sample of rows says of their lengths: against lengths that are counted one by one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median_low
from typing import Any

import pytest

from align_bench.data.chat import tokenize
from align_bench.data.preferences import DataSource, read
from align_bench.errors import DataError
from align_bench.models.base import find_base
from align_bench.models.precision import Precision
from align_bench.planning import lengths as lengths_module
from align_bench.planning.lengths import measure_lengths, plain_tokenizer
from align_bench.stages.models import Frozen
from align_bench.stages.rows import Rows
from align_bench.stages.tokens import Tokens


def frozen(base: Path) -> Frozen:
    return Frozen(find_base(str(base)), Precision("fp32", "float32", "cpu"))


def table(base: Path, source: DataSource, max_length: int, too_long: str) -> Tokens:
    return Tokens(owner="train", rows=Rows(source, str(source), too_long), frozen=frozen(base), max_length=max_length)


@pytest.mark.parametrize("too_long", ["truncate", "drop"])
def test_a_sample_of_all_rows_is_what_a_run_will_tokenise(base_folder: Path, too_long: Any) -> None:
    source = DataSource("embedded/planted", split="train", rows=120)
    tokenizer = plain_tokenizer(find_base(str(base_folder)))
    whole = tokenize(tokenizer, read(source), max_length=10**6)
    both = [(row.prompt, answer) for row in whole.rows for answer in (row.chosen, row.rejected) if answer is not None]
    limit = median_low(sorted(len(prompt) + len(answer) for prompt, answer in both))
    made = tokenize(tokenizer, read(source), max_length=limit, too_long=too_long)
    found = measure_lengths(table(base_folder, source, limit, too_long), tokenizer, 12)
    assert found.sampled == 120
    long = [max(len(row.chosen or ()), len(row.rejected or ())) + len(row.prompt) > limit for row in whole.rows]
    assert found.cut == sum(long) / 120
    assert 0.2 < found.cut < 0.9
    # Pairs whose answers are equal once cut are dropped by a run, and a few were; a sample does not look for them.
    assert found.size.rows == pytest.approx(len(made.rows), abs=5)
    tokens = sum(len(row.prompt) + len(answer or ()) for row in made.rows for answer in (row.chosen, row.rejected))
    assert found.size.tokens == pytest.approx(tokens, rel=0.05)
    assert found.prompt[0] == median_low(len(row.prompt) for row in whole.rows)
    assert found.longer == sum(len(row.chosen or ()) > 12 for row in whole.rows) / 120


def test_a_plan_refuses_the_rows_that_a_run_refuses(base_folder: Path, tmp_path: Path) -> None:
    turns = [[{"role": "system", "content": "Be curt."}, {"role": "user", "content": "hi"}], "hi"]
    rows = [{"prompt": turns[number > 1], "chosen": "Yo.", "rejected": "Hello."} for number in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source, tokenizer = DataSource(str(tmp_path / "rows.jsonl")), plain_tokenizer(find_base(str(base_folder)))
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    asked = table(base_folder, source, 99, "truncate")
    with pytest.raises(DataError, match=r"2 of 20 rows \(10.0%\) .* no system turn, such as row 0"):
        measure_lengths(asked, tokenizer, 12)
    assert measure_lengths(replace(asked, max_dropped=0.1), tokenizer, 12).size.rows == 18


def test_a_sample_is_drawn_from_the_whole_file(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"q{number}", "chosen": "word " * (1 + number // 50), "rejected": "no"} for number in range(100)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr(lengths_module, "SAMPLE_ROWS", 10)
    source = DataSource(str(tmp_path / "rows.jsonl"))
    tokenizer = plain_tokenizer(find_base(str(base_folder)))
    one = len(tokenize(tokenizer, read(DataSource(source.path, rows=1)), max_length=99).rows[0].chosen or ())
    found = measure_lengths(table(base_folder, source, 99, "truncate"), tokenizer, one)
    assert (found.sampled, found.size.rows, found.size.prompts) == (10, 100, 100)
    assert found.longer == 0.5
