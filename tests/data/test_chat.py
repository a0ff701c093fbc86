from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors, trainers
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast

from align_bench.data.chat import load_table, save_table, tokenize
from align_bench.errors import DataError
from align_bench.records import Message, Preference, PreferenceSet, TokenRow, TokenTable

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{{ AFTER }}{% endfor %}"
HEADER = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
DEFAULT = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe nice.<|im_end|>\n{% endif %}"
TRAILING = TURNS.replace("{{ AFTER }}", "\n") + HEADER
BETWEEN = TURNS.replace("{{ AFTER }}", "{% if not loop.last or add_generation_prompt %}{{ '\\n' }}{% endif %}") + HEADER
NO_END = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
PHI = BETWEEN + "{% if not add_generation_prompt %}{{ '\\n<|endoftext|>' }}{% endif %}"
THINKING = BETWEEN + "{% if add_generation_prompt %}{{ '<think>\\n' }}{% endif %}"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TRAILING
)
OTHER_PROMPT = "{% if add_generation_prompt %}Please write a long and careful answer to this: {% endif %}" + TRAILING
STRIPPED = TRAILING.replace("m.content", "m.content | trim")

Make = Callable[..., PreTrainedTokenizerFast]

CORPUS = [
    "system user assistant Be nice. Please write a long and careful answer to this: What is Paris? good bad\n\n"
] * 50


@pytest.fixture(scope="module")
def backend() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # Texts are not split into words, so that merges run over the border between prompt and answer.
    tokenizer.train_from_iterator(
        [*CORPUS, *["assistant\n\n", "?\n\ngood"] * 50],
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False),
    )
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return tokenizer.to_str()


@pytest.fixture
def make(backend: str) -> Make:
    def make(template: str | None, **options: Any) -> PreTrainedTokenizerFast:
        options = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"} | options
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(backend), **options)
        tokenizer.chat_template = template
        return tokenizer

    return make


def talk(
    *turns: tuple[str, str],
    pair: int = 0,
    chosen: str | None = "good",
    rejected: str | None = "bad",
    gold_choice: int | None = None,
) -> Preference:
    prompt = tuple(Message(*turn) for turn in turns or [("user", "What is Paris?")])
    return Preference(pair, prompt, chosen, rejected, gold_choice=gold_choice)


def table(tokenizer: PreTrainedTokenizerFast, *rows: Preference, max_length: int = 200, **options: Any) -> TokenTable:
    return tokenize(tokenizer, PreferenceSet(rows, "", {}), max_length=max_length, **options)


def texts(tokenizer: PreTrainedTokenizerFast, row: TokenRow) -> tuple[str, str | None, str | None]:
    chosen, rejected = (None if ids is None else tokenizer.decode(ids) for ids in (row.chosen, row.rejected))
    return tokenizer.decode(row.prompt), chosen, rejected


