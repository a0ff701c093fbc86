"""The command that pushes an exported model or a report to the Hugging Face hub: publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from align_bench.cli.app import app, console
from align_bench.report.formatting import size


@app.command()
def publish(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that export wrote, or a report's folder, reports/SUITE.")
    ],
    repo: Annotated[str, typer.Option("--repo", metavar="NAME", help="Its name on the hub: NAME, or OWNER/NAME.")],
    private: Annotated[bool, typer.Option("--private/--public", help="Make a new repository private.")] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Push without asking.")] = False,
) -> None:
    """Push an exported model, or a report, to the Hugging Face hub; nothing is sent before you say yes.

    A model becomes a model repository, a report a dataset repository. Token and endpoint are those of huggingface_hub:
    hf auth login or HF_TOKEN, and HF_ENDPOINT.

    Example: align-bench publish orpo-model --repo me/orpo-model
    """
    from align_bench.export.publish import plan_upload, push

    upload = plan_upload(folder, repo)
    whose = "private" if private else "public"
    what = f"{upload.files} files, {size(upload.size_bytes)}, to the {upload.kind} repository {repo}"
    console.print(f"{escape(what)} (if it is new, {whose})", highlight=False)
    if upload.warning:
        console.print(f"[yellow]others cannot load it:[/] {escape(upload.warning)}", highlight=False)
    if not (yes or typer.confirm("Push it?")):
        raise typer.Exit(1)
    console.print(f"pushed: {escape(push(upload, repo, private=private))}", highlight=False)
