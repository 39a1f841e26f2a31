"""Every error raised on purpose, one tree.

The tree::

    DataError                                anything below
    ├── RequestError(ValueError)             the caller can fix it; never retried
    │   ├── UnknownExchangeError
    │   ├── UnknownSymbolError(LookupError)
    │   ├── UnknownTimeframeError
    │   ├── UnknownMarketTypeError
    │   ├── DateError
    │   ├── EmptyIntervalError
    │   ├── NoSymbolsError
    │   └── OptionError
    ├── FetchError                           the exchange or the network
    │   ├── TransientFetchError              retried
    │   │   ├── RateLimitedError             the exchange asked us to wait
    │   │   ├── ExchangeUnavailableError(ConnectionError)
    │   │   └── BadResponseError             an answer that is not candles
    │   ├── PermanentFetchError              not retried
    │   │   ├── AccessDeniedError(PermissionError)
    │   │   ├── BannedError                  the exchange has banned this IP address
    │   │   └── NotServedError               the exchange does not offer it
    │   └── NothingFetchedError              every symbol failed
    ├── StorageError
    │   ├── DatasetNotFoundError(LookupError)
    │   ├── CorruptDatasetError              damage, never emptiness
    │   ├── DatasetTooLargeError
    │   └── DatasetWriteError(OSError)
    ├── CandleError(ValueError)              a table broke a rule of candles
    └── NothingImportedError                 no series of any file could be imported

Beside it stands one warning, `FetchWarning`.

Details are attributes of the error. Every error can be pickled, since work
crosses threads and processes.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AccessDeniedError",
    "BadResponseError",
    "BannedError",
    "CandleError",
    "CorruptDatasetError",
    "DataError",
    "DatasetNotFoundError",
    "DatasetTooLargeError",
    "DatasetWriteError",
    "DateError",
    "EmptyIntervalError",
    "ExchangeUnavailableError",
    "FetchError",
    "FetchWarning",
    "NoSymbolsError",
    "NotServedError",
    "NothingFetchedError",
    "NothingImportedError",
    "OptionError",
    "PermanentFetchError",
    "RateLimitedError",
    "RequestError",
    "StorageError",
    "TransientFetchError",
    "UnknownExchangeError",
    "UnknownMarketTypeError",
    "UnknownSymbolError",
    "UnknownTimeframeError",
]


class DataError(Exception):
    """Base class of every error this package raises on purpose.

    Parameters
    ----------
    message : str
        One sentence for people: what was asked, what was found, what to do.
    **facts
        The details of the message, available as attributes.
    """

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        # Only reached when normal lookup fails; `facts` itself may be missing
        # while an instance is being unpickled.
        facts = self.__dict__.get("facts", {})
        try:
            return facts[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self.args[0]), self.facts)


def _rebuild(cls: type[DataError], message: str, facts: dict[str, Any]) -> DataError:
    return cls(message, **facts)


class RequestError(DataError, ValueError):
    """An argument is wrong; the caller can fix it."""


class UnknownExchangeError(RequestError):
    """There is no exchange of this id; `suggestions` has the closest ones."""


class UnknownSymbolError(RequestError, LookupError):
    """The market has no such symbol; `suggestions` has the closest ones."""


class UnknownTimeframeError(RequestError):
    """Not a timeframe, or not supported by this exchange; `supported` lists those that are."""


class UnknownMarketTypeError(RequestError):
    """Not a market type, or one the exchange does not have."""


class DateError(RequestError):
    """A date that cannot be read, or that is in the future."""


class EmptyIntervalError(RequestError):
    """The start is not before the end."""


class NoSymbolsError(RequestError):
    """The list of symbols is empty."""


class OptionError(RequestError):
    """Options that contradict each other, or an invalid value."""


class FetchError(DataError):
    """The exchange or the network failed; `exchange`, `symbol` and `interval` say where."""


class TransientFetchError(FetchError):
    """A temporary failure; retried with growing delays."""


class RateLimitedError(TransientFetchError):
    """The exchange asked us to slow down; `retry_after_s` is for how long, or None."""


class ExchangeUnavailableError(TransientFetchError, ConnectionError):
    """The exchange is down, under maintenance, or cannot be reached."""


class BadResponseError(TransientFetchError):
    """An answer that is not what was asked for: HTML, truncated JSON, rows of something else."""


class PermanentFetchError(FetchError):
    """A failure that a retry would only repeat."""


class AccessDeniedError(PermanentFetchError, PermissionError):
    """The exchange refuses this IP address, region or API key."""


class BannedError(PermanentFetchError):
    """The exchange has banned this IP address until `until_ms` (UTC epoch milliseconds)."""


class NotServedError(PermanentFetchError):
    """The exchange does not offer what was asked for."""


class NothingFetchedError(FetchError):
    """Every symbol failed; `failures` maps each to its reason."""


class StorageError(DataError):
    """Something is wrong with the data directory or a file in it."""


class DatasetNotFoundError(StorageError, LookupError):
    """Nothing is stored under this name."""


class CorruptDatasetError(StorageError):
    """A file is damaged, or not one of ours; `path` names it. It is never read as empty."""


class DatasetTooLargeError(StorageError):
    """The data are more than one file of this format can hold."""


class DatasetWriteError(StorageError, OSError):
    """A file could not be written (read-only, disk full …); `path` names it."""


class CandleError(DataError, ValueError):
    """A table breaks a rule of candles: order, grid, finite numbers, OHLC order."""


class NothingImportedError(DataError):
    """No series of the files could be imported; `failures` maps each to its reason."""


class FetchWarning(UserWarning):
    """A result is incomplete; its account says what is missing and why."""
