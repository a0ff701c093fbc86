"""The command line: what it teaches, what it refuses and how, and one small run from end to end."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.core import TyperGroup

from align_bench.cli import main as program
from align_bench.cli.app import app, console, errors
from align_bench.cli.progress import ProgressBars
from align_bench.models.base import EMBEDDED, base_parameters, find_base
from align_bench.planning.graph import make_graph
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.runner.results import Results
from align_bench.store.store import MANIFEST, Store
from align_bench.suite.load import builtin_folder, load_suite
from align_bench.suite.quick import MEASURED_ROWS

pytestmark = pytest.mark.usefixtures("few_figures")

GROUP = typer.main.get_command(app)
assert isinstance(GROUP, TyperGroup)
COMMANDS: dict[str, Any] = dict(GROUP.commands)
METHOD = '''
from align_bench.api import Loss, PairLogps, algorithm


@algorithm(data="pairs", paper="none", learning_rate=1e-5, reward="s")
def {name}(logps: PairLogps, *, beta: float = 0.1) -> Loss:
    """A method of the tests."""
    {body}
    return Loss(-logps.chosen, logps.chosen, logps.rejected)
'''
ROW = {"question": "Which?", "response_1": "This one.", "response_2": "That.", "overall_response": 1}

Write = Callable[..., Path]


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All that was shown, whatever its line breaks and frames."""
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", self.out + self.err).split())


def align_bench(*arguments: object) -> Answer:
    """Run the program; an error that it does not handle fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["align-bench", *map(str, arguments)])
        patch.setattr(console, "_width", 300)
        patch.setattr(errors, "_width", 300)
        patch.setenv("COLUMNS", "300")
        code: Any = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                program.main()
            except SystemExit as end:
                code = end.code
    return Answer(int(code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in an empty folder."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    return folder


def lines(path: Path, *rows: Mapping[str, Any]) -> Path:
    """A .jsonl file of these rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# -- help --------------------------------------------------------------------------------------------------------------


def test_help_lists_every_command_and_where_to_start() -> None:
    answer = align_bench("--help")
    assert answer.code == 0
    assert "align-bench run assignment" in answer.said
    assert set(COMMANDS) == {
        "run",
        "compare",
        "report",
        "verify",
        "plan",
        "data",
        "algorithms",
        "show",
        "check",
        "new",
        "schema",
        "score",
        "runs",
        "clean",
        "export",
        "publish",
    }
    for name, command in COMMANDS.items():
        assert re.search(rf"\b{name} {re.escape(command.get_short_help_str(30)[:20])}", answer.said)


def examples(command: Any) -> list[list[str]]:
    """The examples in a command's help, as arguments: what stands before a redirection, markup taken out."""
    found = re.findall(r"Example: align-bench ([^>|\n]+)", (command.help or "").replace("\\[", "["))
    return [shlex.split(example) for example in found]


def test_what_goes_into_a_pipe_has_no_colour(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from align_bench.cli.main import main; main()", "runs", "--runs", str(tmp_path)]
    for form in ("table", "md", "csv", "json"):
        found = subprocess.run([*command, "--format", form], capture_output=True, check=True)
        assert b"\x1b" not in found.stdout + found.stderr
        assert json.loads(found.stdout) == [] if form == "json" else found.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_an_example_that_parses(name: str) -> None:
    command = COMMANDS[name]
    assert examples(command), f"`align-bench {name} --help` shows no example"
    for given, *arguments in examples(command):
        assert given == name
        command.make_context(name, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_what_the_docstring_says(name: str) -> None:
    """Square brackets in it are text, not markup."""
    answer = align_bench(name, "--help")
    assert answer.code == 0
    for given in examples(COMMANDS[name]):
        assert " ".join(given) in answer.said.replace("'", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    assert all(getattr(parameter, "help", None) for parameter in COMMANDS[name].params)


def test_without_arguments_the_help_is_shown() -> None:
    assert "Usage" in align_bench().said


# -- usage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "rnu"),
        (["run"], "SUITE"),
        (["run", "assignment", "--sett", "a=b"], "--sett"),
        (["run", "assignment", "--jobs", "0"], "expected a whole number from 1 to 1,024"),
        (["run", "assignment", "--jobs", "9999999999"], "expected a whole number from 1 to 1,024"),
        (["run", "assignment", "--executor", "slurm"], "--executor"),
        (["compare", "dpo"], "name at least two methods"),
        (["show"], "Missing argument"),
        (["data", "x.jsonl", "--rows", "-1"], "--rows"),
        (["data", "x.jsonl", "--rows", "many"], "--rows"),
        (["data", "x.jsonl", "--column", "question"], "expected STANDARD=NAME"),
        (["data", "x.jsonl", "--choice", "model_a"], "expected VALUE=MEANING"),
    ],
)
def test_misuse_ends_with_code_two(arguments: list[str], said: str) -> None:
    answer = align_bench(*arguments)
    assert answer.code == 2
    assert said in answer.said
    assert not answer.out


# -- mistakes in a suite -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "report", "plan"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.yaml"], ["no suite 'missing.yaml'", "Known packaged suites: assignment"]),
        (["asignment"], ["Did you mean assignment"]),
        (["assignment", "--set", "seedz=[1]"], ["assignment.yaml", "seedz: unknown key", "Did you mean seeds"]),
        (["assignment", "--set", "train.epochs=x"], ["assignment.yaml", "train.epochs: got 'x'"]),
        (["assignment", "--set", "train.epochs"], ["--set 'train.epochs'", "expected key=value"]),
        (["assignment", "--set", "base=${NOT_SET_ANYWHERE}"], ["variable NOT_SET_ANYWHERE is not set"]),
    ],
)
def test_mistake_in_a_suite_is_told(command: str, arguments: list[str], said: list[str]) -> None:
    check(align_bench(command, *arguments), said)


def check(answer: Answer, said: list[str]) -> None:
    """Exit code 2, nothing on the standard output, and all of these words without a traceback."""
    assert answer.code == 2
    assert not answer.out
    assert re.search("^error: ", answer.err, re.MULTILINE)
    assert "Traceback" not in answer.said
    for words in said:
        assert words in answer.said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": ["dop"]}, [".yaml: methods: no method 'dop'", "Did you mean dpo"]),
        ({"methods": [{"dpo": {"betta": 1}}]}, ["methods: dpo", "no parameter 'betta'", "Did you mean beta"]),
        ({"methods": [{"dpo": {"beta": 0}}]}, ["methods: dpo", "beta: got 0,", "expected float > 0"]),
        ({"methods": [{"dpo": {"learning_rate": -1}}]}, ["learning_rate: got -1", "expected a number > 0"]),
        ({"methods": [{"dpo": {"beta": float("inf")}}]}, ["methods: dpo", "beta: got inf"]),
        ({"methods": ["dpo", "dpo"]}, ["methods: dpo is listed twice"]),
        ({"judge": {"method": "dpo", "data": "embedded/planted"}}, ["judge.method: dpo", "expected a reward method"]),
        ({"base": "no/such/base"}, ["base 'no/such/base' does not exist"]),
        (
            {"judge": "foo"},
            ["judge 'foo' does not exist", "give gold, {method: rm, data: …} to train one, or the folder or hub id of"],
        ),
        ({"base": "."}, ["holds no config.json"]),
        ({"plugins": ["nowhere.py"]}, ["the plugin nowhere.py does not exist"]),
        ({"data": {"train": "nowhere.jsonl", "val": "embedded/planted"}}, ["nowhere.jsonl", "no such file"]),
        (
            {"data": {"train": "embedded/planed", "val": "embedded/planted"}},
            ["embedded/planed", "no such embedded set"],
        ),
        (
            {"data": {"train": {"path": "embedded/planted", "split": "tst"}, "val": "embedded/planted"}},
            ["no split 'tst'", "train"],
        ),
    ],
)
def test_mistake_that_needs_a_look_around_is_told(
    write_suite: Write, changes: Mapping[str, Any], said: list[str]
) -> None:
    check(align_bench("plan", write_suite(**changes)), said)


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], ["the file is empty"]),
        ([{"question": "q", "response_1": "a", "overall_response": 1}], ["no known shape", "response_2", "columns:"]),
        ([ROW | {"overall_response": 3}], ["'overall_response' holds 3 (1 row)", "expected 1 or 2", "choice: {3: "]),
        ([ROW | {"response_2": ROW["response_1"]}] * 2, ["none of its 2 rows", "2 dropped: equal answers"]),
        ([ROW | {"response_1": " "}], ["1 dropped: empty response"]),
    ],
)
def test_data_that_cannot_be_used_is_told(
    write_suite: Write, tmp_path: Path, command: str, rows: list[Mapping[str, Any]], said: list[str]
) -> None:
    path = lines(tmp_path / "train.jsonl", *rows)
    suite = write_suite(data={"train": str(path), "val": {"path": "embedded/planted", "rows": 4}}, judge=None)
    check(align_bench(command, suite, "--set", "methods=[rm]"), [str(path), *said])


