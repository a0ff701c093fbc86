"""A merged policy as a GGUF file, which llama.cpp and what stands on it run: Llama and Qwen2 with byte-level BPE."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import torch

from align_bench.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from align_bench.records import Json

FILE = "model.gguf"

_ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}
# How llama.cpp calls the rules that split a text before BPE, and these rules as tokenizer.json has them. A file that
# names the wrong ones is read without a word, and the model sees other tokens than in training.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_SPLITS: dict[str, list[Json]] = {
    "gpt-2": [{"type": "ByteLevel", "use_regex": True}],
    "smollm": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}],
    "qwen2": [{"type": "Split", "pattern": {"Regex": _QWEN2}}, {"type": "ByteLevel", "use_regex": False}],
    "llama-bpe": [{"type": "Split", "pattern": {"Regex": _LLAMA3}}, {"type": "ByteLevel", "use_regex": False}],
}
_TELLING = ("type", "use_regex", "individual_digits", "pattern")


def write_gguf(folder: Path) -> None:
    """Write a merged policy as `model.gguf` beside its files: matrices in its own type, vectors in fp32.

    Args:
        folder: of the merged policy and its tokenizer.

    Raises:
        ModelError: its architecture, positions or tokenizer are none that can be written without a change.
    """
    from transformers import AutoModelForCausalLM

    split = _split(folder)  # the cheapest refusal first
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    config = model.config
    architecture = _ARCHITECTURES.get(config.model_type)
    if architecture is None or config.rope_parameters["rope_type"] != "default":
        rope = "" if architecture is None else f" with {config.rope_parameters['rope_type']} positions"
        raise ModelError(
            f"--gguf: {config.model_type}{rope} cannot be written; known: {', '.join(_ARCHITECTURES)} "
            "with default positions",
            fix="convert the merged folder with llama.cpp's convert_hf_to_gguf.py",
        )
    writer = gguf.GGUFWriter(folder / FILE, gguf.MODEL_ARCH_NAMES[architecture], use_temp_file=True)
    kind = gguf.GGMLQuantizationType.F32 if model.dtype == torch.float32 else gguf.GGMLQuantizationType.BF16
    _add_shape(writer, config, kind)
    _add_tokenizer(writer, folder, split, config.vocab_size)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if config.model_type == "llama":
            tensor = _interleaved(name, tensor, config)
        array = tensor.float().contiguous().numpy()
        stored = gguf.GGMLQuantizationType.F32 if array.ndim == 1 else kind
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(target, gguf.quantize(array, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: Any, config: Any, kind: Any) -> None:
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    exact = kind == gguf.GGMLQuantizationType.F32
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if exact else gguf.LlamaFileType.MOSTLY_BF16)


def _add_tokenizer(writer: Any, folder: Path, split: str, size: int) -> None:
    """Tokens, merges, special ids and the chat template; rows of the embedding beyond the vocabulary are unused."""
    found = _tokenizer(folder)
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds = [int(gguf.TokenType.UNUSED)] * size
    for token, number in found["model"]["vocab"].items():
        tokens[number], kinds[number] = token, int(gguf.TokenType.NORMAL)
    for added in found["added_tokens"]:
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], int(kind)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=size)
    special.add_to_gguf(writer, quiet=True)


def _tokenizer(folder: Path) -> Any:
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))


def _split(folder: Path) -> str:
    """llama.cpp's name of the rules that split texts.

    Raises:
        ModelError: the tokenizer is no byte-level BPE, or its rules are none of `_SPLITS`.
    """
    if (folder / "tokenizer.json").is_file():
        found = _tokenizer(folder)
        given = found["pre_tokenizer"] or {}
        steps = given["pretokenizers"] if given.get("type") == "Sequence" else [given]
        told = [{key: step[key] for key in _TELLING if key in step} for step in steps]
        plain = found["model"]["type"] == "BPE" and not any(step.get("add_prefix_space") for step in steps)
        normal = (found["normalizer"] or {}).get("type") in (None, "NFC")  # llama.cpp normalises nothing
        name = next((name for name, rules in _SPLITS.items() if rules == told), None)
        if name is not None and plain and normal:
            return name
    raise ModelError(
        f"--gguf: the tokenizer splits texts by other rules than those known here ({', '.join(_SPLITS)}), so that "
        "llama.cpp would read other tokens than the model was trained on",
        fix="convert the merged folder with llama.cpp's convert_hf_to_gguf.py",
    )


def _interleaved(name: str, tensor: Tensor, config: Any) -> Tensor:
    """Queries and keys of a Llama as llama.cpp keeps them: the halves of each head's width in turn."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((count for part, count in heads.items() if f".{part}." in name), None)
    if count is None:
        return tensor
    return tensor.view(count, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
