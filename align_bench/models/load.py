"""Load a base model (hub id, folder or GGUF file) in NF4, bf16 or fp32, and LoRA adapters on it."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

from align_bench.errors import ModelError
from align_bench.store import file_digest
from align_bench.suite.models import Lora

EMBEDDED = {"embedded/tiny": Path(__file__).parent / "tiny"}
# Never pickles: weights are safetensors (or GGUF), the rest is text.
_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
_HEAD = "score"


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on disk.

    Attributes:
        name: as the suite calls it.
        folder: the folder that holds it.
        gguf: file name in `folder` when it is a GGUF file.
        digest: hash of its weights, configuration, tokenizer and template.
        role: what it is loaded as, for messages.
    """

    name: str
    folder: Path
    gguf: str | None
    digest: str
    role: str = "base"


@dataclass(frozen=True, slots=True)
class Precision:
    """How the frozen base is stored, and the type that computes.

    Attributes:
        storage: `nf4`, `bf16` or `fp32`.
        compute: torch type of activations.
        device: `cuda`, `mps`, `xpu` or `cpu`.
    """

    storage: str
    compute: torch.dtype
    device: str

    def __str__(self) -> str:
        return f"{self.storage}/{str(self.compute).removeprefix('torch.')}/{self.device}"


@dataclass(frozen=True, slots=True)
class Footprint:
    """What was loaded: parameter counts and the bytes that all of them take."""

    parameters: int
    trainable: int
    bytes: int


def find_base(name: str, *, role: str = "base") -> Base:
    """Locate a base model; a hub id is fetched (or found in the cache) and pinned to its commit.

    Args:
        name: `embedded/tiny`, a folder, a `.gguf` file, a hub id, or `hub-id@commit`.
        role: what it is loaded as, for messages.

    Raises:
        ModelError: when there is no such model, or it has no safetensors weights.
    """
    if name in EMBEDDED:
        return _in_folder(name, EMBEDDED[name], role)
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_folder(name, path, role)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelError(f"{role} {name!r}: got a {path.suffix or 'plain'} file, expected a folder or a .gguf file")
        return Base(name, path.parent, path.name, file_digest(path), role)
    if path.is_absolute() or name.startswith(("~", ".")) or name.count("/") != 1 or path.suffix == ".gguf":
        raise ModelError(
            f"{role} {name!r} does not exist", fix="give a folder, a .gguf file, a hub id, or embedded/tiny"
        )
    return _from_hub(name, role)


def _from_hub(name: str, role: str) -> Base:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=_WANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{role} {name!r} is neither a local path nor a hub model that can be fetched: {reason}",
            fix="check the name and the network, or give a local folder",
        ) from None
    return Base(name, folder, None, folder.name, role)  # the snapshot's folder is named after its commit


