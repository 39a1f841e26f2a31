"""Tests of the memo of decoded tables."""

from __future__ import annotations

from backtester.data.storage.memo import Memo


def test_it_is_bounded() -> None:
    """Beyond its size the least recently used go; one too large is not kept at all."""
    memo: Memo[str] = Memo(1000)
    for name in "ab":
        memo.put(name, 1, name, 480)
    assert memo.get("a", 1) == "a"
    memo.put("c", 1, "c", 480)
    assert [memo.get(name, 1) for name in "abc"] == ["a", None, "c"]
    memo.put("a", 1, "large", 4_800)
    assert memo.get("a", 1) is None
    assert memo.get("c", 1) == "c"


def test_another_version_is_another_value() -> None:
    """What was replaced is not given; a newer version takes its place and its room."""
    memo: Memo[str] = Memo(1000)
    for version in range(50):
        memo.put("a", version, str(version), 900)
        assert memo.get("a", version) == str(version)
        assert memo.get("a", version - 1) is None
    memo.put("b", 1, "b", 100)
    assert memo.get("a", 49) == "49"
