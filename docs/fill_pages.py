"""Fill in what pages show that the code knows: keys of a suite, commands, packaged suites, memory, lines of reports.

A page says where, by a comment: what stands between `<!-- made: NAME -->` and `<!-- /made -->` is written anew. The
pages of methods are written as a whole, and listed in mkdocs.yml. A test fails for a page that is not up to date.

Example:
    python docs/fill_pages.py
"""

from __future__ import annotations

import io
import json
import re
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import cast

import typer.main
import yaml
from pydantic import BaseModel
from rich.console import Console
from suite_examples import EXAMPLES

from align_bench.cli.main import app
from align_bench.models.base import Base
from align_bench.models.precision import Precision
from align_bench.planning.memory import ROOM, expected_memory
from align_bench.plugins.methods_page import Curves, navigation, page, pages
from align_bench.records import Json
from align_bench.report.export import read_report
from align_bench.report.render.screen import last_screen
from align_bench.suite import models
from align_bench.suite.load import load_suite, packaged_suites

ROOT = Path(__file__).parents[1]
WIDTH = 90  # characters of a quoted line
DOCS = ROOT / "docs"
METHODS = DOCS / "methods"
CURVES = DOCS / "method_curves.json"
SITE = ROOT / "mkdocs.yml"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(METHODS.glob("*.md")))
_LISTED = re.compile(r"(# made: pages of methods\n)(.*?)( *# /made\n)", re.DOTALL)
_MADE = re.compile(r"(<!-- made: (.+?) -->\n)(.*?)(<!-- /made -->)", re.DOTALL)

# Heading, the keys' prefix in `EXAMPLES`, and the model that holds them.
SECTIONS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Top level", "", models.Suite),
    ("`lora`", "lora.", models.Lora),
    ("`data`", "data.", models.Data),
    ("A file of rows", "[rows].", models.DataFile),
    ("`judge`: a reward model that is trained", "[trained].", models.TrainedJudge),
    ("`judge`: `ensemble`", "[trained].ensemble.", models.Ensemble),
    ("`judge`: a model that is loaded", "[loaded].", models.LoadedJudge),
    ("`judge`: the programmatic one", "[gold].", models.GoldJudge),
    ("`train`", "train.", models.Train),
    ("`evaluate`", "evaluate.", models.Evaluate),
    ("`audit`", "audit.", models.Audit),
    ("`generate`", "generate.", models.Generate),
    ("`report`", "report.", models.Report),
    ("`tune`", "tune.", models.Tune),
)


def suite_keys() -> str:
    """Every key of a suite: a table for each part of it."""
    return "\n\n".join(_section(*section) for section in SECTIONS)


