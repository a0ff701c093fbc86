"""The store: whole or not at all, damaged counts as missing, one run at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from align_bench.errors import StoreError
from align_bench.records import Cost
from align_bench.store import MANIFEST, Artefact, Store, content_key, file_digest, write_atomically

COST = Cost(seconds=1.5, tokens=20, peak_bytes=300)
KIND, KEY = "adapter", "0123456789"
OPEN_STORE = """
import sys, time
from pathlib import Path
from align_bench.store import Store
store = Store(Path(sys.argv[1]))
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store, whose folder does not exist yet."""
    return Store(tmp_path / "runs" / "suite")


def fill(store: Store, **facts: Any) -> Artefact:
    """One artefact of two files, one of them in a subfolder."""
    with store.scratch(KIND, KEY) as folder:
        (folder / "weights.bin").write_bytes(b"\0\1\2")
        (folder / "deeper").mkdir()
        (folder / "deeper" / "notes.txt").write_text("ü\n", encoding="utf-8")
        return store.put(KIND, KEY, folder, COST, facts)


def visible(store: Store) -> list[str]:
    """The names in the store's folder, those of locks and the like aside."""
    return sorted(path.name for path in store.folder.iterdir())


@contextmanager
def child(code: str, store: Store) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `code` on the same store and says a line when it is where it should be."""
    process = subprocess.Popen(
        [sys.executable, "-c", OPEN_STORE + code, str(store.folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "there\n"
        yield process
    finally:
        process.kill()
        process.communicate()


# -- put and get -------------------------------------------------------------------------------------------------------


def test_what_was_put_comes_back(store: Store) -> None:
    assert (KIND, KEY) not in store
    assert store.get(KIND, KEY) is None
    put = fill(store, steps=3, shape="pairs")
    assert (KIND, KEY) in store
    assert store.get(KIND, KEY) == put == Artefact(store.path(KIND, KEY), COST, {"steps": 3, "shape": "pairs"})
    assert (put / "weights.bin").read_bytes() == b"\0\1\2"
    assert (put / "deeper/notes.txt").read_text(encoding="utf-8") == "ü\n"


def test_an_artefact_is_known_by_kind_and_key(store: Store) -> None:
    fill(store)
    assert store.get("val", KEY) is None
    assert store.get(KIND, "9876543210") is None
    assert ("val", KEY) not in store


def test_manifest_holds_the_checksums(store: Store) -> None:
    put = fill(store)
    manifest = json.loads((put / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["files"] == {name: file_digest(put / name) for name in ("deeper/notes.txt", "weights.bin")}
    assert (manifest["kind"], manifest["key"]) == (KIND, KEY)


def test_nothing_is_left_beside_the_artefact(store: Store) -> None:
    fill(store)
    assert visible(store) == [f"{KIND}-{KEY}"]


def test_put_replaces_what_has_no_manifest(store: Store) -> None:
    store.path(KIND, KEY).mkdir(parents=True)
    (store.path(KIND, KEY) / "stray.txt").touch()
    assert (KIND, KEY) not in store
    assert store.get(KIND, KEY) is None
    put = fill(store)
    assert store.get(KIND, KEY) == put
    assert not (put / "stray.txt").exists()


def test_empty_artefact_is_an_artefact(store: Store) -> None:
    with store.scratch(KIND, KEY) as folder:
        put = store.put(KIND, KEY, folder, COST, {})
    assert store.get(KIND, KEY) == put


# -- half-written ------------------------------------------------------------------------------------------------------


def test_failed_writer_leaves_nothing(store: Store) -> None:
    def write() -> None:
        with store.scratch(KIND, KEY) as folder:
            (folder / "half.bin").touch()
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        write()
    assert visible(store) == []


@pytest.mark.parametrize("sealed", [False, True])
def test_killed_writer_leaves_no_artefact(store: Store, sealed: bool) -> None:
    """Killed while it writes, or after the manifest but before the rename."""
    write = "(folder / 'manifest.json').write_text('{}')" if sealed else "(folder / 'weights.bin').write_bytes(b'half')"
    code = (
        "with store.scratch('adapter', '0123456789') as folder:\n"
        f"    {write}\n    print('there', flush=True)\n    time.sleep(600)\n"
    )
    with child(code, store):
        pass
    assert len(visible(store)) == 1, "the kill left its scratch folder"
    assert (KIND, KEY) not in store
    assert store.get(KIND, KEY) is None
    with store.scratch(KIND, KEY) as folder:
        assert not list(folder.iterdir()), "the next writer starts from an empty folder"
        put = store.put(KIND, KEY, folder, COST, {})
    assert store.get(KIND, KEY) == put
    assert visible(store) == [f"{KIND}-{KEY}"]


def test_partial_folder_is_no_artefact_and_outlives_the_writer(store: Store) -> None:
    partial = store.partial(KIND, KEY)
    partial.mkdir(parents=True)
    (partial / "checkpoint.pt").write_bytes(b"x")
    fill(store)
    assert (partial / "checkpoint.pt").exists()
    assert partial not in (store.path(KIND, KEY), *store.path(KIND, KEY).parents)


# -- damage ------------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    """Lose the end of a file."""
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def become_folder(path: Path) -> None:
    """Be a folder instead of a file."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["weights.bin", "deeper/notes.txt"])
