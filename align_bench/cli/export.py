"""The command that takes a trained model out of a suite: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from align_bench.cli.app import (
    Overrides,
    Plugins,
    Quick,
    Reports,
    Runs,
    SuiteName,
    Trust,
    app,
    command,
    console,
    errors,
    prepared_for,
)


@app.command()
def export(
    suite: SuiteName,
    cell: Annotated[
        str, typer.Argument(metavar="CELL", help="A trained cell, as tables name it: dpo, 'dpo#1', rm, judge.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write; new, or empty.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="Write the whole model, with the adapter merged into its base.")
    ] = False,
    gguf: Annotated[
        bool,
        typer.Option(
            "--gguf", help="With --merge: also write model.gguf for llama.cpp; Llama and Qwen2, byte-level BPE."
        ),
    ] = False,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="NAME", help="The hub's name of a licence, such as apache-2.0.")
    ] = None,
    overrides: Overrides = None,
    plugin: Plugins = None,
    trust: Trust = False,
    quick: Quick = False,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
) -> None:
    """Export a trained model: adapter or merged model, tokenizer, generation config, and a model card.

    What was written is loaded again with plain transformers and peft, and scores 50 stored answers: the difference from
    what the suite measured is printed and written to the card. Where it is more than rounding, nothing is kept. The
    folder of a reward model is a judge: align-bench score FILE --judge DIR, or judge: DIR in a suite.

    Example: align-bench export assignment orpo --out orpo-model --merge
    """
    prepared = prepared_for(suite, overrides, plugin, quick=quick, trust=trust)
    from align_bench.export.choose import choose
    from align_bench.export.export import Wanted, check_target
    from align_bench.export.export import export as export_cell

    check_target(out)

    chosen = choose(prepared, cell, runs=runs, reports=reports)
    from align_bench.cli.progress import progress_bars

    with progress_bars(errors, {}) as progress, progress.stage(str(chosen.cell.id), "proof") as update:
        proofs = export_cell(chosen, Wanted(out, merge, gguf, licence, command()), update)
    for proof, what in zip(proofs, ("", "model.gguf: "), strict=False):
        console.print(f"{what}{escape(str(proof))}", highlight=False)
    console.print(f"written: {escape(str(out))} (its README.md is the model card)", highlight=False)