def answers_of(row: TokenRow) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of both answers of a paired row."""
    assert row.chosen is not None
    assert row.rejected is not None
    return row.chosen, row.rejected


@pytest.mark.parametrize("template", [TRAILING, BETWEEN, PHI])
def test_answers_run_through_the_end_of_turn_and_no_further(make: Make, template: str | None) -> None:
    tokenizer = make(template)
    result = table(tokenizer, talk())
    assert texts(tokenizer, result.rows[0]) == (
        "<|im_start|>user\nWhat is Paris?<|im_end|>\n<|im_start|>assistant\n",
        "good<|im_end|>",
        "bad<|im_end|>",
    )
    assert result.counts == {"kept": 1, "truncated": 0}


def test_default_system_prompt_stays_in_the_prompt(make: Make) -> None:
    tokenizer = make(DEFAULT + TRAILING)
    plain, own = table(tokenizer, talk(), talk(("system", "Be curt."), ("user", "hi"))).rows
    assert texts(tokenizer, plain)[0].startswith("<|im_start|>system\nBe nice.<|im_end|>\n<|im_start|>user")
    assert texts(tokenizer, plain)[1:] == ("good<|im_end|>", "bad<|im_end|>")
    assert "Be nice." not in texts(tokenizer, own)[0]


def test_several_turns(make: Make) -> None:
    tokenizer = make(TRAILING)
    (row,) = table(tokenizer, talk(("user", "hi"), ("assistant", "good"), ("user", "why?"))).rows
    prompt, chosen, _ = texts(tokenizer, row)
    assert prompt.count("<|im_end|>") == 3
    assert prompt.endswith("assistant\n")
    assert chosen == "good<|im_end|>"


@pytest.mark.parametrize("template", [TRAILING, DEFAULT + BETWEEN, PHI, NO_END, THINKING, None])
@pytest.mark.parametrize(
    "answers", [("good", "bad"), ("\ngood", "bad"), ("\n\n", "\n"), (" good ", "good"), ("a", "ab")]
)
def test_prompt_and_answer_are_the_whole_conversation_tokenised_at_once(
    make: Make, template: str | None, answers: tuple[str, str]
) -> None:
    tokenizer = make(template)
    row = talk(chosen=answers[0], rejected=answers[1])
    (tokens,) = table(tokenizer, row).rows
    for answer, ids in zip(answers, answers_of(tokens), strict=True):
        if template is None:
            whole = "What is Paris?\n" + answer
        else:
            messages = [{"role": "user", "content": "What is Paris?"}, {"role": "assistant", "content": answer}]
            whole = tokenizer.apply_chat_template(messages, tokenize=False)
        end = tokenizer.eos_token_id
        if template in (NO_END, None):
            expected = [*tokenizer(whole.removesuffix("\n") if template else whole)["input_ids"], end]
        else:
            expected = tokenizer(whole)["input_ids"]
            expected = expected[: len(expected) - expected[::-1].index(end)]
        assert list(tokens.prompt + ids) == expected
        assert ids[-1] == end


def test_a_merge_over_the_border_goes_to_both_answers(make: Make) -> None:
    tokenizer = make(TRAILING)
    header = tokenizer("<|im_start|>assistant\n")["input_ids"]
    assert tokenizer("<|im_start|>assistant\n\n")["input_ids"][: len(header)] != header, "the test needs such a merge"
    (row,) = table(tokenizer, talk(chosen="\ngood")).rows
    assert row.prompt[-1] != header[-1]
    assert [tokenizer.decode(row.prompt + ids) for ids in answers_of(row)] == [
        "<|im_start|>user\nWhat is Paris?<|im_end|>\n<|im_start|>assistant\n" + answer + "<|im_end|>"
        for answer in ("\ngood", "bad")
    ]


def test_a_thinking_block_of_the_prompt_alone_is_no_prompt(make: Make) -> None:
    tokenizer = make(THINKING)
    assert texts(tokenizer, table(tokenizer, talk()).rows[0])[1] == "good<|im_end|>"


def test_end_token_is_appended_where_the_template_has_none(make: Make) -> None:
    tokenizer = make(NO_END)
    assert texts(tokenizer, table(tokenizer, talk()).rows[0])[1:] == ("good<|im_end|>", "bad<|im_end|>")


def test_the_templates_own_end_token_counts_not_the_tokenizers(make: Make) -> None:
    tokenizer = make(TRAILING, eos_token="<|endoftext|>")
    assert texts(tokenizer, table(tokenizer, talk()).rows[0])[1] == "good<|im_end|>"


def test_an_answer_that_quotes_the_end_token_is_not_cut_there(make: Make) -> None:
    tokenizer = make(TRAILING)
    (row,) = table(tokenizer, talk(chosen="good<|im_end|>\nbad")).rows
    assert texts(tokenizer, row)[1] == "good<|im_end|>\nbad<|im_end|>"


def test_unpaired_rows(make: Make) -> None:
    tokenizer = make(TRAILING)
    rows = table(tokenizer, talk(rejected=None), talk(chosen=None)).rows
    assert [texts(tokenizer, row)[1:] for row in rows] == [("good<|im_end|>", None), (None, "bad<|im_end|>")]


def test_pair_numbers_and_gold_are_kept(make: Make) -> None:
    rows = table(make(TRAILING), talk(pair=4), talk(pair=9, gold_choice=2)).rows
    assert [(row.pair, row.gold_choice) for row in rows] == [(4, None), (9, 2)]


def test_without_template(make: Make) -> None:
    tokenizer = make(None)
    rows = table(tokenizer, talk(), talk(("user", "hi"), ("assistant", "good"), ("user", "why?"))).rows
    assert texts(tokenizer, rows[0]) == ("What is Paris?\n", "good<|im_end|>", "bad<|im_end|>")
    assert texts(tokenizer, rows[1])[0] == "hi\ngood\nwhy?\n"


def add_bos(tokenizer: PreTrainedTokenizerFast) -> int:
    bos: int = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", bos)]
    )
    return bos


def test_beginning_of_text_comes_once(make: Make) -> None:
    plain = make(None, bos_token="<s>")
    assert plain.bos_token_id not in table(plain, talk()).rows[0].prompt
    bos = add_bos(plain)
    assert table(plain, talk()).rows[0].prompt.count(bos) == 1
    assert table(plain, talk()).rows[0].prompt[0] == bos
    chat = make("{{ bos_token }}" + TRAILING, bos_token="<s>")
    add_bos(chat)
    assert table(chat, talk()).rows[0].prompt.count(bos) == 1
    assert table(chat, talk()).rows[0].prompt[0] == bos


def test_no_end_token_at_all(make: Make) -> None:
    for template in (None, NO_END):
        with pytest.raises(DataError, match="no end token"):
            table(make(template, eos_token=None), talk())


def test_a_template_that_refuses_a_conversation(make: Make) -> None:
    rows = [talk(), talk(("system", "Be curt."), ("user", "hi"), pair=17)]
    with pytest.raises(DataError, match=r"row 17 .*system, user, assistant.*System role not supported"):
        table(make(NO_SYSTEM), *rows)
    with pytest.raises(DataError, match="row 17 "):
        table(make(NO_SYSTEM), rows[1])


def test_a_template_that_writes_another_prompt_once_answered(make: Make) -> None:
    with pytest.raises(DataError, match=r"row 3 .*writes the prompt differently"):
        table(make(OTHER_PROMPT), talk(pair=3))


def test_truncation_cuts_the_end_of_the_answer(make: Make) -> None:
    tokenizer = make(TRAILING)
    (full,) = table(tokenizer, talk(chosen="x" * 50)).rows
    longest = len(full.prompt) + 10
    result = table(tokenizer, talk(chosen="x" * 50), talk(), max_length=longest)
    assert result.rows[0].chosen == answers_of(full)[0][:10]
    assert result.rows[0].rejected == full.rejected
    assert result.counts == {"kept": 2, "truncated": 1}


def test_a_row_that_just_fits_is_whole(make: Make) -> None:
    tokenizer = make(TRAILING)
    (full,) = table(tokenizer, talk()).rows
    longest = len(full.prompt) + max(map(len, answers_of(full)))
    for too_long in ("truncate", "drop"):
        result = table(tokenizer, talk(), max_length=longest, too_long=too_long)
        assert result == TokenTable((full,), {"kept": 1, "truncated": 0})


def test_drop_drops_the_pair(make: Make) -> None:
    tokenizer = make(TRAILING)
    result = table(tokenizer, talk(rejected="x" * 50), talk(pair=1), max_length=40, too_long="drop")
    assert [row.pair for row in result.rows] == [1]
    assert result.counts == {"kept": 1, "truncated": 0, "dropped: longer than 40 tokens": 1}


def test_a_prompt_without_room_is_dropped(make: Make) -> None:
    tokenizer = make(TRAILING)
    result = table(tokenizer, talk(("user", "x" * 100)), talk(pair=1), max_length=40)
    assert [row.pair for row in result.rows] == [1]
    assert result.counts == {"kept": 1, "truncated": 0, "dropped: prompt leaves no room in 40 tokens": 1}


def test_answers_that_become_equal_are_dropped(make: Make) -> None:
    tokenizer = make(STRIPPED)
    rows = [talk(chosen="x" * 50 + "a", rejected="x" * 50 + "b"), talk(chosen="good", rejected="good "), talk(pair=2)]
    result = table(tokenizer, *rows, max_length=45)
    assert [row.pair for row in result.rows] == [2]
    assert result.counts == {
        "kept": 1, "truncated": 0, "dropped: equal answers after truncation": 1, "dropped: equal answers as tokens": 1,
    }  # fmt: skip


def test_nothing_left_is_an_error(make: Make) -> None:
    tokenizer = make(TRAILING)
    with pytest.raises(DataError, match="none of 1 rows is left after tokenising: 1 dropped: prompt leaves no room"):
        table(tokenizer, talk(), max_length=5)
    with pytest.raises(DataError, match="no rows to tokenise"):
        table(tokenizer)
    with pytest.raises(DataError, match="max_length is 1"):
        table(tokenizer, talk(), max_length=1)


def test_progress_is_reported(make: Make) -> None:
    seen: list[tuple[int, ...]] = []
    table(make(TRAILING), *[talk(pair=pair) for pair in range(600)], update=lambda *step: seen.append(step))
    assert seen[-1] == (600, 600)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_equal_ids_share_memory(make: Make) -> None:
    first, second = table(make(TRAILING), talk(), talk(pair=1)).rows
    assert all(a is b for a, b in zip(first.prompt, second.prompt, strict=True))


def test_saved_tables_come_back_equal(tmp_path: Path) -> None:
    rows = (
        TokenRow(3, (1, 2, 100_000), (4,), (5, 6), 1),
        TokenRow(5, (7,), None, (8, 9, 10)),
        TokenRow(6, (7, 300), (1,), None, 2),
    )
    for saved in (
        TokenTable(rows, {"kept": 3, "truncated": 1, "dropped: longer than 40 tokens": 2}),
        TokenTable((), {}),
    ):
        save_table(tmp_path / "seed=1.parquet", saved)
        loaded = load_table(tmp_path / "seed=1.parquet")
        assert loaded == saved
        assert all(type(token) is int for row in loaded.rows for token in row.prompt)


def test_tokenised_tables_come_back_equal(make: Make, tmp_path: Path) -> None:
    result = table(make(TRAILING), talk(), talk(rejected=None, pair=1))
    save_table(tmp_path / "table", result)
    assert load_table(tmp_path / "table") == result


def test_loading_something_else(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    with pytest.raises(DataError, match="not a readable token table"):
        load_table(path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="not a readable token table"):
        load_table(path)
    pq.write_table(pa.table({"pair": [1]}), path)
    with pytest.raises(DataError, match="but not a token table"):
        load_table(path)


def test_texts_are_tokenised_in_batches(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make(TRAILING)
    sizes: list[int] = []
    call = type(tokenizer).__call__

    def counting(self: PreTrainedTokenizerFast, text: list[str], **options: Any) -> Any:
        sizes.append(len(text))
        return call(self, text, **options)

    monkeypatch.setattr(type(tokenizer), "__call__", counting)
    table(tokenizer, *[talk(pair=pair) for pair in range(1000)])
    assert sum(sizes) - 1 == 3000
    assert len(sizes) <= 6
