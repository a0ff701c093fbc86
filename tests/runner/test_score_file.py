"""`align-bench score`: every shape of file, every kind of judge, and output that is whole or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from align_bench.cli.main import app
from align_bench.data.answers import read_answers, write_scores
from align_bench.data.preferences import DataSource, read
from align_bench.errors import AlignBenchError, DataError, MissingResultError, ModelError, SuiteError
from align_bench.judge.find import find_judge
from align_bench.judge.loaded import load_judge
from align_bench.models.base import template_inputs
from align_bench.models.precision import Precision
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import Conversation, Message, no_update
from align_bench.report.export import read_generations, read_scores
from align_bench.runner.progress import NoProgress
from align_bench.runner.run import Folders, run
from align_bench.runner.score_file import JudgeChoice, Scored, score_file
from align_bench.runner.stored_judge import Run, stored_scorer
from align_bench.store.keys import Address
from align_bench.store.notes import NotedBase, NotedJudge, NotedScorer, Scorers
from align_bench.suite.load import load_suite
from align_bench.suite.models import LoadedJudge

ROWS = [{"question": f"What is {n} and {n}?", "answer": "It is so. " * (1 + 7 * n % 5), "n": n} for n in range(9)]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def back(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scored(path: Path, judge: str, **changes: Any) -> Scored:
    """As the command does it; by default in fp32, into a column `score`."""
    where = {"runs": path.parent / "runs", "out": None, "name": "score", "update": no_update}
    given: dict[str, Any] = {**where, "precision": "fp32", "columns": {}, **changes}
    file = read_answers(path, given.pop("columns"))
    placed = {key: given.pop(key) for key in where}
    return score_file(file, JudgeChoice(judge, **given), **placed)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, make_judge: Callable[..., Path]) -> Path:
    return make_judge(tmp_path_factory.mktemp("judge"), "llama")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, small_suite: dict[str, Any], judge: Path) -> tuple[Path, Path]:
    """A run with an ensemble, a loaded judge and a reward model."""
    root = tmp_path_factory.mktemp("stored")
    trained = {**small_suite["judge"], "ensemble": {"size": 2, "combine": "worst"}, "name": "pair"}
    suite = {**small_suite, "judge": [trained, {"model": str(judge), "name": "loaded"}], "methods": ["rm", "dpo"]}
    suite |= {"audit": {"pairs": 0}}
    path = root / "small.yaml"
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    folders = Folders(root / "runs", root / "reports")
    report = run(prepare(load_suite(str(path)), load_registry()), NoProgress(), folders, command="")
    assert {found.status for found in report.results} == {"done"}
    return path, folders.reports / "small"


# -- shapes ------------------------------------------------------------------------------------------------------------

USER, ASSISTANT = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
WANTED = Conversation((Message("user", "Why?"),), "So.")


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        ({"prompt": "Why?", "response": "So."}, {"response": WANTED}),
        ({"question": "Why?", "answer": "So."}, {"answer": WANTED}),
        ({"instruction": "Why?", "output": "So."}, {"output": WANTED}),
        ({"messages": [USER, ASSISTANT]}, {"messages": WANTED}),
        ({"prompt": [USER], "completion": [ASSISTANT]}, {"completion": WANTED}),
        ({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, {"chosen": WANTED, "rejected": None}),
        ({"question": "Why?", "response_1": "No.", "response_2": "So."}, {"response_1": None, "response_2": WANTED}),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]}, {"chosen": WANTED, "rejected": WANTED}),
        ({"prompt": "Why?", "text": "So.", "finished": False, "cell": "dpo"}, {"text": None}),
    ],
)
def test_shapes(row: dict[str, Any], answers: dict[str, Conversation | None], tmp_path: Path) -> None:
    file = read_answers(lines(tmp_path / "a.jsonl", [row]))
    assert list(file.answers) == list(answers)
    for name, wanted in answers.items():
        assert wanted is None or file.answers[name] == [wanted]
    if "finished" in row:
        assert file.answers["text"] == [Conversation(WANTED.prompt, "So.", finished=False)]


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        ([{"a": 1}], {}, "hold no prompts with answers"),
        ([{"prompt": "x", "question": "y", "response": "z"}], {}, "prompt and question could each be the prompt"),
        ([{"prompt": "x", "response": "y", "output": "z"}], {}, "response and output could each be the answer"),
        ([{"prompt": None, "response": "y"}], {}, "none of its 1 rows can be scored: 1 null cell"),
        ([{"prompt": "x", "response": "y"}], {"prompt": "q"}, "no column 'q'"),
        ([{"prompt": "x", "response": "y"}], {"prom": "prompt"}, "Did you mean prompt"),
        ([], {}, "the file is empty"),
    ],
)
def test_what_cannot_be_read_is_told(
    rows: list[dict[str, Any]], columns: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words):
        read_answers(lines(tmp_path / "a.jsonl", rows), columns)


def test_columns_can_be_named(tmp_path: Path) -> None:
    file = read_answers(
        lines(tmp_path / "a.jsonl", [{"prompt": "x", "frage": "Why?", "output": "No.", "response": "So."}]),
        {"prompt": "frage", "response": "response"},
    )
    assert file.answers == {"response": [WANTED]}


# -- judges ------------------------------------------------------------------------------------------------------------


def test_a_folder_scores_each_row_whatever_the_batch(judge: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [*ROWS, {"question": None, "answer": "x"}])
    model = load_judge(find_judge(LoadedJudge(model=str(judge))), Precision("fp32", "float32", "cpu"))
    alone = [
        model([Conversation((Message("user", str(row["question"])),), str(row["answer"]))], max_tokens=1)[0][0]
        for row in ROWS
    ]
    for limit in (1, 64, 10_000):
        found = scored(path, str(judge), max_tokens=limit)
        rows = back(found.out)
        assert [row["score"] for row in rows[:-1]] == pytest.approx(alone, abs=1e-5)
        assert rows[-1]["score"] is None
        assert [{key: value for key, value in row.items() if key != "score"} for row in rows[:-1]] == ROWS
        assert found.file.dropped == {"null cell": 1}


def test_what_a_template_reads_is_said_and_never_the_clocks(
    judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(judge, tmp_path / "dated"))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    template = "{{ strftime_now('%d %b %Y') }}{{ mood }}{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    file = lines(tmp_path / "answers.jsonl", ROWS)
    kwargs = {"mood": "Be kind."}

    def scores(**said: Any) -> list[float | None]:
        return list(scored(file, str(folder), out=tmp_path / "out.jsonl", **said).scores["score"])

    plain = scores()
    assert scores(date="2026-01-01") == plain
    assert scores(date="2019-12-31") != plain
    assert scores(chat_template_kwargs=kwargs) != plain

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2031, 5, 6)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Later)
    assert scores() == plain
    entry = LoadedJudge(model=str(folder), chat_template_kwargs={"mood": "Be kind."})
    base = find_judge(entry)
    inputs = template_inputs(base, entry.chat_template_kwargs, entry.date)
    model = load_judge(base, Precision("fp32", "float32", "cpu"), None, inputs)
    texts = [one for one in read_answers(file, {}).answers["answer"] if one is not None]
    assert model(texts, max_tokens=64)[0] == pytest.approx(scores(chat_template_kwargs=kwargs), abs=1e-5)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"date": "tomorrow"}, "--date: got 'tomorrow'; expected a day"),
        ({"chat_template_kwargs": {"tokenize": True}}, "--chat-template-kwargs: .*tokenize is not for a suite to set"),
    ],
)
def test_template_inputs_that_cannot_be_are_refused(
    judge: Path, tmp_path: Path, said: dict[str, Any], message: str
) -> None:
    with pytest.raises(SuiteError, match=message):
        scored(lines(tmp_path / "answers.jsonl", ROWS), str(judge), **said)


def test_parquet_keeps_its_types_and_both_answers_are_scored(judge: Path, tmp_path: Path) -> None:
    table = pa.table(
        {
            "prompt": [row["question"] for row in ROWS],
            "chosen": [row["answer"] for row in ROWS],
            "rejected": ["No."] * len(ROWS),
            "n": pa.array([row["n"] for row in ROWS], type=pa.int16()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = scored(tmp_path / "a.parquet", str(judge))
    written = pq.read_table(found.out)
    assert written.drop(["score_chosen", "score_rejected"]) == table
    assert written.schema.field("score_chosen").type == pa.float64()
    assert len(set(written["score_chosen"].to_pylist())) > 3


def test_a_runs_reward_model_gives_the_scores_of_the_run(runs: tuple[Path, Path], tmp_path: Path) -> None:
    suite, report = runs
    rows = [
        {"prompt": one.prompt[-1].content, "chosen": one.chosen, "rejected": one.rejected}
        for one in read(DataSource("embedded/planted", split="val", rows=20)).rows
    ]
    path = lines(tmp_path / "val.jsonl", rows)
    for name, cell in (("rm", "rm"), ("loaded", "judge2")):
        found = scored(path, f"small:{name}", runs=suite.parent / "runs", name=name)
        expected = [row for row in read_scores(report) if row.cell == cell]
        assert found.scores[f"{name}_chosen"] == pytest.approx([row.chosen_reward for row in expected], abs=1e-5)
        assert found.scores[f"{name}_rejected"] == pytest.approx([row.rejected_reward for row in expected], abs=1e-5)


def test_generations_are_scored_by_the_main_judge_an_ensemble(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """A random model's bytes are often no text, so that the run's own scores, of tokens, are others."""
    suite, report = runs
    path = tmp_path / "generations.jsonl"
    shutil.copy(report / "generations.jsonl", path)
    assert any(not answer.finished for answer in read_generations(report))
    members = [scored(path, f"small:judge#{seed}", runs=suite.parent / "runs").scores["score"] for seed in (0, 1)]
    worst = [min(scores) for scores in zip(*members, strict=True)]
    assert worst not in members
    for judge in (str(suite), "small"):
        found = scored(path, judge, runs=suite.parent / "runs")
        assert found.judge == "pair of small"
        assert found.scores["score"] == pytest.approx(worst, abs=1e-6)
    assert back(found.out)[0]["scores"].keys() == {"pair", "loaded", "gold"}


def test_gold_needs_gold(tmp_path: Path) -> None:
    rows = [
        {"prompt": "What is the capital of France?", "response": text, "gold": "Paris", "candidates": ["Paris", "Rome"]}
        for text in ("It is Paris.", "Rome.")
    ]
    assert scored(lines(tmp_path / "a.jsonl", rows), "gold").scores == {"score": [1.0, 0.0]}
    with pytest.raises(DataError, match="needs a column gold"):
        scored(lines(tmp_path / "b.jsonl", ROWS), "gold")


def test_an_unknown_judge_is_told(runs: tuple[Path, Path], tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(ModelError, match="nor is there a run of this name"):
        scored(path, "/nowhere")
    with pytest.raises(MissingResultError, match=r"no judge or reward model 'rn'\. Did you mean rm"):
        scored(path, "small:rn", runs=runs[0].parent / "runs")


# -- output ------------------------------------------------------------------------------------------------------------


def test_nothing_half_written_is_left(judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines(tmp_path / "a.jsonl", ROWS)
    before = sorted(tmp_path.iterdir())

    def stop(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    file = read_answers(path)
    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_scores(file, tmp_path / "out.jsonl", {"score": [1.0] * len(ROWS)})
    assert sorted(tmp_path.iterdir()) == before


def test_a_column_is_never_written_over(judge: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{**ROWS[0], "score": 3}])
    with pytest.raises(DataError, match="has a column 'score' already"):
        scored(path, str(judge))
    assert back(scored(path, str(judge), name="mine").out)[0].keys() == {"question", "answer", "n", "score", "mine"}


def test_another_kind_of_file_is_written_by_its_suffix(judge: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", ROWS)
    scored(path, str(judge), out=tmp_path / "b.parquet")
    assert pq.read_table(tmp_path / "b.parquet").column_names == ["question", "answer", "n", "score"]
    with pytest.raises(DataError, match=r"expected \.jsonl or \.parquet"):
        scored(path, str(judge), out=tmp_path / "b.csv")


def test_the_command_prints_a_summary(judge: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [*ROWS, {"question": "[red]x[/red]", "answer": ""}])
    result = CliRunner().invoke(app, ["score", str(path), "--judge", str(judge), "--precision", "fp32"])
    assert result.exit_code == 0, result.output
    assert "10 of 10" in result.output
    assert "a.scored.jsonl" in result.output.replace("\n", "")
    assert len(back(tmp_path / "a.scored.jsonl")) == 10
    refused = CliRunner().invoke(app, ["score", str(path), "--judge", str(judge), "--template", "chatt"])
    assert isinstance(refused.exception, AlignBenchError)


def test_a_cell_comes_before_a_judge_that_is_called_by_its_method(tmp_path: Path) -> None:
    """`--judge SUITE:rm` is the reward model rm, also where the judge is an rm; `SUITE` alone is the judge."""
    rm, judge = NotedScorer(Address("adapter", "1" * 20), 0, None), NotedScorer(Address("adapter", "2" * 20), 0, None)
    judges = {"gold": NotedJudge((), None), "rm": NotedJudge(("judge",), None)}
    cells = {"judge": judge, "rm": rm, "poe_rm": rm}
    scorers = Scorers(NotedBase("base", "0" * 64), "fp32", 128, cells, judges)
    found = {name: stored_scorer(Run(tmp_path, "small", scorers), name) for name in (None, "rm", "judge", "poe_rm")}
    assert {name: list(scorer.cells) for name, scorer in found.items()} == {
        None: ["judge"],
        "rm": ["rm"],
        "judge": ["judge"],
        "poe_rm": ["poe_rm"],
    }
    only_judge = Run(tmp_path, "small", replace(scorers, cells={"judge": judge}))
    assert list(stored_scorer(only_judge, "rm").cells) == ["judge"]
