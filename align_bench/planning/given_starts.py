"""Adapters and models that were trained elsewhere, as starts: found, and held to the suite's base and adapters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.errors import ModelError, SuiteError, nearest
from align_bench.models.adapters import CONFIG, config_of, read_adapter
from align_bench.models.base import find_base
from align_bench.models.exported import read_note, stands_on
from align_bench.models.headers import json_object
from align_bench.models.weights import weight_shapes
from align_bench.planning.starts import Names
from align_bench.planning.variants import named_variants
from align_bench.stages.given_adapter import GivenAdapter
from align_bench.stages.models import Frozen, Policy
from align_bench.suite.names import BASE_CELL, PlacedText

if TYPE_CHECKING:
    from align_bench.models.base import Base
    from align_bench.plugins.registry import Registry
    from align_bench.records import Json
    from align_bench.suite.models import Lora, Suite

ROLE = "start_from"
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # in nearly all architectures
_SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_TOKENIZER = "tokenizer.json"


def given_starts(suite: Suite, registry: Registry, frozen: Frozen) -> dict[str, Policy]:
    """What `start_from` names beside the suite's own cells: the text of the suite → the policy.

    Args:
        suite: the suite.
        registry: the methods.
        frozen: the suite's base.

    Raises:
        SuiteError: it is no cell and no folder, or does not fit the suite.
        ModelError: the adapter or the model cannot be found or read.
    """
    named = [value for method in suite.methods for value in method.grid.get("start_from", ())]
    values = {value for value in named if isinstance(value, str) and value not in ("", BASE_CELL)}
    if not values:
        return {}
    names = Names(named_variants(suite, registry))
    return {
        value: _policy(value, suite.lora, frozen, names.exact)
        for value in sorted(values)
        if names.find(value, f"methods: {ROLE}") is None
    }


def _policy(value: str, lora: Lora, frozen: Frozen, cells: Iterable[str]) -> Policy:
    place = value.place if isinstance(value, PlacedText) else value
    if "/" not in value and not Path(value).exists():
        raise SuiteError(
            f"methods: {ROLE}: got {value!r}, which is no cell of this suite and no folder. "
            + nearest(value, cells, what="cell"),
            fix="name a cell of the suite, or give the folder of an adapter or a model",
        )
    try:
        found = find_base(place, role=ROLE)
    except ModelError as error:
        if _is_there(place):
            raise
        hub = f"; as a model of the hub, {error.message}" if _may_be_on_hub(place) else ""
        raise SuiteError(
            f"methods: {ROLE}: the folder {str(value)!r} does not exist, neither here nor beside the suite{hub}",
            fix="give the folder of an adapter or a model as it lies now; one that was moved has another path",
        ) from None
    if found.below is None:
        _hold_model(found, frozen.base)
        return Policy(Frozen(found, frozen.precision, frozen.inputs))
    on = frozen
    if (note := read_note(found.folder)) is not None and note.suite_base_digest == frozen.base.digest:
        on = Frozen(found.below, frozen.precision, frozen.inputs)  # a model that its training began with
        _hold_model(found.below, frozen.base)
    _hold_adapter(found, found.below, on.base, lora)
    return Policy(on, GivenAdapter(owner=str(value), adapter=found, frozen=on))


def _is_there(place: str) -> bool:
    try:
        return Path(place).expanduser().exists()
    except (OSError, RuntimeError):  # too long; or the folder of a user who is not there
        return False


def _may_be_on_hub(place: str) -> bool:
    return place.count("/") == 1 and not place.startswith(("/", "~", "."))


def _hold_adapter(found: Base, below: Base, base: Base, lora: Lora) -> None:
    """Refuse an adapter of another base, of a reward model, or of another kind or shape than the suite's."""
    where = f"methods: {ROLE}: {found.name}"
    if below.digest != base.digest:
        raise SuiteError(
            f"{where}: the adapter stands on {below.name} (files: {below.digest[:12]}), expected the suite's base "
            f"{base.name} (files: {base.digest[:12]})",
            fix=f"set base: {below.name}, or start from an adapter on {base.name}",
        )
    adapter = read_adapter(found.folder)
    if adapter.head:
        raise SuiteError(
            f"{where}: got the adapter of a reward model, expected a policy's", fix="give the adapter of a policy"
        )
    if adapter.vocabulary is not None:
        raise SuiteError(
            f"{where}: the adapter brings embeddings of its own, expected low-rank factors alone",
            fix="merge it into its base, and give the folder of that model",
        )
    config = json_object(found.folder / CONFIG)
    for key, wanted, got in _differences(config, lora):
        raise SuiteError(
            f"{where}: got {key} = {got} in its {CONFIG}, expected {wanted}, as the suite has it: an adapter that is "
            "started from is trained on, so both have one shape",
            fix=_mend(key, got),
        )
    if lora.target_modules == "all-linear" and not base.gguf and (left := sorted(_untouched(found, base))):
        raise SuiteError(
            f"{where}: the adapter has no factors for {', '.join(left)}, expected all linear layers, as the suite's "
            "lora.target_modules: all-linear has it",
            fix=f"set lora.target_modules: {_shown(sorted(_adapted(found)))}",
        )


