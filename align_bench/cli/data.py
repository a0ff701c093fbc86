"""Commands on files of the user's: data, score."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from align_bench.cli.app import Columns, Form, Runs, app, console, errors, pair_of, write
from align_bench.errors import DataError, SuiteError
from align_bench.records import Json
from align_bench.report.formats import Format

_OPTIONS = {"columns": "--column", "choice": "--choice", "split": "--split"}


@app.command()
def data(
    file: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Files, patterns or a folder; a hub id; or embedded/planted.")
    ],
    split: Annotated[
        str | None, typer.Option(help="Split of a hub data set, of a folder of several, or of embedded/planted.")
    ] = None,
    rows: Annotated[int, typer.Option(help="How many rows to show.", min=0)] = 3,
    columns: Columns = None,
    choice: Annotated[
        list[str] | None,
        typer.Option(metavar="VALUE=MEANING", help="What a value of the choice or label column stands for."),
    ] = None,
    bias: Annotated[
        str, typer.Option(help="Length bias of embedded/planted: none, default, strong or a number.")
    ] = "default",
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="OTHER", help="Also count prompts that another file shares, or each split of a suite."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Also count rows that this model's template refuses, and those that are too long."),
    ] = None,
    max_length: Annotated[int, typer.Option(help="With --base: tokens of prompt and answer.", min=2)] = 1024,
    form: Form = Format.TABLE,
) -> None:
    """Summarise a preference set and look for what is wrong with it: its shape, counts, lengths, duplicates,
    contradictions, shared prompts, one-sided labels, scripts, and a few rows.

    Example: align-bench data embedded/planted --split val --against embedded/planted:train
    """
    from align_bench.cli.data_view import as_text, checks_section, findings_of
    from align_bench.data.preferences import DataSource, read
    from align_bench.data.summary import rich_summary, summarise
    from align_bench.report.render.terminal import section_table

    mapped = dict(pair_of(item, "--column") for item in columns or ())
    split = split or ("train" if file[0].startswith("embedded/") else None)
    files = tuple(file) if len(file) > 1 else ()
    meanings = dict(_meaning(item) for item in choice or ())
    source = DataSource(", ".join(file), split, mapped, meanings, bias=_number(bias), files=files)
    with _in_options():
        found = read(source)
    summary = summarise(found)
    findings = findings_of(source, found, summary, against=against or (), base=base, max_length=max_length)
    if form is not Format.TABLE:
        write(as_text(source, summary, findings, form))
        return
    checks = [section_table(checks_section(findings))]
    console.print(rich_summary(source, found, rows=rows, summary=summary, checks=checks))


@app.command()
def score(
    file: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Files, patterns or a folder of prompts with answers.")
    ],
    judge: Annotated[
        str,
        typer.Option(
            help="A suite that was run (or SUITE:JUDGE; SUITE-quick of run --quick), a hub id, a folder (also of "
            "export), or gold."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write; .jsonl or .parquet. By default FILE.scored.jsonl, or FILE.scored.parquet for Parquet."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a folder of several.")] = None,
    columns: Columns = None,
    name: Annotated[str, typer.Option(help="Name of the new column.")] = "score",
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag of a hub model.")] = None,
    template: Annotated[
        str | None,
        typer.Option(metavar="chat|pair", help="How texts are formatted for a model from the hub or a folder."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16, nf4 or auto; by default the run's own, or auto.")
    ] = None,
    chat_template_kwargs: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="What the chat template reads beside the turns, such as '{\"enable_thinking\": false}'.",
        ),
    ] = None,
    date: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM-DD", help="Date for chat templates that write today's; by default 2026-01-01."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Padded tokens per forward pass; by default by the device; does not change scores.", min=1),
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Score prompts and answers with a judge: writes the file with a column of scores, and prints a summary.

    Recognised columns: messages; prompt or question with response, completion, answer, text, response_1 and
    response_2, chosen and rejected; those of known public sets; a report's generations.jsonl.

    Example: align-bench score answers.jsonl --judge assignment
    """
    for given, known in ((template, (None, "chat", "pair")), (precision, (None, "fp32", "bf16", "nf4", "auto"))):
        if given not in known:
            raise SuiteError(f"got {given!r}, expected {', '.join(filter(None, known))}")
    kwargs = _mapping("--chat-template-kwargs", chat_template_kwargs or "{}")
    from align_bench.cli.progress import progress_bars
    from align_bench.data.answers import read_answers
    from align_bench.runner.score_file import JudgeChoice, score_file, summary

    with progress_bars(errors, {}) as progress, progress.stage(Path(file[0]).name, "score") as update:
        mapped = dict(pair_of(item, "--column") for item in columns or ())
        with _in_options():
            answers = read_answers(file, mapped, split)
        choice = JudgeChoice(judge, revision, template, precision, max_tokens, kwargs, date)  # type: ignore[arg-type]
        scored = score_file(answers, choice, runs=runs, out=out, name=name, update=update)
    for renderable in summary(scored):
        console.print(renderable)


@contextmanager
def _in_options() -> Iterator[None]:
    """Errors that propose keys of a suite's data entry propose the options of this command instead."""
    try:
        yield
    except DataError as error:
        raise DataError(_as_options(error.message), fix=error.fix and _as_options(error.fix)) from None


def _as_options(text: str) -> str:
    """A text whose `columns: {chosen: good}` is written as `--column chosen=good`."""
    import yaml

    def options(found: re.Match[str]) -> str:
        try:
            pairs = yaml.load(found["pairs"], Loader=yaml.BaseLoader)  # nosec B506 - makes nothing but texts
        except yaml.YAMLError:  # a name with characters that YAML does not take
            return found[0]
        given = (f"{_OPTIONS[found['key']]} {shlex.quote(f'{name}={value}')}" for name, value in pairs.items())
        return f"`{' '.join(given)}`"

    text = re.sub(r"`(?P<key>columns|choice): (?P<pairs>\{[^`]*\})`", options, text)
    return re.sub(r"`(columns|choice|split):?`", lambda found: _OPTIONS[found[1]], text)


def _meaning(item: str) -> tuple[str, str]:
    """A value and what it stands for; the value may be a comparison, such as `>=4`."""
    value, equals, meaning = item.rpartition("=")
    if not equals or not value:
        raise typer.BadParameter(f"{item!r}: expected VALUE=MEANING", param_hint="--choice")
    return value, meaning


def _mapping(option: str, text: str) -> dict[str, Json]:
    """An option's JSON object."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SuiteError(
            f"{option}: got {text!r}, expected a JSON object", fix="""such as '{"enable_thinking": false}'"""
        )
    return found


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
