"""Data, models and notes that are damaged or meant to harm: each is refused in words, soon, and named."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align_bench.data.preferences import DataSource, read
from align_bench.errors import AlignBenchError, DataError, ModelError
from align_bench.models.base import base_parameters, find_base, template_inputs

Refused = Callable[..., str]
ROW = {"prompt": "a", "chosen": "b", "rejected": "c"}


def lines(*rows: object) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(columns: Mapping[str, object]) -> bytes:
    """A Parquet file's bytes."""
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


GOOD = parquet({name: [text] * 3 for name, text in ROW.items()})
DATA: dict[str, bytes] = {
    "empty.jsonl": b"",
    "blank.jsonl": b"\n\n",
    "list.jsonl": b"[1]\n",
    "number.jsonl": b"3\n",
    "null.jsonl": b"null\n",
    "cut.jsonl": lines(ROW)[:-4],
    "second.jsonl": lines(ROW) + b"{\n",
    "deep.jsonl": b"[" * 100_000 + b"]" * 100_000,
    "deep_objects.jsonl": b'{"prompt":' * 50_000 + b"1" + b"}" * 50_000,
    "deep_value.jsonl": b'{"prompt": "a", "chosen": ' + b"[" * 100_000 + b"]" * 100_000 + b', "rejected": "c"}',
    "less_deep.jsonl": b'{"prompt": "a", "chosen": ' + b"[" * 900 + b"]" * 900 + b', "rejected": "c"}',
    "digits.jsonl": b'{"prompt": ' + b"9" * 10_000 + b', "chosen": "a", "rejected": "b"}',
    "nan.jsonl": b'{"prompt": NaN, "chosen": "a", "rejected": "b"}',
    "infinite.jsonl": b'{"prompt": "q", "chosen": 1e999, "rejected": "b"}',
    "no_columns.jsonl": b"{}\n",
    "other_columns.jsonl": lines({"x": 1}),
    "escapes.jsonl": lines({"\x1b[2J": 1, "\u202e": 2}),
    "many_columns.jsonl": lines({f"column{number}": number for number in range(5000)}),
    "long_column.jsonl": lines({"c" * 100_000: 1}),
    "latin.jsonl": b'{"prompt": "\xff"}',
    "zeros.jsonl": b"\0\0\0",
    "surrogate.jsonl": b'{"prompt": "\\ud800", "chosen": "a", "rejected": "b"}',
    "numbers.jsonl": lines({"prompt": 1, "chosen": 2, "rejected": 3}),
    "nulls.jsonl": lines(dict.fromkeys(ROW)),
    "lists.jsonl": lines({"prompt": [1], "chosen": [2], "rejected": [3]}),
    "turns.jsonl": lines({"prompt": [{"role": 1, "content": 2}], "chosen": [{"x": 1}], "rejected": []}),
    "equal.jsonl": lines({"prompt": "a", "chosen": "b", "rejected": "b"}),
    "blank_texts.jsonl": lines(dict.fromkeys(ROW, "")),
    "choice.jsonl": lines({"question": "a", "response_1": "b", "response_2": "c", "overall_response": 10**30}),
    "choices.jsonl": lines({"question": "a", "response_1": "b", "response_2": "c", "overall_response": [1]}),
    "label.jsonl": lines({"prompt": "a", "completion": "b", "label": {"a": 1}}),
    "empty.json": b"",
    "object.json": b"{}",
    "no_rows.json": b"[]",
    "numbers.json": b"[1, 2]",
    "open.json": b"[" * 100_000,
    "deep.json": b"[" * 100_000 + b"]" * 100_000,
    "text.json": b'"x"',
    "cut.json": b'[{"a": 1}',
    "digits.json": b"9" * 10_000,
    "nan.json": b"NaN",
    "empty.csv": b"",
    "header.csv": b"prompt,chosen,rejected\n",
    "more.csv": b"prompt,chosen,rejected\na,b,c,d\n",
    "fewer.csv": b"prompt,chosen,rejected\na\n",
    "quote.csv": b'prompt,chosen,rejected\n"a,b,c\n',
    "quotes.csv": b'prompt,chosen,rejected\n"a"b,c,d\n',
    "latin.csv": b"prompt,chosen\n\xff,b\n",
    "twice.csv": b"prompt,prompt,chosen,rejected\na,a,b,c\n",
    "blank.csv": b"\n\n\n",
    "odd_utf16.csv": "prompt\n".encode("utf-16")[:-1],
    "commas.csv": b"," * 50_000,
    "empty.parquet": b"",
    "magic.parquet": b"PAR1",
    "no_footer.parquet": GOOD[:-4],
    "half.parquet": GOOD[: len(GOOD) // 2],
    "long_footer.parquet": GOOD[:-8] + b"\xff\xff\xff\x7fPAR1",
    "zeros.parquet": b"PAR1" + b"\0" * 100 + b"PAR1",
    "noise.parquet": bytes(range(256)) * 4,
    "no_rows.parquet": parquet({name: pa.array([], pa.string()) for name in ROW}),
    "other.parquet": parquet({"x": [1]}),
    "bytes.parquet": parquet({name: [b"\xff"] for name in ROW}),
    "structs.parquet": parquet({"prompt": [{"a": 1}], "chosen": [{"a": 1}], "rejected": [{"b": 1}]}),
    "escapes.parquet": parquet({"\x1b[2J": [1]}),
    "text_of_bytes.parquet": parquet({"prompt": pa.array([b"\xff"], pa.binary()).view(pa.string()), "chosen": ["a"]}),
    "empty.arrow": b"",
    "magic.arrow": b"ARROW1\0\0",
    "noise.arrow": b"\xff" * 100,
    "zeros.arrow": b"ARROW1\0\0" + b"\0" * 100 + b"ARROW1",
    "empty.jsonl.gz": b"",
    "magic.jsonl.gz": b"\x1f\x8b",
    "cut.jsonl.gz": gzip.compress(lines(ROW) * 100)[:-10],
    "plain.csv.gz": b"nope",
    "magic.jsonl.zst": b"\x28\xb5\x2f\xfd",
    "plain.jsonl.zst": b"nope",
    "packed.parquet.gz": GOOD,
    "notes.txt": b"hi",
    "no_suffix": b"hi",
    "suite.yaml": b"a: 1",
    "sheet.xlsx": b"PK",
    "other.jsonl.bz2": b"BZ",
}
NAMES = [
    *(
        "pipe.jsonl",
        "folder.jsonl",
        "loop.jsonl",
        "endless.jsonl",
        "null.jsonl",
        "socket.jsonl",
        "none.jsonl",
        "",
        "\0",
    ),
    *(
        "x" * 5000,
        "\x1b[2J.jsonl",
        "*.none",
        "**",
        "[",
        "~nobody/x.jsonl",
        "/dev/zero",
        "/dev/stdin",
        "a/" * 3000 + "x",
    ),
    *("embedded/none", "-", "a b", "http://x/y", "..", "*" * 3000, "\ud800.jsonl", "\u202ecsv.jsonl"),
]


@pytest.mark.parametrize("name", DATA)
def test_damaged_data_is_refused(elsewhere: Path, refused: Refused, name: str) -> None:
    (elsewhere / name).write_bytes(DATA[name])
    assert name in refused("data", name)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_file_of_data_is_refused(elsewhere: Path, refused: Refused, name: str) -> None:
    os.mkfifo(elsewhere / "pipe.jsonl")
    (elsewhere / "folder.jsonl").mkdir()
    (elsewhere / "loop.jsonl").symlink_to("loop.jsonl")
    (elsewhere / "endless.jsonl").symlink_to("/dev/zero")
    (elsewhere / "null.jsonl").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jsonl")
        refused("data", "--", name)


CONFIG = b'{"vocab_size": 8, "eos_token_id": 1}'


def tensors(header: object, room: int = 64) -> bytes:
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * room


def tensor(**changed: object) -> dict[str, object]:
    """A header of one tensor."""
    return {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changed}}


def gguf(version: int = 3, count: int = 0, keys: int = 0, magic: bytes = b"GGUF") -> bytes:
    """The beginning of a GGUF file."""
    return magic + version.to_bytes(4, "little") + count.to_bytes(8, "little") + keys.to_bytes(8, "little")


CONFIGS = {
    "empty": b"",
    "list": b"[]",
    "number": b"3",
    "null": b"null",
    "cut": b'{"a": ',
    "latin": b'{"a": "\xff"}',
    "zeros": b"\0" * 10,
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "digits": b'{"vocab_size": ' + b"9" * 10_000 + b"}",
    "large": b" " * (17 * 2**20),
}
HEADERS = {
    "empty": b"",
    "short": b"\1\2",
    "no header": (0).to_bytes(8, "little"),
    "a long header": (2**40).to_bytes(8, "little") + b"{}",
    "the longest header": b"\xff" * 8 + b"{}",
    "noise": bytes(range(256)),
    "a list": tensors([]),
    "null": tensors(None),
    "a text": tensors("x"),
    "cut": tensors(b'{"w": {'),
    "latin": tensors(b'{"\xff": 1}'),
    "deep": tensors(b"[" * 50_000),
    "digits": tensors(b'{"w": {"shape": [' + b"9" * 10_000 + b"]}}"),
    "a tensor that is none": tensors({"w": 3}),
    "no shape": tensors({"w": {}}),
    "a text as shape": tensors(tensor(shape="4")),
    "a negative shape": tensors(tensor(shape=[-1])),
    "a broken shape": tensors(tensor(shape=[0.5])),
    "a true shape": tensors(tensor(shape=[True])),
    "a huge shape": tensors(tensor(shape=[2**60])),
    "huge shapes": tensors(tensor(shape=[2**40, 2**40])),
    "no place": tensors(tensor(data_offsets=None)),
    "a place outside": tensors(tensor(data_offsets=[0, 10**9])),
    "a place backwards": tensors(tensor(data_offsets=[16, 0])),
    "a negative place": tensors(tensor(data_offsets=[-4, 4])),
}
GGUFS = {
    "empty": b"",
    "short": b"GGUF",
    "another magic": gguf(magic=b"GGML"),
    "version 0": gguf(version=0),
    "version 9": gguf(version=9),
    "the other byte order": b"GGUF" + (3).to_bytes(4, "big") + b"\0" * 16,
    "many tensors": gguf(count=2**60),
    "many keys": gguf(keys=2**60),
    "noise": bytes(range(256)),
}


