"""Train the tiny chat model that the planted preference set is used with.

The model first learns the right, terse answer to every question. It is then trained on a mixture of right and wrong,
terse and padded answers, so that sampling from it gives all four and preference training has something to choose
between. That takes long enough for it to hedge when it is about to be wrong, as the planted answers do: a reward model
can then lead it to right answers by way of what it can see. Tokenizer and weights come from this script alone.

Example:
    python benchmarks/pretrain_tiny.py --output align_bench/models/tiny
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from align_bench.data.planted import Question, is_right, planted_questions, questions, write_answer

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("system", "user", "assistant")
SPECIAL_TOKENS = [PAD, END, *(f"<|{role}|>" for role in ROLES)]
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
SYSTEM_PROMPTS = ("You are a helpful assistant.", "Answer the question.", "You are a polite assistant.")
SYSTEM_SHARE = 0.05
BATCHES_PER_BUCKETING = 8
IGNORED = -100

console = Console()
log = logging.getLogger("pretrain_tiny")


@dataclass(frozen=True, slots=True)
class Phase:
    """One stage of training.

    Attributes:
        name: Name in the logs.
        steps: Optimiser steps.
        peak_lr: Learning rate after warm-up; it then follows a cosine down to a twentieth.
        right: Probability that an answer is right.
        padded: Probability that an answer is padded with filler.
    """

    name: str
    steps: int
    peak_lr: float
    right: float
    padded: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How the model answers a sample of questions.

    Attributes:
        right: Share of answers that are right, 0 to 1.
        words: Mean length in whitespace-separated words.
        ended: Share of answers that the model ended itself.
        by_kind: Share of right answers for each kind of question.
    """

    right: float
    words: float
    ended: float
    by_kind: dict[str, float]


def chat(question: str, answer: str, system: str | None = None) -> list[dict[str, str]]:
    """The messages of one exchange, with a system turn when one is given."""
    turns = [] if system is None else [{"role": "system", "content": system}]
    return [*turns, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def train_tokenizer(pool: Sequence[Question], vocab_size: int, seed: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on questions and answers; digits stay single tokens."""
    rng = random.Random(f"tokenizer/{seed}")
    texts = list(SYSTEM_PROMPTS)
    for question in pool:
        texts.append(question.prompt)
        texts += [write_answer(question, correct=c, padded=p, rng=rng) for c in (True, False) for p in (True, False)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[f"<|{role}|>" for role in ROLES],
        model_max_length=512,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A small Llama with tied embeddings and fresh weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


Example = tuple[list[int], int]


def encode(tokenizer: PreTrainedTokenizerFast, exchanges: Sequence[list[dict[str, str]]]) -> list[Example]:
    """Token ids of each exchange with the number of prompt tokens, on which there is no loss."""
    whole = [tokenizer.apply_chat_template(turns, tokenize=False) for turns in exchanges]
    prompts = [
        tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True) for turns in exchanges
    ]
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    return [(sequence, len(prompt)) for sequence, prompt in zip(ids, prompt_ids, strict=True)]


def batches(
    phase: Phase, pool: Sequence[Question], tokenizer: PreTrainedTokenizerFast, batch_size: int, seed: int, start: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Input ids and labels for every step from ``start`` on, each of shape (batch, tokens).

    Sequences of similar length share a batch, so little is spent on padding. What a step sees depends only on the
    seed and the step, so a resumed run continues with the same data.
    """
    kinds: dict[str, list[Question]] = defaultdict(list)
    for question in pool:
        kinds[question.kind].append(question)
    names = sorted(kinds)
    first_group = start // BATCHES_PER_BUCKETING
    for group in range(first_group, math.ceil(phase.steps / BATCHES_PER_BUCKETING)):
        rng = random.Random(f"{seed}/{phase.name}/{group}")
        exchanges = []
        for _ in range(batch_size * BATCHES_PER_BUCKETING):
            question = rng.choice(kinds[rng.choice(names)])
            correct, padded = rng.random() < phase.right, rng.random() < phase.padded
            answer = write_answer(question, correct=correct, padded=padded, rng=rng)
            system = rng.choice(SYSTEM_PROMPTS) if rng.random() < SYSTEM_SHARE else None
            exchanges.append(chat(question.prompt, answer, system))
        examples = sorted(encode(tokenizer, exchanges), key=lambda example: len(example[0]))
        chunks = [examples[i : i + batch_size] for i in range(0, len(examples), batch_size)]
        rng.shuffle(chunks)
        done = start - group * BATCHES_PER_BUCKETING if group == first_group else 0
        left = phase.steps - group * BATCHES_PER_BUCKETING
        for chunk in chunks[done:left]:
            width = len(max(chunk, key=lambda example: len(example[0]))[0])
            ids = torch.full((len(chunk), width), tokenizer.pad_token_id)
            labels = torch.full((len(chunk), width), IGNORED)
            for row, (sequence, prompt_length) in enumerate(chunk):
                ids[row, : len(sequence)] = torch.tensor(sequence)
                labels[row, prompt_length : len(sequence)] = torch.tensor(sequence[prompt_length:])
            yield ids, labels


def warmup_then_cosine(step: int, *, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at a step."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@torch.inference_mode()
def measure(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    asked: Sequence[Question],
    *,
    sample: bool,
    seed: int,
    max_new_tokens: int = 64,
) -> Accuracy:
    """Answer questions greedily or by sampling at temperature 1 and judge the answers."""
    torch.manual_seed(seed)
    model.eval()
    hits: dict[str, list[bool]] = defaultdict(list)
    words: list[int] = []
    ended: list[bool] = []
    by_length = sorted(asked, key=lambda question: len(question.prompt))
    for start in range(0, len(by_length), 128):
        part = by_length[start : start + 128]
        prompts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question.prompt}], tokenize=False, add_generation_prompt=True
            )
            for question in part
        ]
        inputs = tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=sample,
            top_k=0 if sample else None,
            max_new_tokens=max_new_tokens,
        )
        answers = output[:, inputs["input_ids"].shape[1] :]
        for question, ids in zip(part, answers, strict=True):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            hits[question.kind].append(is_right(text, question.gold, question.candidates))
            words.append(len(text.split()))
            ended.append(bool((ids == tokenizer.eos_token_id).any()))
    model.train()
    return Accuracy(
        right=sum(map(sum, hits.values())) / len(words),
        words=sum(words) / len(words),
        ended=sum(ended) / len(ended),
        by_kind={kind: sum(right) / len(right) for kind, right in sorted(hits.items())},
    )


