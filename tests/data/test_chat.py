from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors, trainers
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast

from align_bench.data.chat import tokenize
from align_bench.data.token_rows import load_table, save_table
from align_bench.errors import DataError, ModelError
from align_bench.models.tokenizer import with_inputs
from align_bench.records import Message, Preference, PreferenceSet, TemplateInputs, TokenRow, TokenTable

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

# Answers that the fixture's tokenizer merges with the question itself where no header stands between them.
MERGED_WITH_THE_QUESTION = [("\ngood", "bad"), ("\n\n", "\n")]

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


@pytest.mark.parametrize("template", [TRAILING, DEFAULT + BETWEEN, PHI, NO_END, None])
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
            if answers in MERGED_WITH_THE_QUESTION:
                assert tokens.prompt == tuple(tokenizer("What is Paris?\n")["input_ids"])
                assert ids == (*tokenizer(answer)["input_ids"], tokenizer.eos_token_id)
                continue
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


def test_a_thinking_block_that_the_header_opens_is_of_the_prompt_as_in_generation(make: Make) -> None:
    tokenizer = make(THINKING)
    (row,) = table(tokenizer, talk()).rows
    question = [{"role": "user", "content": "What is Paris?"}]
    assert tokenizer.decode(row.prompt) == tokenizer.apply_chat_template(
        question, add_generation_prompt=True, tokenize=False
    )
    assert texts(tokenizer, row)[1:] == ("good<|im_end|>", "bad<|im_end|>")


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


def test_a_row_that_the_template_refuses_is_dropped_and_the_others_are_used(make: Make) -> None:
    rows = [talk(), talk(("system", "Be curt."), ("user", "hi"), pair=17), talk(pair=18)]
    result = table(make(NO_SYSTEM), *rows)
    reason = "refused by the chat template: System role not supported"
    assert [row.pair for row in result.rows] == [0, 18]
    assert result.counts == {"kept": 2, "truncated": 0, f"dropped: {reason}": 1}
    assert result.examples == {reason: 17}
    assert result.rows[0] == table(make(NO_SYSTEM), talk()).rows[0]


def test_a_template_that_refuses_all_rows(make: Make) -> None:
    with pytest.raises(DataError, match=r"none of 1 rows is left.*System role not supported") as caught:
        table(make(NO_SYSTEM), talk(("system", "Be curt."), ("user", "hi")))
    assert "takes these turns" in (caught.value.fix or "")
    with pytest.raises(DataError, match="refuses every conversation, such as user, assistant: no such luck"):
        table(make("{{ raise_exception('no such luck') }}"), talk())


def test_a_template_that_jinja_cannot_read_is_told_with_its_line(make: Make) -> None:
    broken = "{% for message in messages %}\n{{ message['content'] }}\n{% endfro %}"
    with pytest.raises(ModelError, match=r"its chat template cannot be read: line 3: .*'endfro'") as caught:
        table(make(broken), talk())
    assert "mend it: chat_template.jinja" in str(caught.value)
    with pytest.raises(ModelError, match=r"line 1: No filter named 'trimm'"):
        table(make("{{ messages[0]['content'] | trimm }}"), talk())


def test_a_template_that_wants_a_system_turn_is_known_by_the_rows(make: Make) -> None:
    wants = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}" + TRAILING
    tokenizer = make(wants)
    result = table(tokenizer, talk(), talk(("system", "Be curt."), ("user", "hi"), pair=1))
    assert result.counts["dropped: refused by the chat template: system first"] == 1
    assert texts(tokenizer, result.rows[0])[1:] == ("good<|im_end|>", "bad<|im_end|>")


def test_a_prompt_that_only_generation_writes_is_the_prompt(make: Make) -> None:
    tokenizer = make(OTHER_PROMPT)
    (row,) = table(tokenizer, talk(pair=3)).rows
    prompt, *answers = texts(tokenizer, row)
    assert prompt.startswith("Please write a long and careful answer to this: <|im_start|>user\nWhat is Paris?")
    assert prompt.endswith("<|im_start|>assistant\n")
    assert answers == ["good<|im_end|>", "bad<|im_end|>"]