def model(folder: Path, config: bytes = CONFIG, weights: bytes | None = None) -> str:
    """A model's folder."""
    folder.mkdir()
    (folder / "config.json").write_bytes(config)
    (folder / "model.safetensors").write_bytes(tensors(tensor()) if weights is None else weights)
    return str(folder)


def looked_at(name: str) -> None:
    """All that a plan asks of a model."""
    base = find_base(name)
    assert isinstance(base.vocabulary, int | None)
    assert isinstance(base.end_token, int | None)
    template_inputs(base)
    base_parameters(base)
    assert base.positions is None or base.positions.tokens > 0


def test_a_sound_model_is_found(elsewhere: Path) -> None:
    looked_at(model(elsewhere / "m"))
    assert base_parameters(find_base("m")) == 4


@pytest.mark.parametrize("content", CONFIGS.values(), ids=CONFIGS)
def test_a_damaged_configuration_is_refused(elsewhere: Path, content: bytes) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        looked_at(model(elsewhere / "m", config=content))


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_a_damaged_header_is_refused(elsewhere: Path, content: bytes) -> None:
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        looked_at(model(elsewhere / "m", weights=content))


@pytest.mark.parametrize("content", GGUFS.values(), ids=GGUFS)
def test_a_damaged_gguf_file_is_refused(elsewhere: Path, content: bytes) -> None:
    (elsewhere / "m.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.gguf"):
        looked_at("m.gguf")


@pytest.mark.parametrize(
    "key", ["vocab_size", "eos_token_id", "text_config", "max_position_embeddings", "rope_scaling"]
)
@pytest.mark.parametrize(
    "value", [None, "x", [], {}, -1, 0.5, True, [[]], {"a": 1}, {"factor": "x", "type": "yarn"}, 10**30]
)
def test_odd_values_of_a_configuration_do_not_harm(elsewhere: Path, key: str, value: object) -> None:
    looked_at(model(elsewhere / "m", config=json.dumps({key: value}).encode()))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "\0",
        "x" * 5000,
        "a/" * 3000,
        "..",
        "/dev/zero",
        "pipe",
        "pipe.gguf",
        "~nobody/x",
        "x.bin",
        "./none",
        "empty",
    ],
)
def test_what_is_no_model_is_refused(elsewhere: Path, name: str) -> None:
    os.mkfifo(elsewhere / "pipe")
    os.mkfifo(elsewhere / "pipe.gguf")
    (elsewhere / "x.bin").write_bytes(b"")
    (elsewhere / "empty").mkdir()
    started = time.monotonic()
    with pytest.raises(ModelError):
        find_base(name)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_in_a_models_folder_is_refused(elsewhere: Path, name: str) -> None:
    model(elsewhere / "m")
    (elsewhere / "m" / name).unlink(missing_ok=True)
    os.mkfifo(elsewhere / "m" / name)
    with pytest.raises(ModelError):
        find_base("m")


FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(place=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), kept=st.integers(1, len(GOOD)))
def test_any_damage_to_parquet_is_read_or_refused(elsewhere: Path, place: int, byte: int, kept: int) -> None:
    damaged = bytearray(GOOD)
    damaged[place] = byte
    (elsewhere / "rows.parquet").write_bytes(bytes(damaged[:kept]))
    assert said_of("rows.parquet") is not None


@FUZZ
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_any_text_is_read_or_refused(elsewhere: Path, suffix: str, content: bytes) -> None:
    (elsewhere / f"rows{suffix}").write_bytes(content)
    assert said_of(f"rows{suffix}") is not None


def said_of(name: str) -> str:
    """What is said of a file that is refused; nothing of one that is read."""
    try:
        read(DataSource(name))
    except DataError as error:
        return str(error)
    return ""


@FUZZ
@given(content=st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(tensors))
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("any") / "m"
    try:
        looked_at(model(folder, weights=content))
    except AlignBenchError as error:
        assert "model.safetensors" in error.message  # noqa: PT017 - it may also be read
