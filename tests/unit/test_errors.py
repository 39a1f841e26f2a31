"""The error tree: its shape, its builtin ancestors, and its way through pickles."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from backtester.data import errors
from backtester.data.errors import DataError

CLASSES = [one for name in errors.__all__ if issubclass(one := getattr(errors, name), DataError)]
BUILTINS = {
    one.__name__: one
    for one in (ValueError, LookupError, ConnectionError, PermissionError, OSError)
}


def drawn_tree() -> dict[str, tuple[str, ...]]:
    """Read the drawing in the module's docstring: the names of every class's bases."""
    assert errors.__doc__ is not None
    drawn: dict[str, tuple[str, ...]] = {}
    above: list[str] = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    (?P<branch>[│├└─ ]*)(?P<name>\w+Error)(\((?P<also>\w+)\))? *", line)
        if found is None:
            continue
        depth = len(found["branch"]) // 4
        above = [*above[:depth], found["name"]]
        parent = above[-2] if depth else "Exception"
        drawn[found["name"]] = (parent, found["also"]) if found["also"] else (parent,)
    return drawn


def test_the_tree_is_as_drawn() -> None:
    """The docstring draws every error, under its parent and with its builtin ancestor."""
    real = {one.__name__: tuple(base.__name__ for base in one.__bases__) for one in CLASSES}
    assert real == drawn_tree()


def test_everything_public_is_listed() -> None:
    """`__all__` names every class of the module and nothing else."""
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert classes == set(errors.__all__)
    assert errors.__all__ == sorted(errors.__all__)


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("RequestError", ValueError),
        ("DateError", ValueError),
        ("UnknownSymbolError", LookupError),
        ("ExchangeUnavailableError", ConnectionError),
        ("AccessDeniedError", PermissionError),
        ("DatasetNotFoundError", LookupError),
        ("DatasetWriteError", OSError),
        ("CandleError", ValueError),
    ],
)
def test_builtin_ancestors(name: str, builtin: type[Exception]) -> None:
    """Who catches the builtin a caller would guess catches ours."""
    with pytest.raises(builtin, match="what happened"):
        raise getattr(errors, name)("what happened")


def test_only_some_failures_are_worth_another_try() -> None:
    """Exactly these are retried."""
    assert {one.__name__ for one in CLASSES if issubclass(one, errors.TransientFetchError)} == {
        "TransientFetchError", "RateLimitedError", "ExchangeUnavailableError", "BadResponseError",
    }  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling(cls: type[DataError], protocol: int) -> None:
    """A pickled error comes back with its class, its sentence and all its facts."""
    error = cls("what happened", symbol="BTC/USDT", suggestions=["ETH/USDT"], until_ms=7, path=None)
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is cls
    assert str(back) == str(error) == "what happened"
    assert back.facts == error.facts
    assert (back.symbol, back.suggestions, back.until_ms, back.path) == (
        "BTC/USDT", ["ETH/USDT"], 7, None,
    )  # fmt: skip


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_survives_copying(cls: type[DataError]) -> None:
    """Copies, which look attributes up on an unfinished instance, are whole."""
    error = cls("what happened", value="x")
    for back in (copy.copy(error), copy.deepcopy(error)):
        assert (type(back), str(back), back.value) == (cls, "what happened", "x")


def test_a_fact_that_is_not_there() -> None:
    """Asking for a fact nobody stated is an AttributeError that says so."""
    with pytest.raises(AttributeError, match="'DateError' has no attribute 'symbol'"):
        _ = errors.DateError("what happened", param="start").symbol
    assert not hasattr(DataError("x"), "facts_")


def test_the_warning_is_no_error() -> None:
    """The one warning can be filtered as a UserWarning and is not caught as an error."""
    assert issubclass(errors.FetchWarning, UserWarning)
    assert not issubclass(errors.FetchWarning, DataError)