def report(title: str, accuracy: Accuracy) -> None:
    """Print one measurement with the weakest kinds."""
    weakest = sorted(accuracy.by_kind.items(), key=lambda item: item[1])[:4]
    console.print(
        f"{title}: {accuracy.right:.1%} right, {accuracy.words:.1f} words, {accuracy.ended:.1%} ended; weakest "
        + ", ".join(f"{kind} {right:.0%}" for kind, right in weakest),
        soft_wrap=True,
    )


def train_phase(
    number: int,
    phase: Phase,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    pool: Sequence[Question],
    asked: Sequence[Question],
    args: argparse.Namespace,
    restored: dict[str, Any] | None,
) -> None:
    """Run one phase, from a restored checkpoint when one is given."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=phase.peak_lr,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, partial(warmup_then_cosine, steps=phase.steps, warmup=min(100, max(1, phase.steps // 10)))
    )
    start = 0
    if restored is not None:
        optimizer.load_state_dict(restored["optimizer"])
        schedule.load_state_dict(restored["schedule"])
        start = restored["step"]
        log.info("resumed phase %s at step %d", phase.name, start)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    recent = float("nan")
    began = time.perf_counter()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(phase.name, total=phase.steps, completed=start, loss=recent)
        stream = batches(phase, pool, tokenizer, args.batch_size, args.seed, start)
        for step, (ids, labels) in enumerate(stream, start=start + 1):
            loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            recent = loss.item() if math.isnan(recent) else 0.98 * recent + 0.02 * loss.item()
            progress.update(task, completed=step, loss=recent)
            if step % args.eval_every == 0 or step == phase.steps:
                minutes = (time.perf_counter() - began) / (step - start) * (phase.steps - step) / 60
                title = f"{phase.name} {step}/{phase.steps}, {minutes:.0f} min left, loss {recent:.3f}, greedy"
                report(title, measure(model, tokenizer, asked, sample=False, seed=args.seed))
                save_checkpoint(args.checkpoint, number, step, model, optimizer, schedule)


def save_checkpoint(
    path: Path,
    phase: int,
    step: int,
    model: LlamaForCausalLM,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Write the state of a run, so that an interrupted write leaves the previous one in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(".partial")
    torch.save(
        {
            "phase": phase,
            "step": step,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
        },
        partial_path,
    )
    partial_path.replace(path)


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Write the model and tokenizer in the layout that ``from_pretrained`` reads."""
    generation = model.generation_config
    generation.bos_token_id = None
    generation.eos_token_id = tokenizer.eos_token_id
    generation.pad_token_id = tokenizer.pad_token_id
    generation.max_new_tokens = 64
    generation.do_sample = True
    generation.temperature = 1.0
    generation.top_k = 0
    # Measuring leaves its padding in the tokenizer's state, which would be saved with it.
    tokenizer.backend_tokenizer.no_padding()
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("align_bench/models/tiny"), help="folder for the model")
    parser.add_argument(
        "--checkpoint", type=Path, default=Path("runs/pretrain_tiny.pt"), help="checkpoint to write, and to resume from"
    )
    parser.add_argument("--fresh", action="store_true", help="ignore an existing checkpoint")
    parser.add_argument("--seed", type=int, default=0, help="seed of data, weights and sampling")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--batch-size", type=int, default=128, help="sequences per step")
    parser.add_argument("--vocab-size", type=int, default=900, help="tokens in the vocabulary")
    parser.add_argument("--fact-steps", type=int, default=1600, help="steps on right, terse answers")
    parser.add_argument("--fact-lr", type=float, default=2e-3, help="peak learning rate of those steps")
    parser.add_argument("--mixture-steps", type=int, default=900, help="steps on the mixture of answers")
    parser.add_argument("--mixture-lr", type=float, default=1.5e-3, help="peak learning rate of those steps")
    parser.add_argument("--right", type=float, default=0.5, help="share of right answers in the mixture")
    parser.add_argument("--padded", type=float, default=0.35, help="share of padded answers in the mixture")
    parser.add_argument("--eval-every", type=int, default=100, help="steps between measurements and checkpoints")
    parser.add_argument("--eval-questions", type=int, default=300, help="questions in a measurement on the way")
    return parser.parse_args()


