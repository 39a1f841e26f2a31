"""What several dialects share; not a dialect itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import orjson

from backtester.data.sandbox.dialects import Call, Rejected, Reply
from backtester.data.sandbox.source import Bars

__all__ = ["columns_of_text", "decimal_text", "reply", "web_page", "whole"]


def whole(call: Call, name: str, refuse: Callable[[str], Reply], *, digits: int = 15) -> int | None:
    """Read a parameter that is a whole number; None where it is missing.

    Raises
    ------
    Rejected
        With the reply that `refuse` gives for the parameter's name.
    """
    text = call.params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= digits):
        raise Rejected(refuse(name))
    return int(text)


def reply(payload: object, status: int = 200, *, tells_time: bool = False) -> Reply:
    """Return a JSON reply."""
    return Reply(status, orjson.dumps(payload), tells_time=tells_time)


def web_page(status: int) -> Reply:
    """Return what a front server shows when the exchange behind it cannot be reached."""
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
    return Reply(status, page.encode(), content_type="text/html")


def columns_of_text(bars: Bars, which: Iterable[int]) -> list[list[str]]:
    """Spell columns of `Bars.table` as exact decimal text, one list each."""
    if bars.decimals is None:
        return [[str(value) for value in bars.table[at]] for at in which]
    return [
        [decimal_text(value, bars.decimals[at]) for value in bars.table[at].tolist()]
        for at in which
    ]


def decimal_text(value: int, places: int) -> str:
    """Spell ``value / 10**places`` exactly; `value` is not negative.

    >>> decimal_text(1234, 2), decimal_text(5, 3), decimal_text(7, 0)
    ('12.34', '0.005', '7')
    """
    digits = str(value).zfill(places + 1)
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits
