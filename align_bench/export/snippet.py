"""The code of a model card that loads the model: with transformers and peft, and nothing of ours."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from align_bench.models.load import load_tokenizer

if TYPE_CHECKING:
    from align_bench.export.choose import Chosen
    from align_bench.models.exported import Exported

_POLICY = """
answer = model.generate(**prompt, generation_config=GenerationConfig.from_pretrained(here))
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
"""
_REWARD = """
ids = ids[: len(ids) - ids[::-1].index({end})]  # it scores an answer at the token that ends it
with torch.no_grad():
    print(float(model(input_ids=torch.tensor([ids], device=model.device)).logits[0, 0]))
"""
_NF4 = """nf4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.{dtype},
    llm_int8_skip_modules=["lm_head", "score"],
)
"""


def snippet(chosen: Chosen, note: Exported) -> str:
    """Python that loads an exported model from `here` and answers a question, or scores an answer."""
    scalar, adapter = note.kind == "reward", note.form == "adapter"
    auto = "AutoModelForSequenceClassification" if scalar else "AutoModelForCausalLM"
    quantised = adapter and note.storage == "nf4"
    names = [auto, "AutoTokenizer", *([] if scalar else ["GenerationConfig"])]
    names += ["BitsAndBytesConfig"] if quantised else []
    lines = ["import torch"]
    lines += ["from peft import PeftModel"] if adapter else []
    lines += [f"from transformers import {', '.join(sorted(names))}", ""]
    lines += [
        'here = "."  # this folder, or the id of its repository',
        "tokenizer = AutoTokenizer.from_pretrained(here)",
    ]
    labels = ", num_labels=1" if scalar else ""
    if adapter:
        lines += [_NF4.format(dtype=note.dtype).rstrip()] if quantised else []
        options = f"{_base(chosen)}, dtype=torch.{note.dtype}{labels}"
        lines.append(f"base = {auto}.from_pretrained({options}{', quantization_config=nf4' if quantised else ''})")
        lines += ["base.config.pad_token_id = None  # score one sequence at a time"] if scalar else []
        lines.append("model = PeftModel.from_pretrained(base, here).eval()")
    else:
        lines.append(f"model = {auto}.from_pretrained(here, dtype=torch.{note.dtype}{labels}).eval()")
    given = "".join(f", {name}={value!r}" for name, value in note.chat_template_kwargs.items())
    return "\n".join(lines) + "\n\n" + (_scoring(chosen, given) if scalar else _answering(chosen, given))


def _base(chosen: Chosen) -> str:
    base = chosen.frozen.base
    if repository := base.hub_id:
        return f'"{repository}", revision="{base.digest}"'
    gguf = f', gguf_file="{base.gguf}"' if base.gguf else ""
    return f'"{base.folder.resolve()}"{gguf}'


def _has_template(chosen: Chosen) -> bool:
    return bool(load_tokenizer(chosen.frozen.base).chat_template)


def _answering(chosen: Chosen, given: str) -> str:
    if _has_template(chosen):
        asked = (
            'turns = [{"role": "user", "content": "How do I boil an egg?"}]\n'
            "prompt = tokenizer.apply_chat_template(\n"
            f'    turns, add_generation_prompt=True, return_tensors="pt", return_dict=True{given}\n'
            ").to(model.device)"
        )
    else:
        asked = 'prompt = tokenizer("How do I boil an egg?\\n", return_tensors="pt").to(model.device)'
    return asked + _POLICY


def _scoring(chosen: Chosen, given: str) -> str:
    end = _end(chosen)
    if _has_template(chosen):
        asked = (
            'turns = [{"role": "user", "content": "How do I boil an egg?"}]\n'
            'turns += [{"role": "assistant", "content": "In water, for eight minutes."}]\n'
            f'ids = list(tokenizer.apply_chat_template(turns, return_dict=True{given})["input_ids"])'
        )
    else:
        asked = (
            'text = "How do I boil an egg?" + "\\n" + "In water, for eight minutes."\n'
            f'ids = [*tokenizer(text)["input_ids"], {end}]'
        )
    return asked + _REWARD.format(end=end)


def _end(chosen: Chosen) -> int:
    """The token that ends answers, by the rows that the model was measured on."""
    rows = chosen.results.load(chosen.graph.tables["val"]).rows
    last = Counter(answer[-1] for row in rows for answer in (row.chosen, row.rejected) if answer)
    return last.most_common(1)[0][0]
