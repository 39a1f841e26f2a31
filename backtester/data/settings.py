"""Where things are kept, read from arguments and the environment at the moment of use."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["DATA_DIR_VARIABLE", "SANDBOX_VARIABLE", "data_directory", "sandbox_url"]

DATA_DIR_VARIABLE = "BACKTESTER_DATA_DIR"
SANDBOX_VARIABLE = "BACKTESTER_SANDBOX_URL"


def data_directory(explicit: str | os.PathLike[str] | None = None) -> Path:
    """Name the folder that holds the datasets; it may not exist yet.

    The first that applies: the argument, the environment variable
    ``BACKTESTER_DATA_DIR``, ``backtester/data/vbt_data`` when the package runs
    from a writable checkout, else the platform's folder for user data.
    """
    if explicit is not None:
        return Path(explicit).expanduser()
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
    """Give the address of a running sandbox server, if the environment names one."""
    return os.environ.get(SANDBOX_VARIABLE) or None
