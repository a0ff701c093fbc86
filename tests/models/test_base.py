"""Bases on disk: which one is meant, and what its digest follows."""

from __future__ import annotations

import copy
import json
import os
import shutil
from datetime import datetime
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from align_bench.errors import ModelError
from align_bench.models.base import find_base, template_inputs
from align_bench.models.tokenizer import load_tokenizer, with_inputs
from align_bench.records import TemplateInputs


def test_digest_follows_the_weights(base_folder: Path, tmp_path: Path) -> None:
    for source in base_folder.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    assert find_base(str(tmp_path)).digest == find_base(str(base_folder)).digest
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert find_base(str(tmp_path)).digest != find_base(str(base_folder)).digest


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nowhere", "does not exist"),
        ("/nowhere/model.gguf", "does not exist"),
        ("just-a-word", "does not exist"),
        ("someone/some-model", "neither a local path nor a hub model"),
    ],
)
def test_a_missing_base_is_told(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        find_base(name)


def test_a_folder_without_config_or_safetensors_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        find_base(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="safetensors"):
        find_base(str(tmp_path))


@pytest.fixture
def copied(base_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_folder, tmp_path / "base"))


def digest(folder: Path) -> str:
    return find_base(str(folder)).digest


def test_digest_follows_weights_changed_in_place(copied: Path) -> None:
    """Size and time of modification stay, as after a copy that keeps times."""
    path = copied / "model.safetensors"
    before, stat, content = digest(copied), path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert digest(copied) != before


@pytest.mark.parametrize("place", ["chat_template.jinja", "additional_chat_templates/tool_use.jinja"])
def test_digest_follows_a_chat_template_in_a_file_of_its_own(copied: Path, place: str) -> None:
    (copied / place).parent.mkdir(exist_ok=True)
    (copied / place).write_text("{{ messages }}")
    before = digest(copied)
    (copied / place).write_text("{{ messages[0] }}")
    assert digest(copied) != before


def test_digest_follows_a_chat_template_in_the_tokenizers_configuration(copied: Path) -> None:
    path = copied / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    before = digest(copied)
    path.write_text(json.dumps({**config, "chat_template": "{{ messages }}"}), encoding="utf-8")
    assert digest(copied) != before


def test_digest_does_not_follow_what_is_not_loaded(copied: Path) -> None:
    before = digest(copied)
    (copied / "README.md").write_text("words")
    (copied / "pytorch_model.bin").write_bytes(b"never read")
    assert digest(copied) == before


def test_each_file_is_hashed_by_the_digest_that_is_given(copied: Path) -> None:
    asked = []

    def constant(path: Path) -> str:
        asked.append(path.name)
        return "0"

    assert find_base(str(copied), digest=constant).digest != digest(copied)
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(asked)


def test_a_hub_models_digest_is_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted: dict[str, str | None] = {}

    def fetched(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        wanted.update(repository=repository, revision=revision)
        return str(tmp_path / "0123abc")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    found = find_base("owner/name@main")
    assert (found.digest, found.folder, found.name) == ("0123abc", tmp_path / "0123abc", "owner/name@main")
    assert wanted == {"repository": "owner/name", "revision": "main"}


def test_a_template_that_writes_the_date_gets_one_that_is_fixed(base_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(base_folder, folder)
    assert template_inputs(find_base(str(folder))) == TemplateInputs()
    assert template_inputs(find_base(str(folder)), {"a": 1}, "2026-11-27") == TemplateInputs({"a": 1})
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.is_file() else "{{ messages }}"
    template.write_text("{{ strftime_now('%d %b %Y') }}" + text, encoding="utf-8")
    assert template_inputs(find_base(str(folder))) == TemplateInputs(date="2026-01-01")
    assert template_inputs(find_base(str(folder)), date="2026-11-27") == TemplateInputs(date="2026-11-27")


def test_the_inputs_reach_the_template_whoever_applies_it(base_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(base_folder, folder)
    text = "{{ strftime_now('%d %b %Y') }} {{ 'thinks' if enable_thinking else 'does not' }}"
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    base = find_base(str(folder))
    tokenizer = load_tokenizer(base, template_inputs(base, {"enable_thinking": True}, "2026-11-27"))
    turn = {"role": "user", "content": "hi"}
    assert tokenizer.apply_chat_template([turn], tokenize=False) == "27 Nov 2026 thinks"
    assert tokenizer.apply_chat_template([[turn], [turn]], tokenize=False) == ["27 Nov 2026 thinks"] * 2
    assert load_tokenizer(base, template_inputs(base)).apply_chat_template([turn], tokenize=False) == (
        "01 Jan 2026 does not"
    )
    assert copy.deepcopy(tokenizer).apply_chat_template([turn], tokenize=False) == "27 Nov 2026 thinks"


@pytest.mark.parametrize("form", ["%d %b %Y", "%Y-%m-%d", "%A, %-d %B %y", "%H:%M:%S", "%c", "day %j of %Y"])
def test_a_fixed_date_is_written_as_strftime_writes_it(base_folder: Path, form: str) -> None:
    tokenizer = load_tokenizer(find_base(str(base_folder)))
    tokenizer.chat_template = (
        "\n{% macro line() %}{% if strftime_now is defined %}{{ strftime_now(FORM) }}{% endif %}{% endmacro %}"
        "{% for m in messages %}{{ line() }}|{{ strftime_now(FORM) }}{% endfor %}"
    ).replace("FORM", repr(form))
    found = with_inputs(tokenizer, TemplateInputs(date="2026-03-04"))
    day = datetime(2026, 3, 4).strftime(form)
    turn = {"role": "user", "content": "hi"}
    assert found.apply_chat_template([turn], tokenize=False) == f"\n{day}|{day}"
