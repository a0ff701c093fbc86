"""Which base model is meant: found on disk or on the hub, and hashed, without loading it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.errors import ModelError
from align_bench.models.adapters import CONFIG as ADAPTER_CONFIG
from align_bench.models.adapters import config_of, is_adapter, merged_folder, read_adapter
from align_bench.models.exported import read_note
from align_bench.models.headers import check_gguf, json_object
from align_bench.models.positions import gguf_limit, position_limit
from align_bench.models.weights import weight_shapes
from align_bench.records import Json, TemplateInputs
from align_bench.store.remembered import Remembered

if TYPE_CHECKING:
    from align_bench.models.adapters import Adapter
    from align_bench.models.positions import PositionLimit

EMBEDDED = {"embedded/tiny": Path(__file__).parent / "tiny"}
# Never pickles: weights are safetensors (or GGUF), the rest is text. Chat templates are *.jinja or a key of *.json.
_WEIGHTS = "*.safetensors"
_WANTED = [_WEIGHTS, "*.json", "*.jinja", "*.txt", "*.model", "additional_chat_templates/*.jinja"]

_TEMPLATES = ["chat_template.jinja", "tokenizer_config.json", "chat_template.json", "additional_chat_templates/*.jinja"]
DEFAULT_DATE = "2026-01-01"  # for every run and every judge that says no other
_ASKS_FOR_THE_DATE = b"strftime_now"
_METADATA_BYTES = 1 << 25
_BASES = "give a folder, a .gguf file, a hub id, or embedded/tiny"
_JUDGES = "give gold, {method: rm, data: …} to train one, or the folder or hub id of a reward model"

# From a file to a hash of its bytes.
Digest = Callable[[Path], str]


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on disk.

    Attributes:
        name: as the suite calls it.
        folder: the folder that holds it.
        gguf: file name in `folder` when it is a GGUF file.
        digest: hash of its weights, configuration, tokenizer and template; a hub model's commit.
        role: what it is loaded as, for messages.
        below: the base that the adapter of a judge or of a start stands on; None for a whole model.
    """

    name: str
    folder: Path
    gguf: str | None
    digest: str
    role: str = "base"
    below: Base | None = None

    @property
    def vocabulary(self) -> int | None:
        """How many tokens its configuration says that it knows; None where it does not, as of a GGUF file."""
        found = self._config()
        size = found.get("vocab_size") or _of_texts(found).get("vocab_size")
        return size if isinstance(size, int) else None

    @property
    def positions(self) -> PositionLimit | None:
        """The longest sequence that it can read; None where configuration or GGUF metadata give no limit."""
        return gguf_limit(_head(self.folder / self.gguf)) if self.gguf else position_limit(self._config())

    @property
    def end_token(self) -> int | None:
        """The id that its configuration names as the end of a text, the first of several; None without one."""
        found = self._config()
        end = found.get("eos_token_id") or _of_texts(found).get("eos_token_id")
        first = end[0] if isinstance(end, list) and end else end
        return first if isinstance(first, int) else None

    def _config(self) -> Mapping[str, Json]:
        """Its config.json, or that of the base that it stands on; empty where it has none."""
        found: Mapping[str, Json] = self.below._config() if self.below is not None else config_of(self.folder)
        return found

    @property
    def has_weights(self) -> bool:
        """Whether its weights are at hand; `find_base` asks for them unless it is told not to."""
        return self.gguf is not None or any(self.folder.glob(_WEIGHTS))

    @property
    def texts(self) -> Base:
        """Whose tokenizer and template write texts: an adapter's own where it brings them, else those of its base."""
        return self if self.below is None or any(self.folder.glob("tokenizer*")) else self.below

    @property
    def hub_id(self) -> str | None:
        """A hub model's id without its revision; None for a folder, a file, and the embedded model."""
        # What `find_base` fetched lies in a snapshot, which is named after its commit.
        fetched = self.gguf is None and self.folder.name == self.digest and not Path(self.name).exists()
        return self.name.partition("@")[0] if fetched else None

    @property
    def place(self) -> str:
        """What `find_base` finds it by from anywhere: a hub id at its commit, or an absolute path."""
        if self.name in EMBEDDED:
            return self.name
        if self.hub_id is not None:
            return f"{self.hub_id}@{self.digest}"
        return str((self.folder / self.gguf if self.gguf else self.folder).resolve())