def test_a_run_says_what_it_waits_for_and_then_goes_on(
    write_suite: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite(judge=None, methods=["simpo"], generate={"prompts": 2, "max_new_tokens": 2})
    store = Store(tmp_path / "runs")
    graph = make_graph(prepare(load_suite(str(suite)), load_registry()), Results(store))
    assert graph.cells[0].adapter is not None
    held = store.try_lock(graph.cells[0].adapter.address)
    assert held is not None
    log = ProgressBars.log

    def until_waited(progress: ProgressBars, text: str) -> None:
        log(progress, text)
        if text.startswith("waiting for"):
            held.release()

    monkeypatch.setattr(ProgressBars, "log", until_waited)
    answer = align_bench("run", suite, "--runs", store.folder)
    assert answer.code == 0
    assert "waiting for simpo: train, which another run is making" in answer.said


@pytest.mark.parametrize("option", ["--runs", "--reports"])
def test_folder_that_is_a_file_is_told_before_any_work(
    write_suite: Write, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr("align_bench.data.chat.tokenize", never)
    path = tmp_path / "taken"
    path.touch()
    check(align_bench("run", write_suite(), option, path), [str(path)])


def test_error_is_not_broken_at_the_edge_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Piped into a file, a long path must still be found by a search."""
    suite = "/".join(["quite-a-long-folder-name"] * 8)
    with monkeypatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        patch.setattr(sys, "argv", ["align-bench", "run", f"{suite}.yaml"])
        patch.setattr(errors, "_width", 80)
        err = io.StringIO()
        with contextlib.redirect_stderr(err), pytest.raises(SystemExit):
            program.main()
    assert suite in err.getvalue()


def test_text_of_an_error_is_shown_and_not_obeyed() -> None:
    check(align_bench("run", "[bold]x[/].yaml"), ["no suite '[bold]x[/].yaml'"])


def test_version_is_the_packages() -> None:
    answer = align_bench("--version")
    assert (answer.code, answer.out) == (0, f"align-bench {version('align-bench')}\n")


# -- results that are not there ----------------------------------------------------------------------------------------


def test_compare_stored_without_results_is_told() -> None:
    check(align_bench("compare", "dpo", "simpo", "--stored"), ["reports/assignment", "align-bench run"])


def test_compare_with_an_unknown_method_is_told() -> None:
    check(align_bench("compare", "dpo", "sipmo"), ["no method 'sipmo'", "Did you mean simpo"])
    check(align_bench("compare", "dop", "simpo", "--stored"), ["no method 'dop'", "Did you mean dpo"])


@pytest.mark.parametrize("options", [[], ["--stored"]])
def test_what_cannot_be_compared_is_refused_before_any_work(
    options: list[str], elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr("align_bench.cli.compare.compute", never)
    said = ["got dpo (a policy) and rm (a reward model)", "compare dpo with base", "compare rm with poe_rm"]
    check(align_bench("compare", "dpo", "rm", *options), said)
    check(align_bench("compare", "dpo", "simpo", "rm", *options), ["nothing to compare rm with"])
    check(align_bench("compare", "dpo", "dpo", *options), ["got dpo (a policy) alone", "compare dpo with base"])
    check(align_bench("compare", "judge", "rm", *options), ["judge (a judge)", "Judges are compared with none"])
    assert not (elsewhere / "reports").exists()


def test_after_a_try_out_commands_say_that_the_whole_suite_was_not_run(
    write_suite: Write, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite(
        methods=["dpo", "simpo"],
        judge=None,
        data={
            "train": {"path": "embedded/planted", "rows": 8},
            "val": {"path": "embedded/planted", "rows": MEASURED_ROWS + 1},  # with all as few as these it is the same
        },
        generate={"prompts": 4, "max_new_tokens": 3},
    )
    assert align_bench("run", suite, "--quick").code == 0
    page = elsewhere / "reports" / "small-quick" / "compare.html"
    check(align_bench("report", suite), ["nothing of the suite small is stored", "or add --quick: its try-out was run"])
    check(align_bench("score", "reports/small-quick/generations.jsonl", "--judge", "small"), ["name small-quick, "])
    for command in (["report", suite], ["verify", suite, "--sample", "0"], ["compare", "dpo", "simpo", suite]):
        assert align_bench(*command, "--quick").code == 0
    assert page.is_file()
    assert not (elsewhere / "reports" / "small").exists()
    monkeypatch.setattr("align_bench.cli.compare.compute", lambda *given, **options: sys.exit(9))
    whole = align_bench("compare", "dpo", "simpo", suite)
    assert whole.code == 9
    assert "the suite small was not run here, only its try-out small-quick: dpo, simpo with the base" in whole.err
    assert f"→ to compare what the try-out has: align-bench compare dpo simpo {suite} --quick" in whole.said
    assert "was not run here" not in align_bench("compare", "dpo", "simpo", suite, "--quick").said


def test_report_before_a_run_is_told(write_suite: Write) -> None:
    check(align_bench("report", write_suite()), ["nothing of the suite small is stored in runs", "align-bench run"])


# -- data --------------------------------------------------------------------------------------------------------------


def test_data_counts_every_dropped_row(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "mixed.jsonl",
        *[ROW] * 30,
        ROW | {"overall_response": 2},
        ROW | {"overall_response": 3},
        ROW | {"overall_response": None},
        ROW | {"response_2": ROW["response_1"]},
        ROW | {"response_1": "  "},
        ROW | {"question": ""},
    )
    answer = align_bench("data", path)
    assert answer.code == 0
    for reason, count in {
        "choice not 1 or 2": 2,
        "equal answers": 1,
        "empty response": 1,
        "empty prompt": 1,
    }.items():
        assert re.search(rf"{reason}\W+{count}\b|\b{count}\W+(dropped: )?{reason}", answer.said), reason


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.jsonl"], ["nowhere.jsonl", "no such file"]),
        (["embedded/planted", "--split", "vall"], ["no split 'vall'", "Did you mean val"]),
        (["embedded/planted", "--bias", "huge"], ["embedded/planted", "huge"]),
        (["embedded/planted", "--bias", "nan"], ["embedded/planted", "nan"]),
    ],
)
def test_data_that_is_not_there_is_told(arguments: list[str], said: list[str]) -> None:
    check(align_bench("data", *arguments), said)


def test_data_names_the_set_and_what_is_not_read(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Why?", "weight": 1}]
    row = {"domain": "code", "context": turns, "response1": "a", "response2": "b", "overall_preference": 0}
    answer = align_bench("data", lines(tmp_path / "rows.jsonl", *(row | {"overall_preference": n} for n in (-1, 0, 2))))
    assert answer.code == 0
    for words in ("HelpSteer3 preference", "columns not read: domain", "keys of turns not read: weight"):
        assert words in answer.said
    assert re.search(r"tie\W+1\b", answer.said)


def test_data_takes_the_line_that_a_refusal_proposes(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", *(ROW | {"overall_response": n} for n in ("x", "y", "x", "zz")))
    check(align_bench("data", path), ["overall_response", "x (2 rows)", "--choice x=ANSWER --choice y=ANSWER"])
    answer = align_bench("data", path, "--choice", "x=a", "--choice", "y=b", "--choice", "zz=drop")
    assert answer.code == 0
    assert re.search(r"kept\W+3\b", answer.said)
    assert align_bench("data", path, "--choice", ">=0=a").code == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "q", "foo": "a"}, "`--column prompt=COLUMN --column chosen=COLUMN --column rejected=COLUMN`"),
        ({"prompt": "q", "good": "a", "bad": "b"}, "`--column chosen=COLUMN --column rejected=COLUMN`"),
        ({"prompt": "q", "the reply": "a", "chosn": "b"}, "`--column chosen=chosn --column rejected=COLUMN`"),
        ({"chosen": "a", "rejected": "b"}, "name it: `--column prompt=COLUMN`"),
    ],
)
def test_data_proposes_the_nearest_shape_as_its_own_options(tmp_path: Path, row: Mapping[str, str], said: str) -> None:
    check(align_bench("data", lines(tmp_path / "rows.jsonl", row)), [said])


def test_data_with_an_unknown_column_is_told(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", ROW)
    check(align_bench("data", path, "--column", "question=quest"), [str(path), "quest", "Did you mean question"])
    check(align_bench("data", path, "--column", "quest=question"), [str(path), "'quest'", "Did you mean question"])


# -- plugins -----------------------------------------------------------------------------------------------------------


def drop(folder: Path, name: str, body: str = "", *, first: str = "") -> Path:
    """A plugin file dropped into `algorithms/` of a folder."""
    path = folder / "algorithms" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(first + METHOD.format(name=name, body=body), encoding="utf-8")
    return path


def test_a_sum_is_shown_by_the_name_that_tables_print() -> None:
    answer = align_bench("show", "dpo+sft[dpo.beta=0.3]#1")
    assert answer.code == 0
    assert all(words in answer.said for words in ("Weighted sum of the losses of dpo, sft", "dpo.beta", "sft.weight"))
    check(align_bench("show", "dpo+sftt"), ["no method 'sftt'. Did you mean sft"])


def test_file_that_is_named_is_listed_and_shown(elsewhere: Path) -> None:
    path = drop(elsewhere, "dropped")
    answer = align_bench("algorithms", "--plugin", path.parent)
    assert answer.code == 0
    assert "dropped A method of the tests." in answer.said
    assert "A method of the tests." in align_bench("show", "dropped", "--plugin", path).said
    assert "dropped" not in align_bench("algorithms").said
    check(align_bench("show", "dropped"), ["is not loaded, since only files that you name are", "add --plugin"])


def test_plugins_of_a_suite_run_only_once_they_are_trusted(write_suite: Write, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    path = tmp_path / "mailed.py"
    path.write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n" + METHOD.format(name="mailed", body=""))
    suite = write_suite(plugins=[str(path)], methods=["mailed"], judge=None)
    for command in ("plan", "run", "report"):
        check(align_bench(command, suite), ["names plugin files, whose code would be executed", str(path), "--trust"])
    assert not mark.exists()
    assert align_bench("plan", suite, "--plugin", path).code == 0, "the user's own word"
    check(align_bench("plan", suite), ["--trust"])
    assert align_bench("plan", suite, "--trust").code == 0
    assert align_bench("plan", suite).code == 0, "once is enough"
    path.write_text(path.read_text(encoding="utf-8") + "X = 1\n", encoding="utf-8")
    check(align_bench("plan", suite), ["--trust"])


def test_dropped_file_can_be_run_with_a_packaged_suite(elsewhere: Path, base_folder: Path) -> None:
    path = drop(elsewhere, "dropped")
    few = ["--set", "data.val.rows=4", "--set", "data.train.rows=4", "--set", "judge=null"]
    few += ["--set", "train.max_length=128", "--set", "generate.max_new_tokens=6"]  # of another base than the suite's
    chosen = ["--set", f"base={base_folder}", "--set", "methods=[dropped]", "--plugin", path]
    answer = align_bench("plan", "assignment", *chosen, *few)
    assert answer.code == 0
    assert "dropped" in answer.out


def test_quick_plans_a_try_out_under_a_name_of_its_own(write_suite: Write) -> None:
    answer = align_bench("plan", write_suite(), "--quick")
    assert answer.code == 0
    assert "This is a try-out (--quick)" in answer.err
    assert "small-quick: 2 cells" in answer.out
    assert "try-out" not in align_bench("plan", write_suite()).said


def test_a_plan_needs_no_weights_and_a_run_does(write_suite: Write, tmp_path: Path) -> None:
    """A folder with the configuration of Qwen2.5-0.5B, which has 494,032,768 parameters, and the embedded tokenizer."""
    folder = tmp_path / "half"
    folder.mkdir()
    for file in EMBEDDED["embedded/tiny"].iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    shape = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "vocab_size": 151936,
        "eos_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    assert base_parameters(find_base(str(folder), weights=False)) == 494_032_768
    suite = write_suite(base=str(folder))
    for options in ([], ["--hardware", "h100x8"]):
        answer = align_bench("plan", suite, *options)
        assert answer.code == 0, answer.said
        assert "holds no weights: they are counted by its config.json" in " ".join(answer.out.split())
    check(align_bench("run", suite), ["holds no .safetensors weights"])
    assert "holds no weights" not in align_bench("plan", write_suite()).out


def test_a_suite_is_planned_for_devices_that_are_not_here(write_suite: Write) -> None:
    answer = align_bench("plan", write_suite(), "--hardware", "h100x8", "--utilisation", "0.25")
    assert answer.code == 0
    assert "small on h100x8: 2 cells" in answer.out
    assert "assumed 25% of the " in answer.out
    check(align_bench("plan", write_suite(), "--hardware", "h300"), ["got 'h300'", "Did you mean h"])
    for wrong in (["--hardware", "h100", "--utilisation", "0"], ["--utilisation", "0.3"]):
        refused = align_bench("plan", write_suite(), *wrong)
        assert (refused.code, refused.out) == (2, "")
        assert "expected a share above 0 and at most 1, and --hardware" in " ".join(refused.err.split())


def test_file_that_raises_on_import_is_listed_and_stops_nothing(elsewhere: Path) -> None:
    path = drop(elsewhere, "moody", first="raise RuntimeError('no [b]luck[/b]')\n")
    answer = align_bench("algorithms", "--plugin", path.parent)
    assert answer.code == 0
    assert "RuntimeError: no [b]luck[/b]" in answer.said
    assert str(path) in answer.said
    assert align_bench("show", "dpo", "--plugin", path.parent).code == 0
    check(align_bench("show", "moody", "--plugin", path.parent), [str(path), "RuntimeError: no [b]luck[/b]"])
    check(align_bench("algorithms", "--plugin", path), [f"the plugin {path} cannot be loaded"])


def test_file_that_raises_on_import_is_fatal_only_where_it_is_selected(write_suite: Write) -> None:
    suite = write_suite(methods=["rm"], judge=None)
    path = drop(suite.parent, "moody", first="raise RuntimeError('no luck')\n")
    named = ["--plugin", path.parent]
    assert align_bench("plan", suite, *named).code == 0
    check(align_bench("plan", suite, *named, "--set", "methods=[rm, moody]"), [str(path), "RuntimeError: no luck"])


def test_two_plugins_of_one_name_are_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(METHOD.format(name="dpo", body=""), encoding="utf-8")
    check(align_bench("algorithms", "--plugin", path), ["two plugins are called 'dpo'", str(path)])


def test_missing_plugin_is_told() -> None:
    check(align_bench("algorithms", "--plugin", "nowhere.py"), ["the plugin nowhere.py does not exist"])


def test_show_of_an_unknown_method_is_told() -> None:
    check(align_bench("show", "dop"), ["no method 'dop'", "Did you mean dpo"])


def test_show_explains_a_method() -> None:
    answer = align_bench("show", "dpo")
    assert answer.code == 0
    assert "arXiv:2305.18290" in answer.said
    assert "learning_rate float" in answer.said
    assert "beta float 0.1 > 0" in answer.said
    for cell in ("dpo#1", "dpo[beta=0.2]#0", "dpo beta 0.2"):  # as tables print it
        assert align_bench("show", cell).said == answer.said
    assert "the model that every method starts from" in align_bench("show", "base").said
    assert "scores every answer" in align_bench("show", "judge2").said


def test_check_shows_what_was_expected_and_found() -> None:
    answer = align_bench("check", builtin_folder("algorithms") / "dpo.py")
    assert answer.code == 0
    assert "dpo · pairs · beta=0.1" in answer.said
    assert re.search(r"closed form +passed +the declared loss .* 0\.69315, declared 0\.69315", answer.said)
    assert "13 passed, 6 not applicable" in answer.said
    assert "failed" not in answer.said


def test_check_that_fails_says_what_to_do_and_ends_with_code_one(elsewhere: Path) -> None:
    path = drop(
        elsewhere, "dropped", "logps = replace(logps, chosen=-logps.chosen)", first="from dataclasses import replace\n"
    )
    answer = align_bench("check", path)
    assert answer.code == 1
    assert re.search(r"signs +failed .*∂loss/∂chosen = 1, expected below 0.*→ look for a flipped sign", answer.said)
    assert not answer.err


def test_check_of_one_method_of_a_file(elsewhere: Path) -> None:
    path = drop(elsewhere, "first")
    path.write_text(path.read_text(encoding="utf-8") + METHOD.format(name="second", body=""), encoding="utf-8")
    both, one = align_bench("check", path), align_bench("check", path, "--method", "second")
    assert "first · pairs" in both.said
    assert "second · pairs" in both.said
    assert "first · pairs" not in one.said
    assert "second · pairs" in one.said
    check(align_bench("check", path, "--method", "secnd"), [str(path), "no method 'secnd'", "Did you mean second"])


def test_check_of_a_method_that_is_called_like_a_built_in(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(METHOD.format(name="dpo", body=""), encoding="utf-8")
    assert "dpo · pairs" in align_bench("check", path).said


def test_check_of_a_file_that_cannot_be_loaded_is_told(elsewhere: Path) -> None:
    check(align_bench("check", "nowhere.py"), ["the plugin nowhere.py does not exist"])
    path = drop(elsewhere, "moody", first="raise RuntimeError('no [b]luck[/b]')\n")
    check(align_bench("check", path), [f"the plugin {path} cannot be loaded", "RuntimeError: no [b]luck[/b]"])


def test_new_writes_a_skeleton_that_check_and_suites_find(elsewhere: Path) -> None:
    answer = align_bench("new", "mine", "--data", "unpaired")
    assert answer.code == 0
    assert "algorithms/mine.py" in answer.said
    assert "align-bench check algorithms/mine.py" in answer.said
    assert "Runs are told of it by --plugin algorithms/mine.py" in answer.said
    assert align_bench("show", "mine", "--plugin", "algorithms/mine.py").code == 0
    unwritten = align_bench("check", "algorithms/mine.py")
    assert unwritten.code == 1
    assert "there is no loss yet" in unwritten.said
    assert re.search(r"write it at algorithms/mine\.py, line \d+", unwritten.said)
    assert "unchecked" in unwritten.said
    check(align_bench("new", "mine"), ["algorithms/mine.py exists already", "choose another name"])


def test_new_under_another_folder_and_refusals(elsewhere: Path) -> None:
    assert align_bench("new", "mine", "--folder", "plugins/own").code == 0
    assert (elsewhere / "plugins" / "own" / "mine.py").is_file()
    check(align_bench("new", "mine", "--folder", "plugins/own"), ["plugins/own/mine.py exists already"])
    check(align_bench("new", "dpo"), ["the name 'dpo' is taken"])
    check(align_bench("new", "my-dpo"), ["'my-dpo' cannot name a method"])
    check(align_bench("new", "mine", "--data", "pair"), ["no such kind", "Did you mean pairs"])


# -- schema and startup ------------------------------------------------------------------------------------------------


def test_schema_prints_json() -> None:
    answer = align_bench("schema")
    assert answer.code == 0
    assert "extends" in json.loads(answer.out)["properties"]


LIGHT = [
    ["--help"],
    ["run", "--help"],
    ["schema"],
    ["run", "missing.yaml"],
    ["run", "assignment", "--set", "seedz=1"],
    ["compare", "dpo", "simpo", "--stored"],
    ["compare", "dpo", "sipmo"],
]
PROBE = """
import contextlib, io, json, sys
from align_bench.cli.main import main
heavy = {}
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["align-bench", *arguments]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main()
        except SystemExit:
            pass
    heavy[" ".join(arguments)] = [name for name in ("torch", "transformers", "datasets") if name in sys.modules]
print(json.dumps(heavy))
"""


def test_light_commands_never_reach_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(LIGHT)], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(done.stdout) == {" ".join(arguments): [] for arguments in LIGHT}


def test_program_ends_without_a_traceback() -> None:
    """The whole process, as the console script starts it."""
    done = subprocess.run(
        [sys.executable, "-c", "from align_bench.cli.main import main; main()", "run", "missing.yaml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no suite 'missing.yaml'")
    assert "Traceback" not in done.stderr
    assert not done.stdout


# -- a run from end to end ---------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, write_suite: Write) -> Iterator[Path]:
    """A suite whose second method raises in its loss, with a plugin beside it that cannot even be imported."""
    suite = write_suite(
        methods=["rm", "exploding", "dpo"],
        data={"train": {"path": "embedded/planted", "rows": 8}, "val": {"path": "embedded/planted", "rows": 8}},
        judge={"data": {"path": "embedded/planted", "rows": 8}},
        generate={"prompts": 4, "max_new_tokens": 3},
    )
    drop(suite.parent, "exploding", "raise RuntimeError('no luck')")
    drop(suite.parent, "moody", first="raise RuntimeError('moody')\n")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a model this small gains nothing from more, and loses much on a busy machine
    yield suite
    torch.set_num_threads(threads)


def test_failing_method_is_a_row_and_the_others_go_on(project: Path, elsewhere: Path) -> None:
    report = elsewhere / "reports" / "small" / "report.json"

    def results() -> dict[str, tuple[str, str | None]]:
        found = json.loads(report.read_text(encoding="utf-8"))["results"]
        return {each["algorithm"]: (each["status"], each["reason"]) for each in found}

    def written() -> dict[str, bytes]:
        found = elsewhere.glob(f"runs/*/*/{MANIFEST}")
        return {f"{path.parent.parent.name}/{path.parent.name}": path.read_bytes() for path in found}

    first = align_bench("run", project, "--plugin", project.parent / "algorithms")
    assert first.code == 1
    status, reason = results()["exploding"]
    assert status == "failed"
    assert "RuntimeError: no luck" in str(reason)
    assert "no luck" in first.said
    others = {name: status for name, (status, _) in results().items() if name != "exploding"}
    assert others == {"base": "done", "judge": "done", "rm": "done", "dpo": "done"}
    assert "Traceback" not in first.said
    stored = written()

    again = align_bench("report", project, "--plugin", project.parent / "algorithms")
    assert again.code == 1
    assert results()["exploding"] == (status, reason), "the reason is kept"
    assert (
        align_bench("compare", "base", "dpo", project, "--plugin", project.parent / "algorithms", "--stored").code == 0
    )
    check(
        align_bench("compare", "exploding", "dpo", project, "--plugin", project.parent / "algorithms", "--stored"),
        ["exploding"],
    )
    assert written() == stored

    drop(project.parent, "exploding")
    mended = align_bench("run", project, "--plugin", project.parent / "algorithms")
    assert mended.code == 0
    assert results()["exploding"] == ("done", None)
    finished = written()
    assert {name: finished[name] for name in stored} == stored, "what was there was not computed again"
    assert len(finished) > len(stored)

    repeated = align_bench("run", project, "--plugin", project.parent / "algorithms")
    assert repeated.out == mended.out, "a second run prints the same screen"
    lines = mended.out.splitlines()
    assert len(lines) <= 22
    assert lines[-1].startswith("report: ")
    full = align_bench("report", project, "--plugin", project.parent / "algorithms", "--full")
    assert full.out.endswith(mended.out)
    assert "Policies on the validation pairs" in full.out
    assert "Policies on the validation pairs" not in mended.out

    printed = align_bench("run", project, "--plugin", project.parent / "algorithms", "--format", "json")
    assert printed.code == 0
    assert json.loads(printed.out) == json.loads(report.read_text(encoding="utf-8"))
    assert written() == finished, "a second run does nothing"

    other = align_bench(
        "compare",
        "base",
        "dpo",
        project,
        "--plugin",
        project.parent / "algorithms",
        "--stored",
        "--set",
        "train.epochs=2",
    )
    check(other, ["align-bench"])  # the stored report is another suite's
