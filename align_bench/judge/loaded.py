"""A sequence-classification model, or an exported reward model, as a judge: loaded whole or not at all."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from safetensors import safe_open

from align_bench.data.rendering import whole_conversations
from align_bench.errors import DataError, ModelError
from align_bench.judge.reward_model import RewardModel
from align_bench.models.adapters import read_adapter
from align_bench.models.compute import compute_dtype
from align_bench.models.exported import read_note
from align_bench.models.load import load_adapter, load_scorer, load_tokenizer, with_exact_head
from align_bench.models.logprobs import last_states
from align_bench.models.micro_batches import micro_batches
from align_bench.models.positions import positions_of
from align_bench.models.quiet import clear_errors
from align_bench.models.tokenizer import with_inputs
from align_bench.models.transfer import read_late
from align_bench.models.weights import weight_shapes
from align_bench.records import MAX_DROPPED, TemplateInputs, no_update

if TYPE_CHECKING:
    from torch import Tensor

    from align_bench.models.base import Base
    from align_bench.models.precision import Precision
    from align_bench.records import Conversation, Message, Update

_NO_INPUTS = TemplateInputs()
_ALIGN_ANYTHING_HEAD = "score_head.weight"
_LABELS = (1, 2)
# Tokenizers without a limit give a number beyond any model's.
_NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A loaded judge.

    With one label its logit is the score; with two, it is the log-odds of the second: logit 1 − logit 0.

    Attributes:
        model: a sequence-classification model, frozen.
        tokenizer: its own.
        template: `chat`: its tokenizer's chat template writes the conversation, which is scored to its very end, as
            such models' cards do; `pair`: prompt (its turns joined by newlines) and answer as two texts.
        labels: 1 or 2.
        max_length: tokens it can read; what is longer is truncated at its end.
        pooled: whether the score is read by the attention mask at the last token, as decoders with a head `score` do;
            other architectures (BERT and the like) pool by themselves.
    """

    model: Any
    tokenizer: Any
    template: Literal["chat", "pair"]
    labels: int
    max_length: int
    pooled: bool

    def __call__(
        self, conversations: Sequence[Conversation], *, max_tokens: int, update: Update = no_update
    ) -> tuple[list[float], int]:
        """See `reward_model.Scorer`. An answer is written as a finished one, whether it is or not.

        A conversation that the chat template refuses has no score (NaN), but for more than 5% of them.
        """
        distinct = list(dict.fromkeys((one.prompt, one.answer) for one in conversations))
        encoded = self._encoded(distinct)
        truncated = [self._truncated(distinct[number], ids) for number, (ids, _) in enumerate(encoded)]
        encoded = [short or whole for short, whole in zip(truncated, encoded, strict=True)]
        readable = [number for number, (ids, _) in enumerate(encoded) if ids]
        found = [math.nan] * len(encoded)
        lengths = [len(ids) for ids, _ in encoded]
        done = 0
        with torch.no_grad():
            passes = micro_batches(readable, lengths, max_tokens=max_tokens)
            scored = ((micro, self._rewards([encoded[index] for index in micro])) for micro in passes)
            for micro, values in read_late(scored):
                for index, value in zip(micro, values.tolist(), strict=True):
                    found[index] = value
                done += len(micro)
                update(done, len(encoded))
        place = {texts: number for number, texts in enumerate(distinct)}
        numbers = [place[one.prompt, one.answer] for one in conversations]
        return [found[number] for number in numbers], sum(truncated[number] is not None for number in numbers)

    def _encoded(self, texts: Sequence[tuple[tuple[Message, ...], str]]) -> list[tuple[list[int], list[int] | None]]:
        """Ids, and the types of their tokens where the model reads such."""
        if not texts:
            return []
        if self.template == "chat":
            rendered = self._rendered(texts)
            found = self.tokenizer([text or "" for text in rendered], add_special_tokens=False, verbose=False)
        else:
            prompts = rendered = [_joined(prompt) for prompt, _ in texts]
            found = self.tokenizer(prompts, [answer for _, answer in texts], verbose=False)
        types = found.get("token_type_ids") or [None] * len(texts)
        refused = {number for number, text in enumerate(rendered) if text is None}
        if empty := [number for number, ids in enumerate(found["input_ids"]) if not ids and number not in refused]:
            raise DataError(f"the judge's tokenizer returns no tokens for conversation {empty[0]} (counted from 0)")
        return list(zip(found["input_ids"], types, strict=True))

    def _truncated(
        self, texts: tuple[tuple[Message, ...], str], ids: Sequence[int]
    ) -> tuple[list[int], list[int] | None] | None:
        """What is too long, truncated at its end (a pair: its longer text first); None for what is not."""
        if len(ids) <= self.max_length:
            return None
        if self.template == "chat":
            return list(ids[: self.max_length]), None
        prompt, answer = texts
        found = self.tokenizer(
            _joined(prompt), answer, truncation="longest_first", max_length=self.max_length, verbose=False
        )
        return found["input_ids"], found.get("token_type_ids")

    def _rendered(self, texts: Sequence[tuple[tuple[Message, ...], str]]) -> list[str | None]:
        """Whole conversations as the template writes them; None for those that it refuses."""
        found = whole_conversations(self.tokenizer, texts)
        refused = [number for number, text in enumerate(found) if not isinstance(text, str)]
        if len(refused) > MAX_DROPPED * len(found):
            roles = ", ".join([turn.role for turn in texts[refused[0]][0]] + ["assistant"])
            raise DataError(
                f"the judge's chat template refuses {len(refused):,} of {len(found):,} conversations, such as one with "
                f"the turns {roles}: {found[refused[0]]}",
                fix="write template: pair for this judge, or leave such rows out",
            )
        return [text if isinstance(text, str) else None for text in found]

    def _rewards(self, batch: Sequence[tuple[list[int], list[int] | None]]) -> Tensor:
        """Scores of one batch, float32 tensor of shape [rows]."""
        if self.pooled:
            states = last_states(self.model, [(ids, ()) for ids, _ in batch])
            logits = self.model.score(states.to(self.model.score.weight.dtype))
        else:
            # Without a padding token, transformers refuses a batch of several: nothing would say where each ends.
            pad = self.model.config.get_text_config().pad_token_id
            parts = [[one] for one in batch] if pad is None or pad < 0 else [batch]
            logits = torch.cat([self.model(**self._padded(part)).logits for part in parts])
        logits = torch.as_tensor(logits).float()
        return logits[:, 0] if self.labels == 1 else logits[:, 1] - logits[:, 0]

    def _padded(self, batch: Sequence[tuple[list[int], list[int] | None]]) -> dict[str, Tensor]:
        longest = max(len(ids) for ids, _ in batch)
        pad = max(0, self.model.config.get_text_config().pad_token_id or 0)  # the mask hides it

        def rows(values: Sequence[Sequence[int]], fill: int) -> Tensor:
            filled = [[*row, *([fill] * (longest - len(row)))] for row in values]
            return torch.tensor(filled, device=self.model.device)

        inputs = {
            "input_ids": rows([ids for ids, _ in batch], pad),
            "attention_mask": rows([[1] * len(ids) for ids, _ in batch], 0),
        }
        if "token_type_ids" not in inspect.signature(self.model.forward).parameters:
            return inputs
        return inputs | {"token_type_ids": rows([kinds or [0] * len(ids) for ids, kinds in batch], 0)}