def _in_folder(name: str, folder: Path, role: str) -> Base:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{role} {name!r}: {folder} holds no config.json", fix="give a Hugging Face model folder")
    files = sorted({path for pattern in _WANTED for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelError(
            f"{role} {name!r}: {folder} holds no .safetensors weights", fix="convert them with save_pretrained"
        )
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}:{file_digest(path)}\n".encode())
    return Base(name, folder, None, digest.hexdigest(), role)


def resolve_precision(requested: str, device: str | None = None) -> Precision:
    """What `precision:` means on this machine.

    bf16 computes wherever the hardware multiplies it fast (CUDA from Ampere on; a CPU with AMX), else fp32 does: in
    bf16, a CPU with AVX-512 bf16 alone was seen to be half as fast, one without it a hundred times slower. A `bf16`
    that was asked for is obeyed.
    """
    device = device or _device()
    fast = torch.bfloat16 if _multiplies_bf16(device) else torch.float32
    storage = requested
    if requested == "auto":
        storage = "nf4" if device == "cuda" else "bf16" if fast == torch.bfloat16 else "fp32"
    compute = {"nf4": fast, "bf16": torch.bfloat16, "fp32": torch.float32}[storage]
    return Precision(storage, compute, device)


@cache
def _device() -> str:
    from accelerate import PartialState

    return str(PartialState().device.type)


@cache
def _multiplies_bf16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        return bool(torch.cpu._is_amx_tile_supported())
    return False


def load_tokenizer(base: Base) -> Any:
    """The base's own tokenizer, with a pad token (which is never scored: masks decide, not ids)."""
    from transformers import AutoTokenizer

    with clear_errors(base):
        tokenizer = AutoTokenizer.from_pretrained(
            base.folder, trust_remote_code=False, **({"gguf_file": base.gguf} if base.gguf else {})
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(f"base {base.name!r}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def generation_ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Token ids that end an answer: the tokenizer's end of sequence, and those of the base's generation_config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    more = configured if isinstance(configured, list) else [configured]
    return frozenset({tokenizer.eos_token_id, *(token for token in more if token is not None)})


def load_policy(base: Base, precision: Precision) -> Any:
    """The frozen causal language model, in evaluation mode on its device."""
    from transformers import AutoModelForCausalLM

    return _load(base, precision, AutoModelForCausalLM, {})


def load_scorer(base: Base, precision: Precision, *, seed: int = 0) -> Any:
    """The frozen backbone under a fresh scalar head, drawn from `seed`; train the head or load a trained one."""
    from transformers import AutoModelForSequenceClassification

    return draw_head(_load(base, precision, AutoModelForSequenceClassification, {"num_labels": 1}), seed=seed)


def draw_head(scorer: Any, *, seed: int) -> Any:
    """Draw a frozen scorer's scalar head anew, in place, as transformers draws one in fp32 on a CPU.

    Args:
        scorer: from `load_scorer`, without an adapter.
        seed: what decides the head, whatever the device and the precision are.
    """
    deviation = getattr(scorer.config.get_text_config(), "initializer_range", 0.02)
    weight = getattr(scorer, _HEAD).weight
    drawn = torch.empty(weight.shape).normal_(0.0, deviation, generator=torch.Generator().manual_seed(seed))
    weight.data.copy_(drawn)
    return scorer


def add_adapter(model: Any, lora: Lora, *, seed: int) -> Any:
    """Wrap a frozen base in a fresh fp32 LoRA adapter; a scalar head, where there is one, is trained with it."""
    from peft import LoraConfig, TaskType, get_peft_model

    from align_bench.models.lora import fuse

    scalar = hasattr(model, _HEAD)
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS if scalar else TaskType.CAUSAL_LM,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        modules_to_save=[_HEAD] if scalar else None,
    )
    try:
        with _quiet():
            adapted = get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(
            f"lora: {error}", fix="name modules that the base has, or use target_modules: all-linear"
        ) from None
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return fuse(adapted)


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter (and the scalar head) as safetensors, loadable by plain `PeftModel.from_pretrained`."""
    with _quiet():
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)


def load_adapter(model: Any, folder: Path) -> Any:
    """Put a saved adapter on a frozen base.

    Raises:
        ModelError: when the base has a scalar head and the adapter brings no weights for it: a head left at its random
            start would judge by chance.
    """
    from peft import PeftModel
    from safetensors import safe_open

    from align_bench.models.lora import fuse

    weights = folder / "adapter_model.safetensors"
    if not weights.is_file() or not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder} holds no adapter (adapter_config.json and adapter_model.safetensors)")
    if hasattr(model, _HEAD):
        with safe_open(weights, framework="pt") as stored:
            heads = [name for name in stored.keys() if f".{_HEAD}." in f".{name}"]  # noqa: SIM118 - not a dict
        if not any(name.endswith("weight") for name in heads):
            raise ModelError(
                f"{folder}: the reward model's scalar head ({_HEAD}.weight) is missing from the adapter",
                fix="train it again; a head that was not saved scores at random",
            )
    with _quiet():
        return fuse(PeftModel.from_pretrained(model, folder).eval())


def without_adapter(model: Any) -> Any:
    """The frozen base under an adapter, as it was before it got one; the adapted model is used up."""
    inner = model.get_base_model()
    own = getattr(inner, _HEAD).original_module if hasattr(inner, _HEAD) else None
    base = model.unload()
    if own is not None:
        setattr(base, _HEAD, own)  # peft leaves the trained head
    return base.requires_grad_(False).eval()


def footprint(model: Any) -> Footprint:
    """Parameters (4-bit ones counted unpacked), trainable parameters, and bytes in memory."""
    parameters = trainable = size = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        count = state.shape.numel() if state is not None else parameter.numel()
        parameters += count
        trainable += count if parameter.requires_grad else 0
        size += parameter.numel() * parameter.element_size()
    return Footprint(parameters, trainable, size)


def base_parameters(base: Base) -> int:
    """How many parameters the base has, read from the headers of its weight files.

    Returns:
        The count; for a GGUF file, an estimate from its size at 4.5 bits a weight.
    """
    if base.gguf:
        return int((base.folder / base.gguf).stat().st_size * 8 / 4.5)
    total = 0
    for path in base.folder.glob("*.safetensors"):
        with path.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                total += torch.Size(tensor["shape"]).numel()
    return total


def _load(base: Base, precision: Precision, loader: Any, extra: dict[str, Any]) -> Any:
    arguments: dict[str, Any] = {"trust_remote_code": False, **extra}
    arguments["dtype"] = torch.bfloat16 if precision.storage == "bf16" else precision.compute
    if precision.device == "cuda":
        # cuDNN's attention plans for each shape anew, and here nearly every batch has a shape of its own.
        torch.backends.cuda.enable_cudnn_sdp(False)
    folder = base.folder
    with clear_errors(base):
        if base.gguf:
            if precision.storage == "nf4":
                return _quantised_gguf(base, precision, loader, arguments)
            arguments["gguf_file"] = base.gguf
        else:
            arguments["use_safetensors"] = True
        if precision.storage == "nf4":
            arguments |= _nf4(precision)
        model = loader.from_pretrained(folder, **arguments)
    return _frozen(model, precision)


def _quantised_gguf(base: Base, precision: Precision, loader: Any, arguments: dict[str, Any]) -> Any:
    """GGUF weights come dequantised into a model that still counts as quantised: save a plain copy, then load that."""
    import tempfile

    marked = loader.from_pretrained(base.folder, gguf_file=base.gguf, **arguments)
    if hasattr(marked.config, "quantization_config"):
        del marked.config.quantization_config
    plain = type(marked)(marked.config).to(arguments["dtype"])
    plain.load_state_dict(marked.state_dict())
    plain.tie_weights()
    with tempfile.TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        del marked, plain
        model = loader.from_pretrained(folder, **arguments, **_nf4(precision))
    return _frozen(model, precision)


def _nf4(precision: Precision) -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precision.compute,
        llm_int8_skip_modules=["lm_head", _HEAD],
    )
    # Without a device, transformers would quantise on a GPU wherever it sees one.
    return {"quantization_config": config, "device_map": {"": precision.device}}


def _frozen(model: Any, precision: Precision) -> Any:
    from align_bench.models.decoder import fuse_layers

    if precision.storage == "nf4" and _has_room_for_plain_weights(model, precision):
        # The same numbers: bitsandbytes dequantises to the compute type before every product, forward and backward.
        with _quiet():
            model = model.dequantize(precision.compute)
    for module in model.modules():
        # On a CPU with AVX-512 bf16, bitsandbytes would repack weights in place at the first forward pass in evaluation
        # mode: rounded to bf16 whatever the compute type, and failing on layers narrower than one block of 64.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    model.requires_grad_(False)
    model.config.use_cache = False
    if precision.storage != "nf4":
        model.to(precision.device)
    if hasattr(model, _HEAD):
        getattr(model, _HEAD).float()  # like the adapter: it has few weights, and bf16 would round its scores
    return fuse_layers(model.eval())


def _has_room_for_plain_weights(model: Any, precision: Precision) -> bool:
    """Whether NF4 weights may be dequantised for good: into less than a quarter of the device's free memory."""
    if precision.device == "cpu":
        free = psutil.virtual_memory().available
    elif precision.device == "cuda":
        free = torch.cuda.mem_get_info()[0]
    else:
        return False
    return bool(4 * footprint(model).parameters * precision.compute.itemsize < free)


@contextmanager
def clear_errors(base: Base) -> Iterator[None]:
    """Loading errors of transformers as one clear line; its remarks on fresh heads are ours to make."""
    try:
        with _quiet():
            yield
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{base.role} {base.name!r} cannot be loaded: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("transformers", "accelerate", "bitsandbytes")]
    levels = [logger.level for logger in loggers]
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown:
            transformers_logging.enable_progress_bar()
