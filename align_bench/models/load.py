"""Load a base model (hub id, folder or GGUF file) in NF4, bf16 or fp32, and LoRA adapters on it."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import torch

from align_bench.errors import ModelError
from align_bench.models.compute import compute_dtype
from align_bench.models.quiet import clear_errors, quiet
from align_bench.models.tokenizer import load_tokenizer as load_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.models.base import Base
    from align_bench.models.precision import Precision
    from align_bench.suite.models import Lora

_HEAD = "score"


@dataclass(frozen=True, slots=True)
class Footprint:
    """What was loaded: parameter counts and the bytes that all of them take."""

    parameters: int
    trainable: int
    bytes: int


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


def as_scorer(policy: Any, *, seed: int = 0) -> Any:
    """What `load_scorer` gives, on the backbone of a frozen policy without an adapter, which is used up.

    Args:
        policy: from `load_policy`.
        seed: what the head is drawn from.

    Returns:
        The scorer, bit for bit that of `load_scorer`; None where the base has to be loaded anew, as where its weights
        stay quantised, or where the architecture's classifier is more than the same backbone under a head.
    """
    from transformers import AutoModelForSequenceClassification

    if getattr(policy, "is_quantized", False):
        return None
    backbone, config = policy.base_model, policy.config
    single = copy.deepcopy(config)
    single.num_labels = 1
    try:
        with torch.device("meta"), quiet():
            scorer = AutoModelForSequenceClassification.from_config(single)
    except Exception:  # there is none, or an architecture objects in any way; loading it says so in words
        return None
    name, parts = scorer.base_model_prefix, dict(scorer.named_children())
    if (
        parts.keys() != {name, _HEAD}
        or type(parts[name]) is not type(backbone)
        or _shapes(parts[name]) != _shapes(backbone)
    ):
        return None
    config.num_labels = 1
    scorer.config = config  # the one that the backbone's layers read
    setattr(scorer, name, backbone)
    parts[_HEAD].to_empty(device=policy.device)
    return draw_head(with_exact_head(scorer.requires_grad_(False).eval()), seed=seed)


def _shapes(module: Any) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def with_exact_head(model: Any) -> Any:
    """Keep a scalar head `score` in fp32, whatever the states that it reads; other models stay as they are.

    Like the adapter, it has few weights, and bf16 would round its scores. The model's own forward pass gives the head
    states of the type that computes, so they are converted before it.

    Args:
        model: a sequence-classification model, changed in place.
    """
    head = getattr(model, _HEAD, None)
    if head is not None:
        head.float().register_forward_pre_hook(lambda module, states: tuple(each.float() for each in states))
    return model


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
        with quiet():
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
    with quiet():
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    config = folder / "adapter_config.json"
    content = json.loads(config.read_bytes())
    if isinstance(modules := content["target_modules"], list):
        content["target_modules"] = sorted(modules)  # of a set, whose order is another one in each process
    config.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")


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
    with quiet():
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


def _load(base: Base, precision: Precision, loader: Any, extra: dict[str, Any]) -> Any:
    arguments: dict[str, Any] = {"trust_remote_code": False, **extra}
    arguments["dtype"] = torch.bfloat16 if precision.storage == "bf16" else compute_dtype(precision)
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
        bnb_4bit_compute_dtype=compute_dtype(precision),
        llm_int8_skip_modules=["lm_head", _HEAD],
    )
    # Without a device, transformers would quantise on a GPU wherever it sees one.
    return {"quantization_config": config, "device_map": {"": precision.device}}


def _frozen(model: Any, precision: Precision) -> Any:
    from align_bench.models.decoder import fuse_layers

    if precision.storage == "nf4" and _has_room_for_plain_weights(model, precision):
        # The same numbers: bitsandbytes dequantises to the compute type before every product, forward and backward.
        with quiet():
            model = model.dequantize(compute_dtype(precision))
    for module in model.modules():
        # On a CPU with AVX-512 bf16, bitsandbytes would repack weights in place at the first forward pass in evaluation
        # mode: rounded to bf16 whatever the compute type, and failing on layers narrower than one block of 64.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    model.requires_grad_(False)
    model.config.use_cache = False
    if precision.storage != "nf4":
        model.to(precision.device)
    return fuse_layers(with_exact_head(model).eval())


def _has_room_for_plain_weights(model: Any, precision: Precision) -> bool:
    """Whether NF4 weights may be dequantised for good: into less than a quarter of the device's free memory."""
    if precision.device == "cpu":
        free = psutil.virtual_memory().available
    elif precision.device == "cuda":
        free = torch.cuda.mem_get_info()[0]
    else:
        return False
    return bool(4 * footprint(model).parameters * compute_dtype(precision).itemsize < free)