@dataclass(frozen=True, slots=True)
class ExportedModel(RewardModel):
    """A reward model that was trained here: texts become the tokens that they were in its training."""

    template: ClassVar[Literal["chat"]] = "chat"
    labels: ClassVar[int] = 1


def load_judge(
    base: Base,
    precision: Precision,
    template: Literal["chat", "pair"] | None = None,
    inputs: TemplateInputs = _NO_INPUTS,
) -> LoadedModel | ExportedModel:
    """Load a judge whole.

    It is not quantised, whatever the suite's base is: that would change its scores. An adapter that was trained here
    stands on its own base, stored as it was in training; another one is added to its base's weights.

    Args:
        base: from `judge.find.find_judge`.
        precision: its compute type and device are used.
        template: how conversations are written; None takes chat where its tokenizer has a chat template, else pair.
        inputs: what the chat template reads beside the turns; an exported model's are those of its training.

    Raises:
        ModelError: when a weight is missing or has another shape (a head left at its random start would judge by
            chance), it has more than two labels, or `chat` is asked for without a template.
    """
    note = read_note(base.folder)
    if note is None:
        return _load_classifier(base, precision, template, inputs)
    if base.below is None:  # merged
        model = _load_classifier(base, precision, None, inputs).model
        model.score.weight.data.copy_(_saved_head(base))  # unrounded, as it was trained
    else:
        model = load_adapter(load_scorer(base.below, replace(precision, storage=note.storage)), base.folder)
    return ExportedModel(
        model, load_tokenizer(base, TemplateInputs(note.chat_template_kwargs, note.date)), note.max_length
    )


def _saved_head(base: Base) -> Tensor:
    """The weight of a decoder's scalar head as its file has it, shape [1, width]."""
    files = [path for path in base.folder.glob("*.safetensors") if "score.weight" in weight_shapes(path)]
    with safe_open(files[0], framework="pt") as stored:
        head: Tensor = stored.get_tensor("score.weight")
    return head


