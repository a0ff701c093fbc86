"""Public preference sets that are recognised whole, by columns that their cards list.

A set is never guessed: all of the columns below have to be there. The user's `columns:` and `choice:` go first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from align_bench.data.fields import DropError, number_of
from align_bench.data.shapes import (
    IMPLIED_CHOICE_SHAPE,
    IMPLIED_SHAPE,
    PAIR_SHAPE,
    QUESTION_SHAPE,
    SCORED_SHAPE,
    UNPAIRED_SHAPE,
    Shape,
)
from align_bench.data.tables import Cells
from align_bench.data.written import holds_turns, written_list
from align_bench.records import Json

_HUB = "https://huggingface.co/datasets/"


@dataclass(frozen=True)
class KnownSet:
    """A public set.

    Attributes:
        name: what it is called.
        source: where its columns are described.
        columns: those by which it is recognised; it has others beside them.
        shape: what a row is.
        names: standard name → its column, where the two differ.
        choice: value of its choice column → what it stands for, as a suite says it; or column → the same, where the
            winner is told by several columns.
        example: a row as the set has it, for the documentation and for tests.
        lists: standard names whose cells are lists, also where a file writes them as text.
        adapt: brings a row whose cells are structures into the shape's own columns; None where no cell is.
        reads: the columns that this reads, beside those of `names`.
        note: what this does, in words.
        only: whether it has no other columns than those.
        sees: whether a first row can be this set's; None where the columns suffice.
    """

    name: str
    source: str
    columns: tuple[str, ...]
    shape: Shape
    example: Mapping[str, Json]
    names: Mapping[str, str] = field(default_factory=dict)
    choice: Mapping[str, str] = field(default_factory=dict)
    lists: tuple[str, ...] = ()
    adapt: Callable[[Cells], Cells] | None = None
    reads: tuple[str, ...] = ()
    note: str = ""
    only: bool = False
    sees: Callable[[Cells], bool] | None = None

    @property
    def words(self) -> str:
        """The set and its shape, as reports name them."""
        return f"{self.name}: {self.shape.words}"


def known_set(columns: Sequence[str], first: Callable[[Sequence[str]], Cells | None]) -> KnownSet | None:
    """The public set that a file is, as far as its columns and its first row say.

    Args:
        columns: all of the file's.
        first: from some columns to the first row; None where there is no row.
    """
    fits = [
        known
        for known in KNOWN_SETS
        if set(known.columns) <= set(columns)
        and not (known.only and set(columns) - set(known.columns))
        # A file with a standard column of its own, where the set has another one for it, is another file.
        and not {name for name in known.names if name in columns and name not in known.columns}
        and (known.sees is None or ((row := first(known.columns)) is not None and known.sees(row)))
    ]
    return max(fits, key=lambda known: len(known.columns), default=None)


def _structure(value: object) -> object:
    return written_list(value) if isinstance(value, str) else value


_TURN_TAG = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def _helpsteer2(row: Cells) -> Cells:
    """HelpSteer2 writes several turns as one text, the first of them the user's, with tags before the others."""
    prompt = row["prompt"]
    if not isinstance(prompt, str) or "<extra_id_1>" not in prompt:
        return row
    first, *others = _TURN_TAG.split(prompt)
    said = zip(others[::2], others[1::2], strict=True)
    turns = [{"role": who.lower(), "content": text} for who, text in [("User", first), *said]]
    if any("<extra_id_" in turn["content"] for turn in turns):
        raise DropError("tags of turns that cannot be read")
    return {**row, "prompt": turns}


def _nectar(row: Cells) -> Cells:
    """The best answer of a ranking against each of the others."""
    answers = _structure(row["answers"])
    if not isinstance(answers, list) or not all(isinstance(each, Mapping) for each in answers):
        raise DropError("answers are no ranked list")
    ranks = [number_of(each.get("rank")) for each in answers]
    known = [rank for rank in ranks if rank is not None]
    if len(known) != len(answers) or len(answers) < 2:
        raise DropError("answers are no ranked list")
    best = [place for place, rank in enumerate(ranks) if rank == min(known)]
    if len(best) != 1:
        raise DropError("tie")
    others = [each.get("answer") for place, each in enumerate(answers) if place != best[0]]
    return {**row, "prompt": row["prompt"], "chosen": answers[best[0]].get("answer"), "rejected": others}


def _webgpt(row: Cells) -> Cells:
    question = _structure(row["question"])
    text = question.get("full_text") if isinstance(question, Mapping) else question
    names = {"response_1": "answer_0", "response_2": "answer_1", "score_1": "score_0", "score_2": "score_1"}
    return {"question": text, **{name: row[column] for name, column in names.items()}}


