"""Import one of ccxt's hundred exchange classes without the others.

``import ccxt.async_support`` imports a module for every exchange there is, most
of the time and memory that a short fetch takes. Here ccxt's two packages are put
in place unexecuted: they are the packages themselves, with their own paths and
specs, and the first name anybody looks up in one executes it, once, as if it had
been imported just then. So what a program does with ccxt before, after or beside
a fetch goes on as ever, and the classes are the same objects.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from contextlib import suppress
from types import ModuleType
from typing import Any

__all__ = ["exchange_class", "exchange_ids"]

_PACKAGES = ("ccxt", "ccxt.async_support")
_DUNDERS = ("__all__", "__version__")  # those that its code sets
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    # A child must not be born while another thread, which it will not have, holds the lock.
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )
_executing: list[ModuleType] = []
_submodules: dict[str, dict[str, ModuleType]] = {}
"""What has been imported of a package before its own code has run."""


def exchange_class(exchange_id: str) -> Any:
    """Return ccxt's asynchronous class of an exchange; None when it has none of that id."""
    package = sys.modules.get("ccxt.async_support")
    if (package is None or isinstance(package, _Unexecuted)) and exchange_id.isidentifier():
        found = _alone(exchange_id)
        if found is not None:
            return found
    import ccxt.async_support as ccxt

    return getattr(ccxt, exchange_id) if exchange_id in ccxt.exchanges else None


def exchange_ids() -> list[str]:
    """List the ids of all of ccxt's exchanges."""
    import ccxt.async_support as ccxt

    return list(ccxt.exchanges)


def _alone(exchange_id: str) -> type[Any] | None:
    """Import a class alone; None where that does not work out, whatever the reason."""
    try:
        for name in _PACKAGES:
            _put_in_place(name)
        module = importlib.import_module(f"ccxt.async_support.{exchange_id}")
        base = importlib.import_module("ccxt.async_support.base.exchange").Exchange
        found = vars(module).get(exchange_id)
    except (ImportError, AttributeError):
        return None
    return found if isinstance(found, type) and issubclass(found, base) else None


def _put_in_place(name: str) -> None:
    """Enter a package into `sys.modules` unexecuted, unless it is there."""
    with _lock:
        if name in sys.modules:
            return
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None or spec.submodule_search_locations is None:
            raise ImportError(f"there is no package {name}")
        package = importlib.util.module_from_spec(spec)
        package.__class__ = _Unexecuted
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)


class _Unexecuted(ModuleType):
    """A package in place, whose own code has yet to run."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _DUNDERS:
            raise AttributeError(name)  # which Python asks of any module
        with suppress(AttributeError):
            return _base_name(self.__name__, name)
        _execute(self)
        return ModuleType.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing ``ccxt.binance`` makes it a name of `ccxt`; but `ccxt`, once executed, has its
        # class under that name.
        if isinstance(value, ModuleType) and self not in _executing:
            _submodules.setdefault(self.__name__, {})[name] = value
        else:
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        _execute(self)
        return sorted(vars(self))


def _base_name(package: str, name: str) -> Any:
    """Return what ccxt's own base looks up in its packages while an exchange is imported.

    Raises
    ------
    AttributeError
        It is something else, or its module is not there yet.
    """
    errors = sys.modules.get("ccxt.base.errors")
    if name == "Exchange":
        return getattr(sys.modules.get(f"{package}.base.exchange"), name)
    if name in getattr(errors, "__all__", ()):
        return getattr(errors, name)
    raise AttributeError(name)


def _execute(package: ModuleType) -> None:
    """Run a package's code, unless it has run or is just doing so."""
    with _lock:
        spec = package.__spec__
        if not isinstance(package, _Unexecuted) or package in _executing or spec is None:
            return
        assert spec.loader is not None
        _executing.append(package)
        try:
            spec.loader.exec_module(package)
            package.__class__ = ModuleType  # type: ignore[assignment]  # as it was made
            for name, module in _submodules.pop(package.__name__, {}).items():
                vars(package).setdefault(name, module)
        finally:
            _executing.remove(package)