def _of_texts(config: Mapping[str, Json]) -> Mapping[str, Json]:
    """The part of a configuration that is about texts, where a model reads more than these."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else {}


def find_base(name: str, *, role: str = "base", digest: Digest | None = None, weights: bool = True) -> Base:
    """Locate a base model; a hub id is fetched (or found in the cache) and pinned to its commit.

    An adapter is added to the base that it names, once, in a folder of the user's cache; that of a judge, or of what a
    method starts from, stays one.

    Args:
        name: `embedded/tiny`, a folder, a `.gguf` file, a hub id, or `hub-id@commit`.
        role: what it is loaded as: `base`, `judge` or `start_from`.
        digest: hashes one file; by default one that remembers large files.
        weights: whether a folder has to hold them. Without, its configuration and its tokenizer are enough, as for a
            plan; the digest of such a base names no artefact that a run would make.

    Raises:
        ModelError: when there is no such model, it has no safetensors weights, or it is an adapter whose base is
            missing.
    """
    digest = digest or Remembered().digest
    found = _found(name, role, digest, weights=weights)
    if found.gguf or not is_adapter(found.folder):
        return found
    adapter = read_adapter(found.folder)
    below = base_below(found, adapter, digest)
    if role in ("judge", "start_from"):
        both = hashlib.sha256(f"{found.digest}:{below.digest}".encode()).hexdigest()
        return replace(found, below=below, digest=both)
    return _in_folder(name, merged_folder(found, below), role, digest)


def base_below(found: Base, adapter: Adapter, digest: Digest) -> Base:
    """The base that an adapter stands on.

    Raises:
        ModelError: it is not there, or is not the one that an exported adapter was trained on.
    """
    try:
        below = find_base(adapter.base, role=f"{found.role} {found.name!r}: its base", digest=digest)
    except ModelError as error:
        raise ModelError(
            f"{found.role} {found.name!r} is an adapter on {adapter.base!r}, which cannot be had: {error.message}",
            fix=f"bring that base back, or write where it is into {adapter.folder / ADAPTER_CONFIG}, as "
            "base_model_name_or_path",
        ) from None
    note = read_note(found.folder)
    if note is not None and below.digest != note.base_digest:
        raise ModelError(
            f"{found.role} {found.name!r}: its base {note.base} has changed since the adapter was trained on it",
            fix="bring back that base, or export the model with --merge",
        )
    return below


def _found(name: str, role: str, digest: Digest, *, weights: bool) -> Base:
    """What the name means, an adapter as it is."""
    if name in EMBEDDED:
        return _in_folder(name, EMBEDDED[name], role, digest)
    try:
        path = Path(name).expanduser()
        there = path.exists()
    except (OSError, RuntimeError) as error:  # too long; or the folder of a user who is not there
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{role} {name[:100]!r} does not exist: {reason}") from None
    if path.is_dir():
        return _in_folder(name, path, role, digest, weights=weights)
    if there and not path.is_file():
        raise ModelError(f"{role} {name!r}: got a pipe, socket or device, expected a folder or a .gguf file")
    if there:
        if path.suffix != ".gguf":
            raise ModelError(f"{role} {name!r}: got a {path.suffix or 'plain'} file, expected a folder or a .gguf file")
        check_gguf(path)
        return Base(name, path.parent, path.name, digest(path), role)
    if path.is_absolute() or name.startswith(("~", ".")) or name.count("/") != 1 or path.suffix == ".gguf":
        raise ModelError(f"{role} {name!r} does not exist", fix=_JUDGES if role == "judge" else _BASES)
    return _from_hub(name, role, weights=weights)


def template_inputs(base: Base, kwargs: Mapping[str, Json] | None = None, date: str | None = None) -> TemplateInputs:
    """What the model's chat template reads beside the turns.

    The clock is never asked: a template that writes today's date (`strftime_now`) would make other prompts, and so
    other scores, on another day.

    Args:
        base: the model.
        kwargs: the suite's `chat_template_kwargs`.
        date: the suite's `date`, as 2026-01-01; `DEFAULT_DATE` when None.

    Returns:
        The inputs, with a date where a template asks for one. It is looked for in the text, so that a template which
        asks and does not use it counts as one that does.
    """
    base = base.texts
    places = (
        [base.folder / base.gguf] if base.gguf else [path for name in _TEMPLATES for path in base.folder.glob(name)]
    )
    asks = any(_ASKS_FOR_THE_DATE in _head(path) for path in places)
    return TemplateInputs(kwargs or {}, (date or DEFAULT_DATE) if asks else None)


def _head(path: Path) -> bytes:
    """A template's file; of a GGUF file its beginning, where its metadata stands."""
    with path.open("rb") as stream:
        return stream.read(_METADATA_BYTES)


def base_parameters(base: Base) -> int:
    """How many parameters the base has, read from the headers of its weight files.

    Returns:
        The count; for a GGUF file, an estimate from its size at 4.5 bits a weight; without weights, that of a model of
        its configuration.

    Raises:
        ModelError: there are no weights, and the library makes no model of its configuration.
    """
    if base.gguf:
        return int((base.folder / base.gguf).stat().st_size * 8 / 4.5)
    if not base.has_weights:
        return _configured_parameters(base.folder)
    return sum(prod(shape) for path in base.folder.glob("*.safetensors") for shape in weight_shapes(path).values())


def _configured_parameters(folder: Path) -> int:
    """The parameters of a model that is laid out and not filled; tied ones count once, as in weight files."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder}: no weights, and no model can be laid out by its config.json: {error}",
            fix="give the whole model folder",
        ) from None
    return sum(parameter.numel() for parameter in model.parameters())


def _from_hub(name: str, role: str, *, weights: bool) -> Base:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        wanted = _WANTED if weights else [pattern for pattern in _WANTED if pattern != _WEIGHTS]
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{role} {name!r} is neither a local path nor a hub model that can be fetched: {reason}",
            fix="check the name and the network, or give a local folder",
        ) from None
    return Base(name, folder, None, folder.name, role)  # the snapshot's folder is named after its commit


def _in_folder(name: str, folder: Path, role: str, digest: Digest, *, weights: bool = True) -> Base:
    if not (is_adapter(folder) or (folder / "config.json").is_file()):
        raise ModelError(f"{role} {name!r}: {folder} holds no config.json", fix="give a Hugging Face model folder")
    files = sorted({path for pattern in _WANTED for path in folder.glob(pattern)})
    if weights and not any(path.suffix == ".safetensors" for path in files):
        raise ModelError(
            f"{role} {name!r}: {folder} holds no .safetensors weights", fix="convert them with save_pretrained"
        )
    if odd := [path for path in files if not path.is_file()]:
        raise ModelError(f"{role} {name!r}: {odd[0]} is no regular file", fix="give a Hugging Face model folder")
    for path in (folder / "config.json", folder / "tokenizer_config.json"):
        if path.exists():
            json_object(path)
    for path in files:
        if path.suffix == ".safetensors":
            weight_shapes(path)
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.relative_to(folder).as_posix()}:{digest(path)}\n".encode())
    return Base(name, folder, None, whole.hexdigest(), role)
