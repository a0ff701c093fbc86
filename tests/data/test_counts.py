"""What became of a data set's rows, in one sentence."""

from align_bench.data.counts import describe_counts
from align_bench.records import Facts


def test_what_is_not_read_is_said() -> None:
    facts: Facts = {"shape": "pairs", "read": {"read": 2, "kept": 2}, "tokens": {"kept": 2}}
    assert describe_counts(facts) == "2 rows read (pairs), 2 kept"
    assert describe_counts({**facts, "unread": []}) == "2 rows read (pairs), 2 kept"
    unread: Facts = {**facts, "unread": ["id", "weight of turns"]}
    assert describe_counts(unread) == "2 rows read (pairs), 2 kept; not read: id, weight of turns"