def _differences(config: Mapping[str, Json], lora: Lora) -> Iterator[tuple[str, Json, Json]]:
    """What an adapter has otherwise than the suite's: key of its configuration, what is wanted, what is there."""
    plain: dict[str, Json] = {"peft_type": "LORA", "r": lora.r, "lora_alpha": lora.alpha, "bias": "none"}
    for key, wanted in plain.items():
        if (got := config.get(key, wanted)) != wanted:
            yield key, wanted, got
    for key in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "layers_to_transform"):
        if got := config.get(key):
            yield key, None, got
    modules = config.get("target_modules")
    if isinstance(modules, list) and isinstance(lora.target_modules, list):
        own, others = _last_names(lora.target_modules), _last_names(map(str, modules))
        if own != others:
            yield "target_modules", [*own], [*others]


def _mend(key: str, got: Json) -> str:
    own = {"r": "lora.r", "lora_alpha": "lora.alpha", "target_modules": "lora.target_modules"}
    if key in own:
        return f"set {own[key]}: {_shown(got)}, or train the adapter in the shape of the suite's"
    return "merge it into its base (align-bench does so for base:), and give the folder of that model"


def _last_names(modules: Iterable[str]) -> list[str]:
    """`q_proj` of `model.layers.0.self_attn.q_proj`, as peft saves the modules of `all-linear`."""
    return sorted({module.rpartition(".")[2] for module in modules})


def _shown(value: Json) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _untouched(found: Base, base: Base) -> set[str]:
    """Names of linear layers of the base that an adapter leaves as they are."""
    layers, adapted = set(_last_names(name.removesuffix(".weight") for name in _names(base))), _adapted(found)
    return {name for name in _LINEAR if name in layers and name not in adapted}


def _adapted(found: Base) -> set[str]:
    """Names of the layers that an adapter has factors for."""
    return set(_last_names(name.split(".lora_")[0] for name in _names(found)))


def _names(model: Base) -> set[str]:
    return {name for path in model.folder.glob("*.safetensors") for name in weight_shapes(path)}


def _hold_model(found: Base, base: Base) -> None:
    """Refuse a whole model that is none of the base's: of another shape, or with another tokenizer."""
    where = f"methods: {ROLE}: {found.name}"
    note = read_note(found.folder)
    if note is not None and note.kind == "reward":
        raise SuiteError(f"{where}: got a reward model, expected a policy", fix="give the folder of a policy")
    if note is not None and not stands_on(note, base.digest):
        raise SuiteError(
            f"{where}: it was trained on {note.base} (files: {note.base_digest[:12]}), expected the suite's base "
            f"{base.name} (files: {base.digest[:12]})",
            fix=f"set base: {note.base}, or give a model that was trained on {base.name}",
        )
    if found.gguf:
        raise SuiteError(f"{where}: got a GGUF file, expected the folder of a model", fix="give its safetensors")
    own, others = config_of(found.folder), config_of(base.folder)
    for key in _SHAPE if others else ():
        if own.get(key) != others.get(key):
            raise SuiteError(
                f"{where}: got {key} = {own.get(key)} in its config.json, expected {others.get(key)}, as the base "
                f"{base.name} has it",
                fix="start from a model that was trained on the suite's base, or set base to this one's",
            )
    if not (found.folder / _TOKENIZER).is_file():
        raise ModelError(f"{where}: it has no {_TOKENIZER}", fix="save the base's tokenizer beside its weights")
    if (base.folder / _TOKENIZER).is_file() and _vocabulary(found) != _vocabulary(base):
        raise SuiteError(
            f"{where}: its tokenizer is not that of the base {base.name}, and all methods read the same token ids",
            fix="save the base's tokenizer beside its weights, if it was trained with that",
        )


def _vocabulary(model: Base) -> tuple[Json, Json]:
    """Tokens with their ids, and the added ones."""
    content = json_object(model.folder / _TOKENIZER)
    inner, added = content.get("model"), content.get("added_tokens")
    tokens = inner.get("vocab") if isinstance(inner, Mapping) else None
    known = [[one.get("id"), one.get("content")] for one in added or () if isinstance(one, Mapping)]  # type: ignore[union-attr]
    return tokens, known
