"""What `align-bench data` looks for in rows, and how it is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.report.formats import Format, inert_json, section_text
from align_bench.report.tables.section import Column, Section, text
from align_bench.report.tables.values import Number, count

if TYPE_CHECKING:
    from align_bench.data.doctor import Finding
    from align_bench.data.preferences import DataSource
    from align_bench.data.summary import Summary
    from align_bench.records import PreferenceSet


def findings_of(
    source: DataSource,
    found: PreferenceSet,
    summary: Summary,
    *,
    against: Sequence[str] = (),
    base: str | None = None,
    max_length: int,
) -> list[Finding]:
    """Look for all that can be wrong with a set.

    Args:
        source, found, summary: the set.
        against: other files, or suites, which should share no prompt with it.
        base: whose template and tokenizer write its rows; None to leave these checks out.
        max_length: tokens of prompt and answer, for the base.

    Raises:
        DataError: another file cannot be read.
        ModelError: there is no such base.
    """
    from align_bench.data.check_rows import label_sides
    from align_bench.data.doctor import examine

    tokens: Mapping[str, int] | None = None
    if base is not None:
        from align_bench.data.chat import tokenize
        from align_bench.models.base import find_base, template_inputs
        from align_bench.planning.lengths import plain_tokenizer

        model = find_base(base)
        tokenizer = plain_tokenizer(model, template_inputs(model))
        tokens = tokenize(tokenizer, found, max_length=max_length).counts
    return examine(
        found,
        summary,
        sides=label_sides(found),
        against=dict(pair for other in against for pair in _others(other, source)),
        tokens=tokens,
        max_length=max_length,
    )


def _others(name: str, own: DataSource) -> Iterator[tuple[str, PreferenceSet]]:
    """A file's rows, or those of every split of a suite that is of other files."""
    from align_bench.data.preferences import DataSource, read
    from align_bench.planning.inputs import sources_of
    from align_bench.suite.load import load_suite, packaged_suites

    if Path(name).suffix in (".yaml", ".yml") or name in packaged_suites():
        for split, source in sources_of(load_suite(name)).items():
            if _files(source) != _files(own):
                yield f"{split} of {name}", read(source)
    else:
        path, _, split = name.partition(":") if name.startswith("embedded/") else (name, "", "")
        yield name, read(DataSource(path, split=split or None))


def _files(source: DataSource) -> tuple[object, ...]:
    from align_bench.data.preferences import local_files

    files = local_files(source)
    return (source.path, source.split) if files is None else tuple(file.resolve() for file in files)


def checks_section(findings: Sequence[Finding]) -> Section:
    """A table of findings, with one line of advice for each that needs one."""
    rows = [
        (
            finding.what,
            count(finding.rows),
            count(finding.of),
            Number(finding.share, "n/a" if finding.share is None else f"{finding.share:.1%}"),
            ", ".join(map(str, finding.first)),
        )
        for finding in findings
    ]
    columns = [text("check"), Column("rows"), Column("of"), Column("share"), text("first rows", optional=True)]
    captions = [f"{finding.what}: {finding.advice}" for finding in findings if finding.advice]
    return Section("Checks", columns, rows, [*captions, "Rows are numbered as in the source, from 0."])


def as_text(source: DataSource, summary: Summary, findings: Sequence[Finding], form: Format) -> str:
    """The same for a pipe; as CSV and Markdown the checks alone.

    Args:
        source, summary, findings: of the set.
        form: any format but `table`.
    """
    if form is not Format.JSON:
        return section_text(checks_section(findings), form)
    checks = [{**asdict(finding), "share": finding.share} for finding in findings]
    return inert_json(json.dumps({"path": source.path, **asdict(summary), "checks": checks}, indent=1))
