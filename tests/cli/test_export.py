"""`align-bench export`: what is written is the model that was measured, is read by others, and judges again."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from align_bench.cli import main as program
from align_bench.cli.app import console, errors
from align_bench.data.answers import read_answers
from align_bench.data.preferences import DataSource
from align_bench.errors import AlignBenchError, ModelError
from align_bench.export import card
from align_bench.export import export as exporting
from align_bench.export.card import Training
from align_bench.export.weights import write_adapter, write_rest
from align_bench.judge.find import find_judge
from align_bench.models.base import EMBEDDED, Base
from align_bench.models.exported import NOTE, read_note
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import no_update
from align_bench.report.export import read_generations, read_report
from align_bench.report.schema import Report
from align_bench.runner.progress import NoProgress
from align_bench.runner.run import Folders, run
from align_bench.runner.score_file import JudgeChoice, score_file
from align_bench.suite.load import load_suite
from align_bench.suite.models import LoadedJudge

pytestmark = pytest.mark.usefixtures("few_figures")

SUITE: dict[str, Any] = {
    "name": "taken",
    "base": "embedded/tiny",
    "precision": "fp32",
    "lora": {"r": 4, "alpha": 8},
    "data": {"train": {"path": "embedded/planted", "rows": 24}, "val": {"path": "embedded/planted", "rows": 12}},
    "judge": [{"method": "rm", "data": {"path": "embedded/planted", "rows": 24}, "name": "jury"}, "gold"],
    "train": {"batch_size": 8, "max_length": 128},
    "generate": {"prompts": 6, "max_new_tokens": 6},
    "audit": {"pairs": 0},
    # Rates at which two steps already move the weights.
    "methods": [
        {"rm": {"learning_rate": 0.005}},
        {"dpo": {"learning_rate": 0.03}},
        {"best_of_n": {"n": 2, "reward": "rm"}},
    ],
}
TINY = EMBEDDED["embedded/tiny"]
# A random model's logits lie so close together that a rounded one's answers depend on their batch.
ROUNDED = pytest.mark.filterwarnings("ignore:.* answers through transformers' own generation")
TAKES_NO_PART = ("base", "best_of_n")


@dataclass(frozen=True)
class Project:
    """A folder with a suite that was run in it."""

    folder: Path
    report: Report

    @property
    def suite(self) -> Path:
        return self.folder / "taken.yaml"

    @property
    def places(self) -> list[str]:
        return ["--runs", str(self.folder / "runs"), "--reports", str(self.folder / "reports")]


def made(folder: Path, **changes: Any) -> Project:
    suite = folder / "taken.yaml"
    suite.write_text(yaml.safe_dump({**SUITE, **changes}), encoding="utf-8")
    folders = Folders(folder / "runs", folder / "reports")
    report = run(prepare(load_suite(str(suite)), load_registry()), NoProgress(), folders, command="align-bench run")
    assert {result.name: result.reason for result in report.results if result.status != "done"} == {}
    return Project(folder, report)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return made(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def exported(project: Project) -> Callable[..., Path]:
    """The folder of a cell's export, made once."""

    def folder(cell: str, *options: str, of: Project = project) -> Path:
        out = of.folder / "-".join([cell, *options]).replace("--", "")
        if not out.exists():
            export(of, cell, out, *options)
        return out

    return folder


def export(project: Project, cell: str, out: Path, *options: str) -> None:
    """Run the command; an error of the user's is raised."""
    arguments = ["export", str(project.suite), cell, "--out", str(out), *project.places, *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["align-bench", *arguments])
        patch.setattr(console, "_width", 300)
        patch.setattr(errors, "_width", 300)
        program.app(arguments, standalone_mode=False)


def front_matter(folder: Path) -> tuple[dict[str, Any], str]:
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


