"""Adapter folders, of peft, TRL or a cell of a run: what they stand on, and the whole model that both make."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_bench.errors import ModelError
from align_bench.models.exported import read_note
from align_bench.models.headers import json_object
from align_bench.models.weights import weight_shapes
from align_bench.store.files import as_store_error
from align_bench.store.remembered import cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from align_bench.models.base import Base

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_HEADS = ("score.", "classifier.")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "lm_head.weight")


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter's folder says of it.

    Attributes:
        folder: where it is.
        base: the name or the folder of the model that it stands on, as `find_base` takes it.
        head: the weights of a scalar or classification head that it brings: name in the model → shape.
        vocabulary: the rows of the input embeddings that it brings; None where it brings none.
    """

    folder: Path
    base: str
    head: Mapping[str, tuple[int, ...]]
    vocabulary: int | None


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def read_adapter(folder: Path) -> Adapter:
    """What an adapter's folder says of it, read without loading it.

    Raises:
        ModelError: its weights are missing, or it names no base.
    """
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"{folder} holds an adapter without {WEIGHTS}", fix="save it with save_pretrained, as safetensors"
        )
    note = read_note(folder)
    config = json_object(folder / CONFIG)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if note is not None:
        base = note.base
    elif isinstance(base, str) and base and revision and not Path(base).expanduser().exists():
        base = f"{base}@{revision}"
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"{folder / CONFIG} does not say which base the adapter stands on",
            fix="write the base's hub id or folder there, as base_model_name_or_path",
        )
    shapes = {name.removeprefix("base_model.model."): shape for name, shape in weight_shapes(folder / WEIGHTS).items()}
    head = {name: tuple(shape) for name, shape in shapes.items() if name.startswith(_HEADS)}
    rows = [shape[0] for name, shape in shapes.items() if name.endswith(_EMBEDDINGS) and shape]
    return Adapter(folder, str(base), head, max(rows, default=None))


def merged_folder(base: Base, below: Base) -> Path:
    """The whole model that an adapter and its base make, as a folder of the user's cache; made once, in fp32.

    Args:
        base: the adapter of a causal language model.
        below: the base that it stands on.

    Raises:
        ModelError: it is a reward model's adapter, or of a kind that cannot be added to the base's weights.
    """
    adapter = read_adapter(base.folder)
    if adapter.head:
        raise ModelError(
            f"{adapter.folder} is the adapter of a reward model ({', '.join(sorted(adapter.head))}), which writes no "
            "answers",
            fix=f"give the adapter of a policy, or its base, {below.name}; as a judge, the adapter can be used",
        )
    key = hashlib.sha256(f"{base.digest}:{below.digest}".encode()).hexdigest()[:32]
    folder = (cache_folder() or Path(tempfile.gettempdir()) / "align-bench") / "merged" / key
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        from align_bench.models.merge import write_whole

        with as_store_error(folder, no_room=True):
            write_whole(replace(base, below=below), Path(made) / key)
        try:
            (Path(made) / key).replace(folder)
        except OSError:  # another process made the same meanwhile
            if not folder.is_dir():
                raise
    return folder


def config_of(folder: Path) -> Any:
    """What a folder's config.json holds; empty where it has none."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