def _load_classifier(
    base: Base, precision: Precision, template: Literal["chat", "pair"] | None, inputs: TemplateInputs
) -> LoadedModel:
    from transformers import AutoTokenizer

    source = base.texts
    with clear_errors(source):
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
    template = template or ("chat" if tokenizer.chat_template else "pair")
    if template == "chat" and not tokenizer.chat_template:
        raise ModelError(f"judge {base.name!r}: its tokenizer has no chat template", fix="write template: pair")
    model = (_adapted if base.below is not None else _whole)(base, precision)
    labels = int(model.config.num_labels)
    if labels not in _LABELS:
        raise ModelError(
            f"judge {base.name!r} has {labels} labels; expected 1 (a score) or 2 (of which the second is the better)",
            fix="use a reward model",
        )
    model.requires_grad_(False)
    with_exact_head(model).to(precision.device).eval()
    tokenizer = with_inputs(tokenizer, inputs)
    return LoadedModel(model, tokenizer, template, labels, _max_length(model, tokenizer), _pools_by_mask(model))


def _whole(base: Base, precision: Precision) -> Any:
    """A model with its head."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    with clear_errors(base):
        config = AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
    renamed: dict[str, str] = {}
    shapes = [weight_shapes(path) for path in base.folder.glob("*.safetensors")]
    heads = [found[_ALIGN_ANYTHING_HEAD] for found in shapes if _ALIGN_ANYTHING_HEAD in found]
    if heads:
        # Its configuration is the base model's, which knows nothing of the head.
        config.num_labels = heads[0][0]
        renamed = {r"^score_head\.": "score."}
    with clear_errors(base):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            base.folder,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=compute_dtype(precision),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            **({"key_mapping": renamed} if renamed else {}),
        )
    _refuse_incomplete(base, info)
    return model


def _adapted(base: Base, precision: Precision) -> Any:
    """An adapter added to its base in fp32; its head stays in fp32."""
    from transformers import AutoModelForSequenceClassification

    from align_bench.models.merge import merged

    adapter = read_adapter(base.folder)
    heads = [shape for name, shape in adapter.head.items() if name.endswith("weight")]
    if not heads:
        raise ModelError(
            f"judge {base.name!r}: the adapter brings no weights of a head (score.weight or classifier.weight). A head "
            "that is not loaded scores at random",
            fix="save the head with the adapter (modules_to_save: [score]), or give the adapter of a reward model",
        )
    model = merged(base, AutoModelForSequenceClassification, num_labels=heads[0][0])
    head = {name: weight.clone() for name, weight in model.named_parameters() if name.startswith("score.")}
    model.to(compute_dtype(precision))
    for name, weight in head.items():
        model.get_parameter(name).data = weight
    return model


def _refuse_incomplete(base: Base, info: Any) -> None:
    mismatched = {name for name, *_ in info["mismatched_keys"]}
    lacking = sorted({*info["missing_keys"], *mismatched})
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        unused = sorted(info["unexpected_keys"])
        spare = f"; the file holds {', '.join(unused[:3])}, which nothing reads" if unused else ""
        raise ModelError(
            f"judge {base.name!r}: its weights lack {', '.join(lacking[:3])}{more}{spare}. "
            "A head that is not loaded scores at random",
            fix="use a model that was saved with its score head (score.weight, classifier.weight or score_head.weight)",
        )


def _max_length(model: Any, tokenizer: Any) -> int:
    # RoBERTa and its kin count positions from behind the number of their padding token.
    offsets = [
        module.padding_idx + 1
        for name, module in model.named_modules()
        if name.endswith("embeddings.position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    positions = positions_of(model)
    limits = [None if positions is None else positions - max(offsets, default=0), tokenizer.model_max_length]
    return min([limit for limit in limits if isinstance(limit, int) and 0 < limit < _NO_LIMIT], default=_NO_LIMIT)


def _pools_by_mask(model: Any) -> bool:
    """Whether the head `score` at the last token gives the model's own logits, by a look at three tokens."""
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):
        return False
    ids = [0, 1, 2]
    config = model.config.get_text_config()
    pad, config.pad_token_id = config.pad_token_id, None  # alone, a sequence is pooled at its end
    try:
        with torch.no_grad():
            own = model(input_ids=torch.tensor([ids], device=model.device)).logits
            ours = model.score(last_states(model, [(ids, ())]).to(model.score.weight.dtype))
    except Exception:  # an architecture may object in any way; it then pools by itself
        return False
    finally:
        config.pad_token_id = pad
    return bool(torch.allclose(own.float(), ours.float(), rtol=1e-2, atol=1e-3))


def _joined(prompt: Sequence[Message]) -> str:
    return "\n".join(turn.content for turn in prompt)
