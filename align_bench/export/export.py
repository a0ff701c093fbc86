"""Take a cell home: its adapter or its merged model with all that it needs, proven and described, in one folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from align_bench.errors import ModelError, StoreError
from align_bench.export.card import Provenance, write_card
from align_bench.export.proof import Proof, plain_model, prove, stored_answers
from align_bench.export.weights import write_adapter, write_merged, write_rest
from align_bench.models.exported import Exported, write_note
from align_bench.models.load import load_tokenizer
from align_bench.models.quiet import quiet
from align_bench.store.files import as_store_error, make_folder, sync_folder

if TYPE_CHECKING:
    from align_bench.export.choose import Chosen
    from align_bench.records import Update


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to write.

    Attributes:
        out: the folder, which is made.
        merge: a whole model instead of an adapter.
        gguf: beside a merged policy, the same as a GGUF file.
        licence: the hub's name of a licence, for the card; None where it is not known.
        command: what the user typed, for the card.
    """

    out: Path
    merge: bool
    gguf: bool
    licence: str | None
    command: str


def export(chosen: Chosen, wanted: Wanted, update: Update) -> list[Proof]:
    """Write a cell's model, score stored answers with what was written, and keep it if they agree.

    Args:
        chosen: the cell.
        wanted: what to write.
        update: progress, in answers.

    Returns:
        One for the folder's own weights, and one for its GGUF file.

    Raises:
        StoreError: the folder is not empty or cannot be written.
        ModelError: the model cannot be written in this form or loaded again, or is not the one that was measured.
            Nothing is left then.
    """
    frozen, cell, suite = chosen.frozen, chosen.cell, chosen.prepared.suite
    base, precision = frozen.base, frozen.precision
    scalar = cell.kind == "reward"
    _check_form(chosen, wanted)
    note = Exported(
        kind="reward" if scalar else "policy",
        form="merged" if wanted.merge else "adapter",
        base=base.place,
        base_digest=base.digest,
        storage=cast("Literal['nf4', 'bf16', 'fp32']", precision.storage),
        dtype=precision.compute,
        max_length=suite.train.max_length,
        chat_template_kwargs=suite.chat_template_kwargs,
        date=frozen.inputs.date,
        suite_base_digest=first.digest if (first := chosen.prepared.inputs.frozen.base).digest != base.digest else None,
    )
    assert cell.adapter is not None, "`choose` refuses cells without weights"
    stored = chosen.results.artefact(cell.adapter).folder
    with quiet(), _made_whole(wanted.out) as folder:
        if wanted.merge:
            write_merged(stored, folder, base, precision, scalar=scalar)
        else:
            write_adapter(stored, folder, base)
        write_rest(folder, base, None if scalar else suite.generate)
        write_note(folder, note)
        _check_tokenizer(chosen, folder)
        some = stored_answers(chosen)
        proofs = [prove(plain_model(folder, note, base, precision), note, some, update)]
        if wanted.gguf:
            from align_bench.export.gguf import FILE, write_gguf

            write_gguf(folder)
            proofs.append(prove(plain_model(folder, note, base, precision, gguf=FILE), note, some, update))
        write_card(folder, chosen, note, proofs, Provenance(wanted.command, wanted.licence))
    return proofs


def _check_form(chosen: Chosen, wanted: Wanted) -> None:
    """Refuse what cannot be written in the form that is wanted."""
    frozen, cell = chosen.frozen, chosen.cell
    if wanted.gguf and not (wanted.merge and cell.kind == "policy"):
        raise ModelError(
            "--gguf writes a merged policy" if cell.kind == "policy" else f"--gguf: {cell.id} has a scalar head",
            fix="add --merge" if cell.kind == "policy" else "leave --gguf out: llama.cpp reads no such head",
        )
    if frozen.base.gguf and frozen.precision.storage == "nf4" and not wanted.merge:
        raise ModelError(
            f"{cell.id} was trained on {frozen.base.name} in NF4; peft cannot put its adapter on a GGUF file in NF4",
            fix="export it with --merge",
        )


def _check_tokenizer(chosen: Chosen, folder: Path) -> None:
    """Hold the exported tokenizer, with its template, to the tokens that the cell was trained and measured on."""
    from dataclasses import replace

    from align_bench.data.chat import tokenize

    frozen, suite = chosen.frozen, chosen.prepared.suite
    texts = chosen.results.preferences(chosen.prepared.inputs.rows["val"])
    known = {row.pair: row for row in chosen.results.load(chosen.graph.tables["val"]).rows}
    some = [row for row in texts.rows if row.pair in known][:50]
    tokenizer = load_tokenizer(replace(frozen.base, folder=folder, gguf=None), frozen.inputs)
    found = tokenize(tokenizer, replace(texts, rows=tuple(some)), max_length=suite.train.max_length)
    if [known[row.pair] for row in some] != list(found.rows):
        raise ModelError(
            "the exported tokenizer writes other tokens than the base's. Nothing was written",
            fix="report it with the suite's base",
        )


def check_target(out: Path) -> None:
    """Hold the folder that an export is to write to being new, or empty.

    Raises:
        StoreError: it is a file, or a folder that is not empty.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise StoreError(f"{out} exists and is not empty", fix="name another folder with --out")


@contextmanager
def _made_whole(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` that takes its place when the block ends without an error, and is gone otherwise.

    Raises:
        StoreError: `out` is a file or a folder that is not empty, or cannot be written.
    """
    check_target(out)
    make_folder(out.absolute().parent)
    folder = out.absolute().with_name(f".{out.absolute().name[:50]}.{os.getpid()}.tmp")
    with as_store_error(out):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    try:
        yield folder
        with as_store_error(out):
            if out.exists():
                out.rmdir()
            folder.rename(out)
            sync_folder(out.absolute().parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
