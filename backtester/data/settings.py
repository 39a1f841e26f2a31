"""Where things are kept; arguments and the environment are read at the time of use."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backtester.data.errors import OptionError

__all__ = ["DATA_DIR_VARIABLE", "SANDBOX_VARIABLE", "data_directory", "sandbox_url", "venue"]

DATA_DIR_VARIABLE = "BACKTESTER_DATA_DIR"
SANDBOX_VARIABLE = "BACKTESTER_SANDBOX_URL"


def data_directory(explicit: str | os.PathLike[str] | None = None) -> Path:
    """Name the folder that holds the datasets; it may not exist yet.

    The first that applies: the argument, the environment variable
    ``BACKTESTER_DATA_DIR``, ``backtester/data/vbt_data`` when the package runs
    from a writable checkout, else the platform's folder for user data.

    Raises
    ------
    OptionError
        The argument is not a path.
    """
    if explicit is not None:
        try:
            given = Path(explicit).expanduser()
        except (TypeError, ValueError, RuntimeError) as error:
            raise OptionError(f"{explicit!r} is not a data directory: {error}") from error
        if not str(explicit).strip() or "\0" in str(explicit):
            raise OptionError(f"{explicit!r} is not a data directory")
        return given
    named = os.environ.get(DATA_DIR_VARIABLE)
    if named:
        return Path(named).expanduser()
    package = Path(__file__).resolve().parent
    checkout = package.parent.parent
    if (checkout / "pyproject.toml").is_file() and os.access(package, os.W_OK):
        return package / "vbt_data"
    from platformdirs import user_data_path

    return user_data_path("backtester", appauthor=False) / "vbt_data"


def sandbox_url() -> str | None:
    """Return the address of a running sandbox server, if the environment names one."""
    return os.environ.get(SANDBOX_VARIABLE) or None


def venue(exchange_id: str, config: Mapping[str, Any] | None) -> str:
    """Name whose clock it is: the exchange's, or that of another host put in its place.

    A rehearsal's clock may be months away, and must not be taken for the real one.
    """
    settings = config if isinstance(config, Mapping) else {}
    host = settings.get("sandboxUrl") or (sandbox_url() if exchange_id == "sandbox" else None)
    elsewhere = host or settings.get("urls")
    if not elsewhere:
        return exchange_id
    return f"{exchange_id}@{zlib.crc32(repr(elsewhere).encode()):08x}"
