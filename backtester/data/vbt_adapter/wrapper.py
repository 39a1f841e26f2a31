"""VectorBT's wrapper with the `_metadata` that VectorBT users keep on it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

from vectorbt.base.array_wrapper import ArrayWrapper

__all__ = ["Wrapper", "before_pandas_4"]

_lock = RLock()


class Wrapper(ArrayWrapper):  # type: ignore[misc]  # VectorBT ships no types
    """An `ArrayWrapper` that keeps `_metadata` through copies, indexing and files.

    It initialises itself when first used: that takes 0.25 ms, more than all the rest of
    building a small Data object, and a cache hit may never need it.
    """

    _metadata: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._metadata = {}
        self._arguments: tuple[Any, Any] | None = (args, kwargs)

    def __getattr__(self, name: str) -> Any:
        # Reached only for what is not there: before the first use, that is everything.
        if "_ready" not in self.__dict__:
            with _lock:
                if (arguments := self.__dict__.pop("_arguments", None)) is not None:
                    args, kwargs = arguments
                    super().__init__(*args, **kwargs)
                    self._ready = True
        return self.__getattribute__(name)

    @classmethod
    def of(cls, wrapper: ArrayWrapper) -> Wrapper:
        """Make one of VectorBT's own wrapper, with what a user has noted on it."""
        if isinstance(wrapper, cls):
            return wrapper
        own = cls(**wrapper.config)
        own._metadata = dict(getattr(wrapper, "_metadata", {}))
        return own

    @property
    def freq(self) -> Any:
        """The step of the index; where none was given, what pandas infers."""
        if self.config["freq"] is not None:
            return super().freq
        with before_pandas_4():
            return super().freq

    @property
    def writeable_attrs(self) -> set[str]:
        """Name what VectorBT copies and saves beside the arguments."""
        return {"_metadata"}

    def replace(self, *modes: Any, **kwargs: Any) -> Wrapper:
        """Return a changed copy; a note made on it later is not made on this one."""
        other: Wrapper = super().replace(*modes, **kwargs)
        other._metadata = dict(other._metadata)
        return other

    def __eq__(self, other: Any) -> bool:
        if type(other) is ArrayWrapper:  # one of VectorBT's own, which has no notes
            return not self._metadata and bool(self.config == other.config)
        return bool(super().__eq__(other))

    __hash__ = None  # type: ignore[assignment]  # as VectorBT's

    def apart(self) -> Wrapper:
        """Return an equal wrapper to note things on."""
        other = Wrapper(**self.config)
        other._metadata = dict(self._metadata)
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (dict(self.config), self._metadata)


@contextmanager
def before_pandas_4() -> Iterator[None]:
    """Silence what pandas 3 tells VectorBT 1.2.0 about pandas 4 wherever an index has a step.

    VectorBT expects `inferred_freq` to be a string and steps to be instances of
    `DateOffset`. Both will change; whoever uses VectorBT can do nothing about it.
    """
    with warnings.catch_warnings():
        for told in (".*inferred_freq", r"isinstance\(obj, DateOffset\)"):
            warnings.filterwarnings("ignore", told, DeprecationWarning)
        yield


def _restore(config: dict[str, Any], metadata: dict[str, Any]) -> Wrapper:
    wrapper = Wrapper(**config)
    wrapper._metadata = metadata
    return wrapper
