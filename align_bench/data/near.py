"""Texts that are nearly the same, by MinHash: in time that grows as their characters do.

A text is the set of its runs of `RUN` bytes, in lower case and with blanks joined. Two texts are near when `NEAR` of
their runs are shared (Jaccard's index): as estimated in long texts, and as counted in short ones. One permutation is
hashed into `BUCKETS` (Li, Owen & Zhang 2012, arXiv:1208.1259); texts that agree in a band of buckets are compared
(Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, chapter 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RUN = 8  # bytes: a word and a half of English, or under three Han characters
BUCKETS = 64  # the standard error of an index of 0.8 is then 0.05
BANDS = 16  # of four buckets each: a pair at 0.8 is looked at with a probability of 0.9998
NEAR = 0.8
_BATCH_BYTES = 2**17  # what the arrays of a batch take stays in a processor's cache
_BATCH_PAIRS = 2**16
_DOUBT = 0.2  # by which the estimate of a short text may be too low
_EMPTY = 2**32 - 1


def near_groups(texts: Sequence[str]) -> list[int]:
    """For each text, the place of the first text of its group: texts that are the same or near, and what is near those.

    Args:
        texts: of any length and language.

    Returns:
        As many places, each at most its own: a text that is near no earlier one has its own place.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    normal = {text: " ".join(text.casefold().split()).encode("utf-8", "surrogatepass") for text in set(texts)}
    same: dict[bytes, int] = {}
    distinct = [same.setdefault(normal[text], len(same)) for text in texts]
    left, right = _near(list(same), _signatures(list(same)))
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(same), len(same)))
    _, group = connected_components(graph, directed=False)
    first: dict[int, int] = {}
    return [first.setdefault(int(group[one]), place) for place, one in enumerate(distinct)]


def _signatures(texts: Sequence[bytes]) -> NDArray[np.uint32]:
    """The smallest hash in each bucket, a row a text; `_EMPTY` where a bucket has none."""
    import numpy as np

    found = np.full((len(texts), BUCKETS), _EMPTY, dtype=np.uint32)
    for start, stop in _batches(texts):
        padded = [text.ljust(RUN, b"\0") for text in texts[start:stop]]
        buffer = b"".join(padded) + b"\0" * RUN
        lengths = np.array([len(text) for text in padded])
        hashed = _mixed(np.ndarray((len(buffer) - RUN,), dtype="<u8", buffer=buffer, strides=(1,)))
        smallest = (hashed & np.uint64(_EMPTY)).astype(np.uint32)
        for behind in range(1, RUN):  # runs that reach into the next text
            smallest[np.cumsum(lengths) - behind] = _EMPTY
        bucket = (hashed >> np.uint64(58)).astype(np.int64)
        bucket += np.repeat(np.arange(len(padded)) * BUCKETS, lengths)
        np.minimum.at(found[start:stop].reshape(-1), bucket, smallest)
    return found


def _batches(texts: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Spans of texts of about `_BATCH_BYTES` together."""
    start, size = 0, 0
    for place, text in enumerate(texts):
        size += len(text) + RUN
        if size >= _BATCH_BYTES:
            yield start, place + 1
            start, size = place + 1, 0
    if start < len(texts):
        yield start, len(texts)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014), by which all bits depend on all."""
    import numpy as np

    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _candidates(signatures: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Texts that agree in a band, each with the first text of the same band."""
    import numpy as np

    width, count = BUCKETS // BANDS, len(signatures)
    found = [np.zeros(0, dtype=np.int64)]
    for band in range(BANDS):
        keys = np.ascontiguousarray(signatures[:, band * width : (band + 1) * width])
        some = np.flatnonzero((keys != _EMPTY).any(axis=1))  # a band without a hash says nothing of a short text
        if len(some):
            alike = keys[some].view(f"V{4 * width}").ravel()
            _, first, group = np.unique(alike, return_index=True, return_inverse=True)
            left = some[first[group]]
            found.append((left * count + some)[left != some])
    pairs = np.unique(np.concatenate(found))
    return pairs // max(count, 1), pairs % max(count, 1)


def _near(texts: Sequence[bytes], signatures: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The candidates that are near: by estimate where every bucket has a hash, and of shorter texts by their runs."""
    import numpy as np

    left, right = _candidates(signatures)
    near = np.zeros(len(left), dtype=bool)
    for start in range(0, len(left), _BATCH_PAIRS):
        batch = slice(start, start + _BATCH_PAIRS)
        one, other = signatures[left[batch]], signatures[right[batch]]
        filled = ((one != _EMPTY) | (other != _EMPTY)).sum(axis=1)
        same = ((one == other) & (one != _EMPTY)).sum(axis=1)
        near[batch] = same >= np.where(filled < BUCKETS, NEAR - _DOUBT, NEAR) * filled
        for place in np.flatnonzero(near[batch] & (filled < BUCKETS)):
            one_text, other_text = texts[left[start + place]], texts[right[start + place]]
            near[start + place] = _index(one_text, other_text) >= NEAR
    return left[near], right[near]


def _index(one: bytes, other: bytes) -> float:
    """Jaccard's index of the runs of two texts."""
    a, b = ({text[place : place + RUN] for place in range(max(1, len(text) - RUN + 1))} for text in (one, other))
    return len(a & b) / len(a | b)
