"""The files of an exported model: an adapter or a merged model, its tokenizer, and how it answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_bench.models.compute import compute_dtype
from align_bench.models.load import load_adapter, load_policy, load_scorer, load_tokenizer
from align_bench.store.files import write_atomically

if TYPE_CHECKING:
    from align_bench.models.base import Base
    from align_bench.models.precision import Precision
    from align_bench.suite.models import Generate

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def write_adapter(stored: Path, folder: Path, base: Base) -> None:
    """Copy a stored adapter, and say in its configuration which base it stands on.

    Args:
        stored: its folder in the store.
        folder: where to write.
        base: what it was trained on. A hub model is named by its id and commit, another one by its absolute path.
    """
    for name in ADAPTER:
        shutil.copyfile(stored / name, folder / name)
    repository = base.hub_id
    config = json.loads((folder / ADAPTER[0]).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = repository or str(base.folder.resolve())
    config["revision"] = base.digest if repository else None
    write_atomically(folder / ADAPTER[0], json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_merged(stored: Path, folder: Path, base: Base, precision: Precision, *, scalar: bool) -> None:
    """Add an adapter to its base's weights, in fp32, and write the whole model in the type that computes.

    A base in NF4 is dequantised first: the adapter was trained on these weights, not on those that were quantised.

    Args:
        stored: the adapter's folder in the store.
        folder: where to write.
        base: what it was trained on.
        precision: how the base was stored and computed with.
        scalar: whether it is a reward model, with a scalar head, which stays in fp32.
    """
    model = (load_scorer if scalar else load_policy)(base, precision)
    if any(getattr(weight, "quant_state", None) is not None for weight in model.parameters()):
        model = model.dequantize(compute_dtype(precision))
    model = load_adapter(model.to("cpu").float(), stored)
    model = model.merge_and_unload(safe_merge=True)
    head = model.score.weight.clone() if scalar else None
    model.to(compute_dtype(precision))
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.use_cache = True
    if head is not None:
        model.score.float().weight.data.copy_(head)
        config.get_text_config().pad_token_id = padding(base, load_tokenizer(base))
    model.save_pretrained(folder)


def write_rest(folder: Path, base: Base, generate: Generate | None) -> None:
    """Write the base's tokenizer, and for a policy how it answered in the suite.

    Args:
        folder: where to write.
        base: what it was trained on.
        generate: the suite's `generate`; None for a reward model.
    """
    tokenizer = load_tokenizer(base)
    tokenizer.save_pretrained(folder)
    if generate is not None:
        _generation_config(base, tokenizer, generate).save_pretrained(folder)


def _generation_config(base: Base, tokenizer: Any, generate: Generate) -> Any:
    """What the suite generated with, and nothing of the base's own but its special tokens."""
    from transformers import GenerationConfig

    sampling = {"do_sample": True, "temperature": generate.temperature, "top_k": 0, "top_p": 1.0}
    return GenerationConfig(
        max_new_tokens=generate.max_new_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=sorted(_ends(base, tokenizer)),
        pad_token_id=tokenizer.pad_token_id,
        **(sampling if generate.temperature else {"do_sample": False}),
    )


def _ends(base: Base, tokenizer: Any) -> frozenset[int]:
    """`models.load.generation_ends`, of a base that is not loaded."""
    from transformers import AutoConfig, GenerationConfig

    try:
        known = GenerationConfig.from_pretrained(base.folder)
    except OSError:  # it has none
        gguf = {"gguf_file": base.gguf} if base.gguf else {}
        known = GenerationConfig.from_model_config(AutoConfig.from_pretrained(base.folder, **gguf))
    configured = known.eos_token_id if isinstance(known.eos_token_id, list) else [known.eos_token_id]
    return frozenset({tokenizer.eos_token_id, *(token for token in configured if token is not None)})


def padding(base: Base, tokenizer: Any) -> int | None:
    """What a reward model's configuration may call padding; None where that token also ends an answer.

    transformers reads the score at the last token that is not padding, which would then be the one before the end.
    """
    return None if tokenizer.pad_token_id in _ends(base, tokenizer) else int(tokenizer.pad_token_id)