SYSTEM = "{% if messages[0].role == 'system' %}{% set rule = messages[0].content %}{% set messages = messages[1:] %}{% endif %}"  # noqa: E501
MOVED = SYSTEM + (
    "{% for m in messages %}{% if m.role == 'user' %}[INST]"
    "{% if loop.last and rule is defined %}{{ rule + ' ' }}{% endif %}{{ m.content }}[/INST]"
    "{% else %}{{ ' ' + m.content }}<|im_end|>{% endif %}{% endfor %}"
)
FOOTER = TRAILING + "{% if not add_generation_prompt %}{{ messages[0].content }}<|im_end|>{% endif %}"
INSIDE = SYSTEM + TURNS.replace(
    "<|im_end|>{{ AFTER }}", "{% if m.role == 'assistant' and rule is defined %} ({{ rule }}){% endif %}<|im_end|>\n"
) + HEADER  # fmt: skip
BEFORE = SYSTEM + TURNS.replace(
    "{{ m.content }}", "{% if m.role == 'assistant' and rule is defined %}({{ rule }}) {% endif %}{{ m.content }}"
).replace("{{ AFTER }}", "\n") + HEADER  # fmt: skip
REASONING = "<think>\nhow so\n</think>\n\n"
LAST_ONLY = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1].lstrip('\n') }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}" + HEADER
)
BLOCK = TURNS.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' and loop.last and '</think>' not in m.content %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"  # noqa: E501
    "{{ m.content }}",
).replace("{{ AFTER }}", "\n") + HEADER + (
    "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)  # fmt: skip
REMOVING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
RULED = (("system", "Never say Paris twice."), ("user", "What is Paris?"))


@pytest.mark.parametrize("turns", [RULED, (("system", "x" * 60), *RULED[1:])])
def test_system_text_that_moves_once_there_is_an_answer_stays_in_the_prompt(
    make: Make, turns: tuple[tuple[str, str], ...]
) -> None:
    tokenizer = make(MOVED)
    rows = table(tokenizer, talk(*turns), talk(pair=1)).rows
    assert texts(tokenizer, rows[0]) == (
        f"[INST]{turns[0][1]} What is Paris?[/INST]",
        " good<|im_end|>",
        " bad<|im_end|>",
    )
    assert texts(tokenizer, rows[1]) == ("[INST]What is Paris?[/INST]", " good<|im_end|>", " bad<|im_end|>")


def test_a_footer_with_the_text_of_a_turn_is_cut(make: Make) -> None:
    tokenizer = make(FOOTER)
    (row,) = table(tokenizer, talk(*RULED)).rows
    assert texts(tokenizer, row)[1:] == ("good<|im_end|>", "bad<|im_end|>")


@pytest.mark.parametrize("template", [INSIDE, BEFORE])
def test_a_row_whose_answer_the_template_mixes_with_another_turn_is_dropped(make: Make, template: str) -> None:
    tokenizer = make(template)
    result = table(tokenizer, talk(*RULED), talk(pair=1))
    assert [row.pair for row in result.rows] == [1]
    assert result.counts["dropped: the chat template does not write the answer after its prompt"] == 1


def test_reasoning_of_earlier_turns_may_be_taken_out(make: Make) -> None:
    tokenizer = make(LAST_ONLY)
    turns = (("user", "hi"), ("assistant", REASONING + "good"), ("user", "why?"))
    (row,) = table(tokenizer, talk(*turns, chosen=REASONING + "good", rejected="bad")).rows
    prompt, *answers = texts(tokenizer, row)
    assert "how so" not in prompt
    assert answers == [REASONING + "good<|im_end|>", "bad<|im_end|>"]


def test_an_answer_with_reasoning_is_kept_where_the_template_keeps_it(make: Make) -> None:
    tokenizer = make(BLOCK)
    plain, thought = table(tokenizer, talk(), talk(chosen=REASONING + "good", pair=1)).rows
    empty = "<think>\n\n</think>\n\n"
    assert texts(tokenizer, plain)[1:] == (empty + "good<|im_end|>", empty + "bad<|im_end|>")
    assert texts(tokenizer, thought)[1:] == (REASONING + "good<|im_end|>", empty + "bad<|im_end|>")


def test_an_empty_thinking_block_is_of_the_prompt_where_the_suite_turns_thinking_off(make: Make) -> None:
    tokenizer = with_inputs(make(BLOCK), TemplateInputs({"enable_thinking": False}))
    (row,) = table(tokenizer, talk()).rows
    question = [{"role": "user", "content": "What is Paris?"}]
    written = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    assert written.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert texts(tokenizer, row) == (written, "good<|im_end|>", "bad<|im_end|>")


def test_answers_that_differ_in_what_the_template_removes_are_dropped_with_advice_that_fits(make: Make) -> None:
    row = talk(chosen=REASONING + "good", rejected="<think>\nor so\n</think>\n\ngood")
    with pytest.raises(DataError, match="1 dropped: answers differ only in what the chat template removes") as caught:
        table(make(REMOVING), row)
    assert "max_length" not in (caught.value.fix or "")
    assert "</think>" in (caught.value.fix or "")


def test_no_merge_takes_text_of_a_turn_into_an_answer(make: Make) -> None:
    bare = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<|im_end|>{% endif %}{% endfor %}"
    tokenizer = make(bare)
    merged = tokenizer("What is Paris?\n\ngood")["input_ids"]
    alone = tokenizer("What is Paris?")["input_ids"]
    assert merged[: len(alone)] != alone, "the test needs such a merge"
    (row,) = table(tokenizer, talk(chosen="\n\ngood")).rows
    assert texts(tokenizer, row) == ("What is Paris?", "\n\ngood<|im_end|>", "bad<|im_end|>")


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
        "kept": 1, "truncated": 0, "dropped: equal answers after truncation": 1, 
        "dropped: answers differ only in what the chat template removes": 1,
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


def test_saved_tables_come_back_equal(tmp_path: Path) -> None:
    rows = (
        TokenRow(3, (1, 2, 100_000), (4,), (5, 6), 1),
        TokenRow(5, (7,), None, (8, 9, 10)),
        TokenRow(6, (7, 300), (1,), None, 2),
        TokenRow(7, (7, 301), (1,), (2,), None, -0.75),
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
    rows = [talk(("user", f"What is {pair % 500}?"), chosen=f"good {pair}", pair=pair) for pair in range(1000)]
    table(tokenizer, *rows)
    assert len(sizes) <= 6
    # Each text once: a prompt up to its header, the header alone and with the rejected answer, and each chosen answer.
    assert sum(sizes) - 1 == 500 + 2 + 1000