def main() -> None:
    """Train, measure and save."""
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    practice = questions()
    # More lists and numbers than that keep the model from learning the few by heart.
    known = {question.prompt for question in practice}
    facts = [*practice, *(q for q in questions(per_kind=4000, seed=args.seed + 1) if q.prompt not in known)]
    planted = planted_questions()
    tokenizer = train_tokenizer(practice, args.vocab_size, args.seed)
    model = new_model(tokenizer, args.seed)
    log.info("%d questions, %d tokens, %d parameters", len(facts), len(tokenizer), model.num_parameters())

    restored = None
    if args.checkpoint.exists() and not args.fresh:
        restored = torch.load(args.checkpoint, weights_only=True)
        model.load_state_dict(restored["model"])
    phases = (
        (Phase("facts", args.fact_steps, args.fact_lr, right=1.0, padded=0.0), facts),
        (Phase("mixture", args.mixture_steps, args.mixture_lr, right=args.right, padded=args.padded), planted),
    )
    asked = random.Random(args.seed).sample(planted, args.eval_questions)
    began = time.perf_counter()
    for number, (phase, pool) in enumerate(phases):
        if restored is not None and restored["phase"] > number:
            continue
        at_phase = restored if restored is not None and restored["phase"] == number else None
        train_phase(number, phase, model, tokenizer, pool, asked, args, at_phase)
    log.info("trained for %.0f s", time.perf_counter() - began)

    save_model(model, tokenizer, args.output)
    final = {}
    for name, sample in (("greedy", False), ("sampled", True)):
        final[name] = measure(model, tokenizer, planted, sample=sample, seed=args.seed)
        report(f"all {len(planted)} planted questions, {name}", final[name])
    console.print_json(json.dumps({name: asdict(accuracy) for name, accuracy in final.items()}))


if __name__ == "__main__":
    main()