def run_snippet(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the card's own code prints, in the folder."""
    (code,) = re.findall(r"```python\n(.*?)```", front_matter(folder)[1], flags=re.DOTALL)
    monkeypatch.chdir(folder)
    capsys.readouterr()
    exec(code, {})
    return capsys.readouterr().out


# -- report ------------------------------------------------------------------------------------------------------------


def test_the_report_names_each_adapter(project: Project) -> None:
    for result in project.report.results:
        if result.name in TAKES_NO_PART:
            assert result.adapter is None
        else:
            assert result.adapter is not None
            assert (project.folder / "runs" / result.adapter / "adapter_model.safetensors").is_file()
    assert read_report(project.folder / "reports" / "taken") == project.report


# -- policies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--merge",)], ids=["adapter", "merged"])
def test_an_exported_policy_is_loaded_by_its_cards_own_code(
    options: tuple[str, ...],
    exported: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = exported("dpo", *options)
    front, text = front_matter(folder)
    assert front["library_name"] == ("transformers" if options else "peft")
    assert (front["pipeline_tag"], front["license"]) == ("text-generation", "apache-2.0")
    assert {"align-bench", "dpo"} <= set(front["tags"])
    assert "base_model" not in front, "the hub refuses a base that it does not have"
    assert "datasets" not in front
    assert f"align-bench export {folder.parent / 'taken.yaml'} dpo" in text
    assert re.search(r"learning\\?_rate = 0.03, beta = 0.1", text)
    assert re.search(r"\| accuracy \| \d\.\d+ \| \[\d\.\d+, \d\.\d+\] \| 12 \|", text)
    assert ("merged" in text.split("## Proof")[0]) == bool(options)
    assert (folder / "adapter_model.safetensors").exists() == (not options)
    assert run_snippet(folder, monkeypatch, capsys).strip()


def test_a_merged_policy_writes_the_answers_that_are_stored(project: Project, exported: Callable[..., Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    folder = exported("dpo", "--merge")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    base = AutoModelForCausalLM.from_pretrained(TINY).eval()
    settings = GenerationConfig.from_pretrained(folder)
    answers = [one for one in read_generations(project.folder / "reports" / "taken") if one.cell == "dpo"]
    assert len(answers) == 6
    moved = 0
    for one in answers:
        turns = [{"role": "user", "content": one.prompt}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        length = prompt["input_ids"].shape[1]
        told = [
            tokenizer.decode(each.generate(**prompt, generation_config=settings)[0, length:], skip_special_tokens=True)
            for each in (model, base)
        ]
        assert told[0] == one.text
        moved += told[1] != one.text
    assert moved, "the policy answers as the base does, so that this shows nothing"


def test_the_proof_is_by_what_was_measured(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    export(project, "dpo", out)
    said = capsys.readouterr().out
    found = re.search(r"6 stored answers scored again \(float32 on cpu\): largest difference (\S+), mean", said)
    assert found is not None
    assert float(found[1]) < 1e-4
    assert f"largest difference {found[1]}" in front_matter(out)[1]
    away = re.search(r"the base alone is (\S+) away", said)
    assert away is not None
    assert float(away[1]) > 1e-2, "an adapter that does nothing would pass"


@pytest.mark.parametrize(("cell", "factor"), [("dpo", 1.5), ("dpo", 0.0), ("rm", 1.5)])
def test_another_model_than_the_measured_one_is_not_kept(
    cell: str, factor: float, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(stored: Path, folder: Path, base: Any) -> None:
        write_adapter(stored, folder, base)
        weights = folder / "adapter_model.safetensors"
        save_file({name: factor * tensor for name, tensor in load_file(weights).items()}, weights)

    monkeypatch.setattr(exporting, "write_adapter", wrong)
    with pytest.raises(ModelError, match="is not the one that was measured"):
        export(project, cell, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_another_tokenizer_is_not_kept(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(folder: Path, base: Any, generate: Any) -> None:
        write_rest(folder, base, generate)
        template = folder / "chat_template.jinja"
        template.write_text("Hello. " + template.read_text(encoding="utf-8"), encoding="utf-8")

    monkeypatch.setattr(exporting, "write_rest", wrong)
    with pytest.raises(ModelError, match="writes other tokens"):
        export(project, "dpo", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_hub_model_is_named_by_its_id_and_commit(project: Project, tmp_path: Path) -> None:
    commit = "a1b2c3"
    snapshot = tmp_path / "snapshots" / commit
    snapshot.mkdir(parents=True)
    base = Base(f"org/base@{commit}", snapshot, None, commit)
    assert (base.hub_id, base.place) == ("org/base", f"org/base@{commit}")
    stored = next(result.adapter for result in project.report.results if result.name == "dpo")
    write_adapter(project.folder / "runs" / str(stored), tmp_path, base)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", commit)
    local = Base(str(snapshot), snapshot, None, "0" * 64)
    assert (local.hub_id, local.place) == (None, str(snapshot.resolve()))


def test_the_card_names_what_the_hub_has(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Base, "hub_id", "org/base")
    monkeypatch.setattr(card, "Training", lambda split, source: Training(split, DataSource("org/pairs")))
    export(project, "dpo", tmp_path / "out", "--license", "mit")
    front, text = front_matter(tmp_path / "out")
    assert (front["base_model"], front["base_model_relation"]) == ("org/base", "adapter")
    assert (front["datasets"], front["license"]) == (["org/pairs"], "mit")
    assert "mit, within the licences of" in text


def test_a_licence_that_nobody_gave_is_unknown(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "Training", lambda split, source: Training(split, DataSource("org/pairs")))
    export(project, "dpo", tmp_path / "out")
    front, text = front_matter(tmp_path / "out")
    assert front["license"] == "unknown"
    assert "Not stated." in text


def test_an_empty_folder_is_filled(project: Project, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(project, "dpo", tmp_path / "out")
    assert (tmp_path / "out" / NOTE).is_file()


@ROUNDED
@pytest.mark.parametrize("storage", ["nf4", "bf16"])
def test_a_rounded_base_is_merged_as_it_was_trained_on(
    storage: str, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = made(tmp_path, base=str(base_folder), precision=storage, methods=[SUITE["methods"][1]], judge="gold")
    for options in ((), ("--merge",)):
        out = tmp_path / f"out{len(options)}"
        export(of, "dpo", out, *options)
        proof = front_matter(out)[1].split("## Proof")[1]
        assert f"({'float32' if storage == 'nf4' else 'bfloat16'} on cpu)" in proof
        if options:
            assert ("as they dequantise" if storage == "nf4" else "to the base's bf16 weights") in proof
            (weights,) = {tensor.dtype for tensor in load_file(out / "model.safetensors").values()}
            assert weights == (torch.float32 if storage == "nf4" else torch.bfloat16)
        note = read_note(out)
        assert note is not None
        assert note.storage == storage


def test_a_gguf_file_is_the_same_model(base_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    of = made(tmp_path, base=str(base_folder), methods=[SUITE["methods"][1]], judge="gold")
    out = tmp_path / "out"
    export(of, "dpo", out, "--merge", "--gguf")
    assert "The same of `model.gguf`" in front_matter(out)[1]
    ids = torch.tensor([[7, 300, 42, 5, 17, 2, 90]])
    plain = AutoModelForCausalLM.from_pretrained(out).eval()
    read = AutoModelForCausalLM.from_pretrained(out, gguf_file="model.gguf", dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(read(ids).logits, plain(ids).logits, rtol=1e-5, atol=1e-5)
    text = "<|user|>What is 17 + 4?<|end|><|assistant|>It's 21, naïvely."
    tokenizers = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(out, gguf_file="model.gguf")
    first, second = (each(text, add_special_tokens=False)["input_ids"] for each in tokenizers)
    assert first == second


def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="splits texts by other rules"):
        export(project, "dpo", tmp_path / "out", "--merge", "--gguf")
    assert list(tmp_path.iterdir()) == []


# -- reward models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--merge",)], ids=["adapter", "merged"])
def test_an_exported_reward_model_scores_as_its_run_does(
    options: tuple[str, ...],
    project: Project,
    exported: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = exported("rm", *options)
    file = read_answers(project.folder / "reports" / "taken" / "generations.jsonl", {})

    def scored(judge: str) -> list[float | None]:
        choice = JudgeChoice(judge, precision="fp32")
        out = project.folder / "scored.jsonl"
        found = score_file(file, choice, runs=project.folder / "runs", out=out, name="own", update=no_update)
        (values,) = found.scores.values()
        return list(values)

    stored = scored("taken:rm")
    assert len({round(value or 0, 3) for value in stored}) > 5
    assert scored(str(folder)) == pytest.approx(stored, abs=1e-5)
    front, text = front_matter(folder)
    assert front["pipeline_tag"] == "text-classification"
    assert "reward-model" in front["tags"]
    assert "scores of validation answers" in text
    float(run_snippet(folder, monkeypatch, capsys))


def test_exported_reward_models_are_judges_of_a_suite(
    project: Project, exported: Callable[..., Path], tmp_path: Path
) -> None:
    """The panel's own judge, and both forms of its export, give an answer the same score."""
    adapter, merged = exported("judge"), exported("jury", "--merge")
    loaded = [{"model": str(adapter), "name": "adapter"}, {"model": str(merged), "name": "merged"}]
    of = made(tmp_path, judge=[SUITE["judge"][0], *loaded], methods=[SUITE["methods"][1]])
    answers = read_generations(of.folder / "reports" / "taken")
    assert len(answers) == 12
    for one in answers:
        assert one.scores["adapter"] == pytest.approx(one.scores["jury"], abs=1e-5)
        assert one.scores["merged"] == pytest.approx(one.scores["jury"], abs=1e-5)
    facts = {judge.name: judge.loaded for judge in of.report.judges}
    assert facts["adapter"] is not None
    assert (facts["adapter"].labels, facts["adapter"].truncated) == (1, 0)


def test_a_base_that_pads_with_its_end_token_is_scored_at_its_end(base_folder: Path, tmp_path: Path) -> None:
    """As SmolLM2 does; transformers alone would read the score before the end, and a template may write on after it."""
    base = shutil.copytree(base_folder, tmp_path / "base")
    for name, changed in (("config.json", {"pad_token_id": 1}), ("tokenizer_config.json", {"pad_token": "<|end|>"})):
        settings = json.loads((base / name).read_text(encoding="utf-8"))
        (base / name).write_text(json.dumps(settings | changed), encoding="utf-8")
    template = (base / "chat_template.jinja").read_text(encoding="utf-8")
    (base / "chat_template.jinja").write_text(template.replace("<|end|>", "<|end|>\\n"), encoding="utf-8")
    of = made(tmp_path, base=str(base), methods=SUITE["methods"][:2], judge="gold")
    file = read_answers(of.folder / "reports" / "taken" / "generations.jsonl", {})
    scores = []
    for judge in ("taken:rm", tmp_path / "adapter", tmp_path / "merged"):
        if isinstance(judge, Path):
            export(of, "rm", judge, *(["--merge"] if judge.name == "merged" else []))
        choice, out = JudgeChoice(str(judge), precision="fp32"), tmp_path / "scored.jsonl"
        found = score_file(file, choice, runs=of.folder / "runs", out=out, name="own", update=no_update)
        scores.append(list(next(iter(found.scores.values()))))
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)
    assert scores[2] == pytest.approx(scores[0], abs=1e-5)
    config = json.loads((tmp_path / "merged" / "config.json").read_text(encoding="utf-8"))
    assert config["pad_token_id"] is None


@ROUNDED
def test_a_reward_model_in_bf16_keeps_its_head(base_folder: Path, tmp_path: Path) -> None:
    from align_bench.judge.loaded import load_judge
    from align_bench.models.precision import Precision

    of = made(tmp_path, base=str(base_folder), precision="bf16", methods=SUITE["methods"][:2], judge="gold")
    for number, options in enumerate(((), ("--merge",))):
        out = tmp_path / f"out{number}"
        export(of, "rm", out, *options)
        trained = next((of.folder / "runs" / "adapter").glob("rm-*/adapter_model.safetensors"))
        (head,) = [tensor for name, tensor in load_file(trained).items() if name.endswith("score.weight")]
        model = load_judge(find_judge(LoadedJudge(model=str(out))), Precision("bf16", "bfloat16", "cpu")).model
        found = model.base_model.model.score.modules_to_save["default"] if not options else model.score
        assert torch.equal(found.weight.cpu(), head)


def test_a_judge_that_cannot_be_one_is_told(project: Project, exported: Callable[..., Path], tmp_path: Path) -> None:
    def refused(folder: Path, match: str, **more: Any) -> None:
        with pytest.raises(ModelError, match=match):
            find_judge(LoadedJudge(model=str(folder), **more))

    refused(exported("dpo"), "is an exported policy")
    refused(exported("rm", "--merge"), "leave template out", template="chat")
    plain = shutil.copytree(exported("rm"), tmp_path / "plain")
    (plain / NOTE).unlink()
    assert find_judge(LoadedJudge(model=str(plain))).below is not None  # any other adapter, with a template of its own
    moved = shutil.copytree(exported("rm"), tmp_path / "moved")
    note = json.loads((moved / NOTE).read_text(encoding="utf-8"))
    (moved / NOTE).write_text(json.dumps({**note, "base_digest": "0" * 64}), encoding="utf-8")
    refused(moved, "has changed since")
    (moved / NOTE).write_text(json.dumps({**note, "version": 2}), encoding="utf-8")
    refused(moved, "version")


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "options", "said"),
    [
        ("dop", [], "Did you mean dpo?"),
        ("base", [], "was not trained"),
        ("best_of_n", [], "export what it picks by, rm"),
        ("dpo", ["--set", "seeds=[0, 1]"], "dpo stands for 2 cells: dpo#0, dpo#1"),
        ("dpo#1", ["--set", "seeds=[0, 1]"], "has not finished"),
        ("dpo", ["--set", "train.epochs=2"], "has not finished"),
        ("dpo", ["--set", "report.equivalence_dz=0.3"], "is of other settings"),
        ("dpo", ["--gguf"], "add --merge"),
        ("rm", ["--gguf", "--merge"], "has a scalar head"),
    ],
)
def test_what_cannot_be_exported_is_told(
    cell: str, options: list[str], said: str, project: Project, tmp_path: Path
) -> None:
    with pytest.raises(AlignBenchError) as error:
        export(project, cell, tmp_path / "out", *options)
    assert said in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(project: Project, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    with pytest.raises(AlignBenchError, match="is not empty"):
        export(project, "dpo", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_a_report_it_is_told_how_to_get_one(project: Project, tmp_path: Path) -> None:
    with pytest.raises(AlignBenchError, match="align-bench report"):
        export(project, "dpo", tmp_path / "out", "--reports", str(tmp_path))