def _section(heading: str, prefix: str, model: type[BaseModel]) -> str:
    found = cast("Mapping[str, Mapping[str, Json]]", model.model_json_schema()["properties"])
    lines = [f"## {heading}", "", " ".join((model.__doc__ or "").split()), ""]
    lines += ["| key | type | default | meaning | example |", "|---|---|---|---|---|"]
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        cells = (
            f"`{name}`",
            " or ".join(dict.fromkeys(_types(found[name]))),
            default,
            field.description or "see below",
            _code(EXAMPLES[prefix + name]),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _default(value: object) -> str:
    if isinstance(value, BaseModel):
        return "each key's own"
    if value in ((), [], {}):
        return "empty"
    return "none" if value is None else _code(json.dumps(value))


def _types(schema: Mapping[str, Json]) -> Iterator[str]:
    """What a JSON schema allows, in words."""
    for one in (*cast("Sequence[Mapping[str, Json]]", schema.get("anyOf", ())),):
        yield from _types(one)
    if "enum" in schema or "const" in schema:
        values = cast("Sequence[str]", schema.get("enum", [schema.get("const")]))
        yield " or ".join(_code(str(value)) for value in values)
    elif "$ref" in schema or "oneOf" in schema:
        yield "mapping"
    elif "type" in schema and schema["type"] != "null":
        words = {"integer": "whole number", "array": "list", "object": "mapping", "boolean": "true or false"}
        kind = str(schema["type"])
        yield words.get(kind, {"string": "text"}.get(kind, kind)) + _limits(schema)


def _limits(schema: Mapping[str, Json]) -> str:
    signs = {"minimum": "≥", "ge": "≥", "exclusiveMinimum": ">", "gt": ">"}
    signs |= {"maximum": "≤", "le": "≤", "exclusiveMaximum": "<", "lt": "<"}
    return "".join(f" {sign} {schema[name]}" for name, sign in signs.items() if name in schema)


def _code(text: str) -> str:
    return f"`{text}`"


def commands() -> str:
    """Every command: what it does, its usage and its options."""
    group = typer.main.get_command(app)
    found = cast("Mapping[str, object]", group.commands)  # type: ignore[attr-defined]
    return "\n\n".join("\n".join(_command(name, command)) for name, command in found.items())


def _command(name: str, command: object) -> Iterator[str]:
    told = str(getattr(command, "help", "")).replace("\\[", "[")
    about, _, example = told.partition("\n\nExample: ")
    yield f"## `{name}`"
    yield ""
    yield about
    parameters = [one for one in getattr(command, "params", ()) if "--help" not in one.opts]
    arguments = [one for one in parameters if not one.opts[0].startswith("-")]
    usage = " ".join([f"align-bench {name}", *(["[OPTIONS]"] if len(arguments) < len(parameters) else [])])
    yield ""
    yield f"Usage: {_code(' '.join([usage, *(one.metavar or one.name.upper() for one in arguments)]))}"
    if example:
        yield ""
        yield f"Example: {_code(' '.join(example.split()))}"
    if parameters:
        yield ""
        yield "| option | meaning | default |"
        yield "|---|---|---|"
    for one in parameters:
        shown = one.metavar or one.name.upper() if one in arguments else ", ".join(one.opts)
        value = f" {one.metavar}" if one not in arguments and one.metavar else ""
        cells = (_code(shown + value), " ".join((one.help or "").split()), _option_default(one.default, one.required))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _option_default(default: object, required: bool) -> str:
    if required:
        return "required"
    value = default.value if isinstance(default, Enum) else default
    return _code(str(value)) if isinstance(value, int | float | str | Path) and not isinstance(value, bool) else ""


def suites() -> str:
    """The packaged suites: what each one's first comment says, and its command."""
    lines = ["| suite | what it compares |", "|---|---|"]
    for name, path in packaged_suites().items():
        comment = re.match(r"(?:#.*\n)+", path.read_text(encoding="utf-8"))
        assert comment, f"{path} starts with a comment that says what it is"
        words = " ".join(line.strip("# ") for line in comment[0].splitlines() if not re.match(r"# {2,}", line))
        first = re.split(r"(?<=\.)\s", words)[0].rstrip(".")
        lines.append(f"| `{name}` | {first.replace('|', '/')} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Shape:
    """A model's shape, as its `config.json` on the hub has it.

    Attributes:
        name: its hub id.
        parameters: how many weights it has.
        layers, hidden, intermediate, heads, kv_heads, vocabulary: as in the configuration.
    """

    name: str
    parameters: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int

    def config(self) -> dict[str, int]:
        """The part of its configuration that memory depends on."""
        return {
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
        }


SHAPES = (
    Shape("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008, 30, 576, 1536, 9, 3, 49_152),
    Shape("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768, 24, 896, 4864, 14, 2, 151_936),
    Shape("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304, 28, 1536, 8960, 12, 2, 151_936),
    Shape("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512, 28, 3584, 18_944, 28, 4, 152_064),
    Shape("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248, 32, 4096, 14_336, 32, 8, 128_256),
)
SMALLER = ("train.micro_batch_tokens=2048", "generate.batch_size=16")
CARDS = (8, 12, 16, 24, 40, 48, 80)  # GB of common cards
LONG_PROMPT = 512  # tokens; the 95th percentile of prompts that the estimate is made for


def cards() -> str:
    """The estimated peak of memory of the settings of `real`, on CUDA, for bases of known shapes."""
    lines = ["| base, in NF4 | as `extends: real` says | with the two settings below | smallest card with room |"]
    lines.append("|---|---:|---:|---:|")
    for shape in SHAPES:
        as_is, smaller = _peak(shape, ()), _peak(shape, SMALLER)
        card = next((f"{size} GB" for size in CARDS if smaller * ROOM < size), "more than 80 GB")
        lines.append(f"| {shape.name} | {as_is:.0f} GB | {smaller:.0f} GB | {card} |")
    return "\n".join(lines)


def _peak(shape: Shape, settings: Sequence[str]) -> float:
    """GB at the peak of training and of answering, on CUDA in NF4."""
    suite = load_suite("real", ["base=x", "data.train=t.jsonl", "data.val=v.jsonl", *settings])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(shape.config()), encoding="utf-8")
        base = Base(shape.name, Path(folder), None, "digest")
        batch = 2 * suite.train.max_length * suite.train.batch_size
        precision = Precision("nf4", "bfloat16", "cuda")
        found = expected_memory(suite, base, shape.parameters, precision, (batch, LONG_PROMPT))
    assert found is not None
    return max(found.training, found.answering) / 1e9


def lines_of(argument: str) -> str:
    """Lines of a file of the repository, wrapped, as a block of text: `FILE: PATTERN`, those that the pattern finds."""
    file, _, pattern = argument.partition(": ")
    text = (ROOT / file).read_text(encoding="utf-8")
    found = [line.replace("\\[", "[").replace("\\]", "]") for line in text.splitlines() if re.search(pattern, line)]
    assert found, f"no line of {file} has {pattern}"
    wrapped = [part for line in found for part in textwrap.wrap(line, WIDTH, subsequent_indent="  ")]
    return "\n".join(["```text", *wrapped, "```"])


def table_of(argument: str) -> str:
    """The table below a heading of a file of Markdown: `FILE: HEADING`."""
    file, _, heading = argument.partition(": ")
    _, found, rest = (ROOT / file).read_text(encoding="utf-8").partition(f"\n{heading}\n")
    table = re.search(r"(?:^\|.*\n)+", rest, re.MULTILINE)
    assert found, f"{file} has no heading {heading}"
    assert table, f"no table below {heading} in {file}"
    return table[0].rstrip()


def screen_of(suite: str) -> str:
    """The last screen of a run of a suite, from its published report."""
    console = Console(file=io.StringIO(), width=80, color_system=None)
    report = read_report(ROOT / "reports" / "published" / suite)
    with console.capture() as printed:
        for line in last_screen(report, f"reports/{suite}/report.html", console):
            console.print(line)
    return f"```text\n{printed.get().rstrip()}\n```"


MADE: dict[str, Callable[[], str]] = {
    "suite keys": suite_keys,
    "commands": commands,
    "suites": suites,
    "cards": cards,
}


def made(name: str) -> str:
    """What stands in a block of this name."""
    if name in MADE:
        return MADE[name]()
    kind, _, argument = name.partition(" of ")
    return {"lines": lines_of, "screen": screen_of, "table": table_of}[kind](argument)


def filled(text: str) -> str:
    """A page with its blocks written anew."""
    return _MADE.sub(lambda block: f"{block[1]}\n{made(block[2])}\n\n{block[4]}", text)


def methods_written() -> dict[Path, str]:
    """The page of all methods and that of each: file → text."""
    own = pages(Curves.read(CURVES))
    return {DOCS / "methods.md": page(), **{METHODS / f"{name}.md": text for name, text in own.items()}}


def listed(text: str) -> str:
    """mkdocs.yml with the pages of methods listed anew."""
    lines = "".join(f"{line}\n" for line in navigation())
    return _LISTED.sub(lambda block: f"{block[1]}{lines}{block[3]}", text)


def example_suite(example: str) -> dict[str, Json]:
    """A suite that is complete but for what an example says."""
    whole: dict[str, Json] = {
        "name": "mine",
        "base": "embedded/tiny",
        "data": {"train": "embedded/planted", "val": "embedded/planted"},
        "methods": ["rm"],
    }
    return {**whole, **cast("dict[str, Json]", yaml.safe_load(example))}


def main() -> None:
    """Write every page anew that is made, or has such blocks; delete pages of methods that are no more."""
    METHODS.mkdir(exist_ok=True)
    new = methods_written()
    for page_of_method in METHODS.glob("*.md"):
        if page_of_method not in new:
            page_of_method.unlink()
            print(f"deleted: {page_of_method.relative_to(ROOT)}")
    new[SITE] = listed(SITE.read_text(encoding="utf-8"))
    new |= {path: filled(path.read_text(encoding="utf-8")) for path in PAGES if path not in new and path.exists()}
    for path, text in new.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