@pytest.mark.parametrize("harm", [cut, flip, Path.unlink, become_folder])
def test_damaged_file_counts_as_not_stored(store: Store, name: str, harm: Callable[[Path], None]) -> None:
    put = fill(store)
    harm(put / name)
    assert store.get(KIND, KEY) is None
    assert not put.folder.exists()
    (aside,) = visible(store)
    assert aside.startswith(f"damaged-{KIND}-{KEY}")
    again = fill(store)
    assert store.get(KIND, KEY) == again


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[]",
        "null",
        "3",
        '"text"',
        "\ufffd",
        '{"files": {}}',
        '{"files": [], "cost": {}, "facts": {}}',
        '{"files": {}, "cost": {"seconds": 1}, "facts": {}}',
        '{"files": {}, "cost": {"seconds": 1, "tokens": 1, "peak_bytes": 1}}',
    ],
)
def test_damaged_manifest_counts_as_not_stored(store: Store, text: str) -> None:
    put = fill(store)
    (put / MANIFEST).write_text(text, encoding="utf-8")
    assert store.get(KIND, KEY) is None
    assert [name.partition("-")[0] for name in visible(store)] == ["damaged"]


def test_manifest_that_is_not_text_counts_as_not_stored(store: Store) -> None:
    (fill(store) / MANIFEST).write_bytes(b"\xff\xfe")
    assert store.get(KIND, KEY) is None


def test_second_damage_replaces_the_first(store: Store) -> None:
    for _ in range(2):
        flip(fill(store) / "weights.bin")
        assert store.get(KIND, KEY) is None
    assert len(visible(store)) == 1


def test_damage_elsewhere_does_not_matter(store: Store) -> None:
    put = fill(store)
    (put / "unlisted.txt").write_text("from somebody else", encoding="utf-8")
    assert store.get(KIND, KEY) == put


# -- the lock ----------------------------------------------------------------------------------------------------------

HOLD = "with store.lock():\n    print('there', flush=True)\n    time.sleep(600)\n"


def test_lock_of_another_process_is_respected_until_it_is_killed(store: Store) -> None:
    with child(HOLD, store) as holder:
        with pytest.raises(StoreError, match="another run is working in") as caught, store.lock():
            pass
        assert str(store.folder) in str(caught.value)
        assert "--runs" in str(caught.value)
        holder.kill()
        holder.wait()
        with store.lock():
            pass


def test_lock_is_given_back(store: Store) -> None:
    with store.lock():
        pass
    with pytest.raises(RuntimeError), store.lock():
        raise RuntimeError
    with store.lock():
        assert store.folder.is_dir()


def test_lock_of_one_store_leaves_another_free(store: Store, tmp_path: Path) -> None:
    with store.lock(), Store(tmp_path / "runs" / "other").lock():
        pass


# -- small files and keys ----------------------------------------------------------------------------------------------


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_atomically(path, "old ü")
    write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_file_stays_when_the_new_text_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half a surrogate \ud800")
    assert path.read_text(encoding="utf-8") == "old"


def test_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment of the rename the old file is untouched and the new one complete."""
    path = tmp_path / "report.json"
    write_atomically(path, "old")
    seen = []
    replace = Path.replace

    def spied(self: Path, target: Path) -> Path:
        seen.append((path.read_text(encoding="utf-8"), self.read_text(encoding="utf-8")))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", spied)
    write_atomically(path, "new")
    assert seen == [("old", "new")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [2, None]}, {"b": [2, None], "a": 1}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}),
        ([1, "ü"], (1, "ü")),
        (0.1, 0.1000),
    ],
)
def test_key_is_canonical(one: Any, other: Any) -> None:
    assert content_key(one) == content_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"b": 1}),
        ([1, 2], [2, 1]),
        ([1, [2]], [[1], 2]),
        ([12], [1, 2]),
        (None, "null"),
        (None, 0),
        (0.1, 0.1 + 1e-16),
        ("a", "A"),
        (True, "true"),
    ],
)
def test_key_tells_values_apart(one: Any, other: Any) -> None:
    assert content_key(one) != content_key(other)


def test_key_is_twenty_hexadecimal_digits() -> None:
    key = content_key({"a": 1})
    assert len(key) == 20
    assert set(key) <= set("0123456789abcdef")


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_key_refuses_what_equals_nothing(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        content_key(value)


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, b"x", object()])
def test_key_refuses_what_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(TypeError):
        content_key(value)