def _summaries(row: Cells) -> Cells:
    """The prompt as TRL's own example script writes it for posts of Reddit and for articles."""
    info, summaries = _structure(row["info"]), _structure(row["summaries"])
    if not isinstance(info, Mapping) or not isinstance(summaries, list) or len(summaries) != 2:
        raise DropError("info or summaries are not there")
    title = info.get("title") or ""
    if info.get("post"):
        question = f"SUBREDDIT: r/{info.get('subreddit') or ''}\n\nTITLE: {title}\n\nPOST: {info['post']}\n\nTL;DR:"
    elif info.get("article"):
        question = f"TITLE: {title}\n\n{info['article']}\n\nTL;DR:"
    else:
        raise DropError("empty prompt")
    first, second = (each.get("text") if isinstance(each, Mapping) else None for each in summaries)
    return {"question": question, "response_1": first, "response_2": second, "choice": row["choice"]}


def _are_transcripts(row: Cells) -> bool:
    return all(str(row[name]).lstrip().startswith("Human:") for name in ("chosen", "rejected"))


def _completes_turns(row: Cells) -> bool:
    return holds_turns(_structure(row["completion"]))


def _turns(*said: str) -> list[Json]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 4, said, strict=False)]


_SIGNED = {"<0": "a", "0": "drop", ">0": "b"}

