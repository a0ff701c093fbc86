"""What `align-bench export` writes beside the weights: how the model was made, and so how it is read again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue, TypeAdapter, ValidationError

from align_bench.errors import ModelError
from align_bench.store.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

NOTE, CARD = "align_bench.json", "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The note of an exported model.

    Attributes:
        kind: a reward model has a scalar head.
        form: `adapter`: weights that stand on the base; `merged`: a whole model.
        base: what it was trained on: a hub id at its commit, or the absolute path of a folder or file.
        base_digest: hash of the base's files; a hub model's commit.
        suite_base_digest: the same of the suite's base, where training began with another whole model; None where that
            is the base.
        storage: how the base was stored while it was trained: `nf4`, `bf16` or `fp32`.
        dtype: of the weights of a merged model, and of activations: `float32` or `bfloat16`.
        max_length: tokens of prompt + answer, as in training.
        chat_template_kwargs, date: what the chat template read beside the turns.
        version: of this note.
    """

    kind: Literal["reward", "policy"]
    form: Literal["adapter", "merged"]
    base: str
    base_digest: str
    storage: Literal["nf4", "bf16", "fp32"]
    dtype: Literal["float32", "bfloat16"]
    max_length: int
    chat_template_kwargs: dict[str, JsonValue] = field(default_factory=dict)
    date: str | None = None
    suite_base_digest: str | None = None
    version: Literal[1] = 1


def stands_on(note: Exported, digest: str) -> bool:
    """Whether a base of that digest is what the model was trained on, or what that was trained on before."""
    return digest in (note.base_digest, note.suite_base_digest)


def write_note(folder: Path, note: Exported) -> None:
    """Write the note of an exported model into its folder."""
    write_atomically(folder / NOTE, json.dumps(asdict(note), indent=2) + "\n")


def read_note(folder: Path) -> Exported | None:
    """The note of an exported model; None where the folder has none.

    Raises:
        ModelError: it is damaged, or of another version.
    """
    path = folder / NOTE
    if not path.is_file():
        return None
    try:
        return TypeAdapter(Exported).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "the file"
        raise ModelError(
            f"{path}: {where}: {first['msg']}", fix="export the model again, with this version of align-bench"
        ) from None
