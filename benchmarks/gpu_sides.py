"""One lane of `gpu.py`, in a process of its own: one loaded base, and one part after the other on it.

The work is that of `vs_trl_sides.py`. What differs: the base has weights drawn at random in the shape of a known model,
the rows are ids drawn at random, and the frozen weights are loaded once, for loading eight billion of them takes longer
than most parts. Every part begins on new modules that share these weights, so that nothing is left of the part before.
"""

from __future__ import annotations

import copy
import gc
import json
import random
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import vs_trl_sides as sides

from align_bench.models.base import EMBEDDED, find_base
from align_bench.models.load import load_tokenizer
from align_bench.models.precision import resolve_precision
from align_bench.records import TokenRow
from align_bench.store.files import make_folder

# Of the models' own config.json; what is left out is the default of the class, or changes no shape.
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "Llama-3.1-8B": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    },
    "Qwen3-1.7B": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
    },
    "Qwen2.5-0.5B": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "model_type": "llama",
        "vocab_size": 4096,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def draw(shape: str, folder: Path) -> None:
    """Write a base of this shape with weights drawn at random in bf16, and the embedded tokenizer, into a folder."""
    from transformers import AutoConfig, AutoModelForCausalLM

    make_folder(folder)
    embedded = EMBEDDED["embedded/tiny"]
    for name in TOKENIZER:
        if (embedded / name).is_file():
            shutil.copy(embedded / name, folder / name)
    tokenizer = load_tokenizer(find_base("embedded/tiny"))
    fields = dict(SHAPES[shape])
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(fields.pop("model_type"), **fields, **ends, bos_token_id=None)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)


def parameters_in_matrices(shape: str) -> int:
    """N of `4N` operations per trained token: weights of all matrices, the head included, whether it is tied or not."""
    given = SHAPES[shape]
    width, heads = given["hidden_size"], given["num_attention_heads"]
    head = given.get("head_dim", width // heads)
    attention = 2 * width * head * (heads + given["num_key_value_heads"])
    layer = attention + 3 * width * given["intermediate_size"]
    return int(given["num_hidden_layers"] * layer + width * given["vocab_size"])


class DrawnBench(sides.Bench):
    """The base of a shape, and rows of random ids, for one part after the other.

    Attributes:
        settings: those of the part that is played.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.ours = settings["side"].startswith("ours")
        # What it holds is known from the shape; hashing sixteen gigabytes of it would take half a minute.
        self.base = find_base(settings["base"], digest=lambda path: path.name)
        self.precision = resolve_precision(settings["precision"], settings["device"])
        self.tokenizer = load_tokenizer(self.base)
        self.stages = sides.Stages()
        self._frozen: Any = None
        self._scalar: bool | None = None

    def begin(self, part: str, side: str) -> None:
        """Play this part in this role from here on."""
        self.settings = {**self.settings, "part": part, "side": side}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def model(self, *, scalar: bool = False) -> Any:
        """The frozen base in new modules over the weights that are loaded; of one kind at a time."""
        if self._scalar is not scalar:
            self._frozen = None
            gc.collect()
            self._frozen, self._scalar = super().model(scalar=scalar), scalar
        shared = {id(one): one for one in (*self._frozen.parameters(), *self._frozen.buffers())}
        if scalar:  # the head is trained
            del shared[id(self._frozen.score.weight)]
        return copy.deepcopy(self._frozen, shared)

    def rows(self, split: str, count: int) -> list[TokenRow]:
        """Pairs of random ids: prompt and answer have half of `max_length` each at most, and an eighth of it at least.

        The first ids are left out, among which a tokenizer has its special ones.
        """
        drawn = random.Random(f"{split} rows")
        ids = range(self.tokenizer.vocab_size // 8, int(self.settings["vocabulary"]))
        most = self.max_length // 2

        def some() -> tuple[int, ...]:
            return tuple(drawn.choices(ids, k=drawn.randint(max(1, most // 4), most)))

        return [TokenRow(place, some(), some(), some()) for place in range(count)]


def main() -> None:
    """Play one lane: a role in each part, in the order given."""
    turns = sides.Turns()
    settings = json.loads(sys.argv[1])
    bench = DrawnBench(settings)
    turns.say(compute=bench.precision.compute, device=bench.precision.device, best=sides.best_options(bench.precision))
    for part, role in settings["roles"]:
        bench.begin(part, role)
        sides.PARTS[part](bench, turns)
    turns.wait()


if __name__ == "__main__":
    if sys.argv[1] == "--draw":
        draw(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