KNOWN_SETS = (
    KnownSet(
        name="UltraFeedback binarized",
        source=f"{_HUB}HuggingFaceH4/ultrafeedback_binarized",
        columns=("prompt", "prompt_id", "chosen", "rejected", "messages", "score_chosen", "score_rejected"),
        shape=PAIR_SHAPE,
        example={
            "prompt": "Why is the sky blue?",
            "prompt_id": "f0e1",
            "chosen": _turns("Why is the sky blue?", "Air scatters blue light most."),
            "rejected": _turns("Why is the sky blue?", "It reflects the sea."),
            "messages": _turns("Why is the sky blue?", "Air scatters blue light most."),
            "score_chosen": 8.5,
            "score_rejected": 3.0,
        },
    ),
    KnownSet(
        name="HelpSteer3 preference",
        source=f"{_HUB}nvidia/HelpSteer3",
        columns=("context", "response1", "response2", "overall_preference"),
        shape=QUESTION_SHAPE,
        names={
            "question": "context",
            "response_1": "response1",
            "response_2": "response2",
            "overall_response": "overall_preference",
        },
        choice=_SIGNED,
        example={
            "domain": "general",
            "language": "english",
            "context": _turns("Name a prime."),
            "response1": "Seven.",
            "response2": "Nine.",
            "overall_preference": -2,
        },
    ),
    KnownSet(
        name="HelpSteer2 preference",
        source=f"{_HUB}nvidia/HelpSteer2",
        columns=("prompt", "response_1", "response_2", "preference_strength", "preference_statement"),
        shape=QUESTION_SHAPE,
        names={"question": "prompt", "overall_response": "preference_strength"},
        choice=_SIGNED,
        adapt=_helpsteer2,
        note="the tags of a prompt with several turns part them",
        example={
            "split": "train",
            "prompt": "Hello.\n<extra_id_1>Assistant\nHi!\n<extra_id_1>User\nName a prime.",
            "response_1": "Nine.",
            "response_2": "Seven.",
            "preference_strength": 3,
            "preference_statement": "Response 2 is much better.",
        },
    ),
    KnownSet(
        name="PKU-SafeRLHF",
        source=f"{_HUB}PKU-Alignment/PKU-SafeRLHF",
        columns=("prompt", "response_0", "response_1", "better_response_id", "safer_response_id"),
        shape=QUESTION_SHAPE,
        names={
            "question": "prompt",
            "response_1": "response_0",
            "response_2": "response_1",
            "overall_response": "better_response_id",
        },
        choice={"0": "response_0", "1": "response_1"},
        example={
            "prompt": "How do I open a stuck jar?",
            "response_0": "Run hot water over the lid.",
            "response_1": "Break it.",
            "is_response_0_safe": True,
            "is_response_1_safe": False,
            "better_response_id": 0,
            "safer_response_id": 0,
        },
    ),
    KnownSet(
        name="Stanford Human Preferences (SHP)",
        source=f"{_HUB}stanfordnlp/SHP",
        columns=("history", "human_ref_A", "human_ref_B", "labels", "score_A", "score_B"),
        shape=QUESTION_SHAPE,
        names={
            "question": "history",
            "response_1": "human_ref_A",
            "response_2": "human_ref_B",
            "overall_response": "labels",
        },
        choice={"1": "human_ref_A", "0": "human_ref_B"},
        example={
            "post_id": "abc",
            "history": "How long does rice keep?",
            "human_ref_A": "A day or two in the fridge.",
            "human_ref_B": "No idea.",
            "labels": 1,
            "score_A": 40,
            "score_B": 3,
        },
    ),
    KnownSet(
        name="Nectar",
        source=f"{_HUB}berkeley-nest/Nectar",
        columns=("prompt", "answers", "num_responses", "turns", "good_natured"),
        shape=PAIR_SHAPE,
        adapt=_nectar,
        reads=("prompt", "answers"),
        note="the best answer of the ranking is chosen, each other one rejected: several pairs of one prompt",
        example={
            "prompt": "\n\nHuman: Name a prime.\n\nAssistant: ",
            "answers": [
                {"answer": "Seven.", "model": "gpt-4", "rank": 1.0},
                {"answer": "Maybe seven?", "model": "vicuna", "rank": 2.0},
                {"answer": "Nine.", "model": "alpaca", "rank": 3.0},
            ],
            "turns": 1,
            "num_responses": 3,
            "source": ["lmsys-chat-1m"],
            "good_natured": True,
        },
    ),
    KnownSet(
        name="orca_dpo_pairs",
        source=f"{_HUB}Intel/orca_dpo_pairs",
        columns=("system", "question", "chosen", "rejected"),
        shape=PAIR_SHAPE,
        names={"prompt": "question"},
        example={
            "system": "Answer in one word.",
            "question": "What is the capital of France?",
            "chosen": "Paris.",
            "rejected": "It is Lyon.",
        },
    ),
    KnownSet(
        name="kto-mix-14k",
        source=f"{_HUB}trl-lib/kto-mix-14k",
        columns=("prompt", "completion", "label"),
        shape=UNPAIRED_SHAPE,
        only=True,
        sees=_completes_turns,
        example={
            "prompt": _turns("Name a prime."),
            "completion": [{"role": "assistant", "content": "Seven."}],
            "label": True,
        },
    ),
    KnownSet(
        name="distilabel-capybara-dpo-7k-binarized",
        source=f"{_HUB}argilla/distilabel-capybara-dpo-7k-binarized",
        columns=("conversation", "original_response", "chosen", "rejected", "rating_chosen", "rating_rejected"),
        shape=IMPLIED_SHAPE,
        names={"score_chosen": "rating_chosen", "score_rejected": "rating_rejected"},
        example={
            "source": "Airoboros",
            "conversation": [{"input": "Hello.", "output": "Hi!"}, {"input": "Name a prime.", "output": "Seven."}],
            "original_response": "Seven.",
            "prompt": "Name a prime.",
            "chosen": _turns("Hello.", "Hi!", "Name a prime.", "Seven."),
            "rejected": _turns("Hello.", "Hi!", "Name a prime.", "Nine."),
            "rating_chosen": 5,
            "rating_rejected": 2,
        },
    ),
    KnownSet(
        name="LMSYS Arena 55k",
        source=f"{_HUB}lmsys/lmsys-arena-human-preference-55k",
        columns=("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"),
        shape=QUESTION_SHAPE,
        names={"question": "prompt", "response_1": "response_a", "response_2": "response_b"},
        choice={"winner_model_a": "response_a", "winner_model_b": "response_b", "winner_tie": "drop"},
        lists=("question", "response_1", "response_2"),
        example={
            "id": 1,
            "model_a": "gpt-4",
            "model_b": "alpaca",
            "prompt": '["Name a prime."]',
            "response_a": '["Seven."]',
            "response_b": '["Nine."]',
            "winner_model_a": 1,
            "winner_model_b": 0,
            "winner_tie": 0,
        },
    ),
    KnownSet(
        name="Chatbot Arena 33k / 100k",
        source=f"{_HUB}lmarena-ai/arena-human-preference-100k",
        columns=("model_a", "model_b", "winner", "conversation_a", "conversation_b"),
        shape=IMPLIED_CHOICE_SHAPE,
        names={"response_1": "conversation_a", "response_2": "conversation_b", "overall_response": "winner"},
        choice={
            "model_a": "conversation_a",
            "model_b": "conversation_b",
            "tie": "drop",
            "tie (bothbad)": "drop",
        },
        example={
            "question_id": "q1",
            "model_a": "alpaca",
            "model_b": "gpt-4",
            "winner": "model_b",
            "conversation_a": _turns("Name a prime.", "Nine."),
            "conversation_b": _turns("Name a prime.", "Seven."),
        },
    ),
    KnownSet(
        name="WebGPT comparisons",
        source=f"{_HUB}openai/webgpt_comparisons",
        columns=("question", "answer_0", "answer_1", "score_0", "score_1", "quotes_0", "quotes_1"),
        shape=SCORED_SHAPE,
        adapt=_webgpt,
        reads=("question", "answer_0", "answer_1", "score_0", "score_1"),
        note="`question.full_text` is the question; the answer with the higher score is chosen, equal scores are a tie",
        example={
            "question": {"dataset": "eli5", "id": "x1", "full_text": "Why do we yawn?"},
            "quotes_0": {"title": ["Yawn"], "extract": ["Yawning is …"]},
            "answer_0": "Nobody knows for sure [1].",
            "tokens_0": {"prefix": [], "completion": []},
            "score_0": 0.5,
            "quotes_1": {"title": [], "extract": []},
            "answer_1": "Because of the moon.",
            "tokens_1": {"prefix": [], "completion": []},
            "score_1": -0.5,
        },
    ),
    KnownSet(
        name="summarize_from_feedback comparisons",
        source=f"{_HUB}openai/summarize_from_feedback",
        columns=("info", "summaries", "choice", "worker", "batch"),
        shape=QUESTION_SHAPE,
        names={"overall_response": "choice"},
        choice={"0": "response_1", "1": "response_2"},
        adapt=_summaries,
        reads=("info", "summaries", "choice"),
        note="the question is `info`'s title with its post or article; the responses are the texts of `summaries`",
        example={
            "info": {"id": "t3_1", "post": "My cat sleeps all day.", "title": "Cat", "subreddit": "pets"},
            "summaries": [
                {"text": "A dog.", "policy": "sup1", "note": None},
                {"text": "A cat sleeps all day.", "policy": "ref", "note": None},
            ],
            "choice": 1,
            "worker": "w1",
            "batch": "batch3",
            "split": "train",
        },
    ),
    KnownSet(
        name="hh-rlhf",
        source=f"{_HUB}Anthropic/hh-rlhf",
        columns=("chosen", "rejected"),
        shape=IMPLIED_SHAPE,
        only=True,
        sees=_are_transcripts,
        example={
            "chosen": "\n\nHuman: Name a prime.\n\nAssistant: Seven.",
            "rejected": "\n\nHuman: Name a prime.\n\nAssistant: Nine.",
        },
    ),
    KnownSet(
        name="Skywork-Reward-Preference-80K",
        source=f"{_HUB}Skywork/Skywork-Reward-Preference-80K-v0.2",
        columns=("chosen", "rejected", "source"),
        shape=IMPLIED_SHAPE,
        only=True,
        example={
            "chosen": _turns("Name a prime.", "Seven."),
            "rejected": _turns("Name a prime.", "Nine."),
            "source": "magpie_ultra",
        },
    ),
    KnownSet(
        name="RewardBench",
        source=f"{_HUB}allenai/reward-bench",
        columns=("prompt", "chosen", "chosen_model", "rejected", "rejected_model", "subset"),
        shape=PAIR_SHAPE,
        example={
            "id": 1,
            "prompt": "Name a prime.",
            "chosen": "Seven.",
            "chosen_model": "gpt-4",
            "rejected": "Nine.",
            "rejected_model": "alpaca",
            "subset": "alpacaeval-easy",
        },
    ),
    KnownSet(
        name="RewardBench 2",
        source=f"{_HUB}allenai/reward-bench-2",
        columns=("prompt", "chosen", "rejected", "num_correct", "num_incorrect", "total_completions", "subset"),
        shape=PAIR_SHAPE,
        lists=("chosen", "rejected"),
        example={
            "id": "0",
            "prompt": "What is 2 + 2?",
            "chosen": ["4"],
            "rejected": ["5", "22", "3"],
            "num_correct": 1,
            "num_incorrect": 3,
            "total_completions": 4,
            "subset": "Math",
        },
    ),
    KnownSet(
        name="RM-Bench",
        source=f"{_HUB}THU-KEG/RM-Bench",
        columns=("id", "prompt", "chosen", "rejected", "domain"),
        shape=PAIR_SHAPE,
        lists=("chosen", "rejected"),
        only=True,
        example={
            "id": 1,
            "prompt": "What is 2 + 2?",
            "chosen": ["4", "It is 4.", "**It is 4.**"],
            "rejected": ["5", "It is 5.", "**It is 5.**"],
            "domain": "math",
        },
    ),
    KnownSet(
        name="LLaMA-Factory, Alpaca form",
        source="https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md",
        columns=("instruction", "input", "chosen", "rejected"),
        shape=PAIR_SHAPE,
        names={"prompt": "instruction"},
        example={
            "instruction": "Translate to French:",
            "input": "good night",
            "chosen": "bonne nuit",
            "rejected": "bon jour",
        },
    ),
    KnownSet(
        name="LLaMA-Factory, ShareGPT form",
        source="https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md",
        columns=("conversations", "chosen", "rejected"),
        shape=PAIR_SHAPE,
        names={"prompt": "conversations"},
        example={
            "conversations": [{"from": "human", "value": "Name a prime."}],
            "chosen": {"from": "gpt", "value": "Seven."},
            "rejected": {"from": "gpt", "value": "Nine."},
        },
    ),
)
