"""Map symbols to the folder names of exported files, and back. Pure."""

from __future__ import annotations

import re

__all__ = ["folder_of", "symbol_of"]

_PLAIN = {"/": "-", ":": "_", "-": "~"}
_MEANT = {plain: char for char, plain in _PLAIN.items()}
_FOLDER = re.compile(r"(?:[0-9A-Za-z_~-]|%[0-9A-F]{2})*\Z")


def folder_of(symbol: str) -> str:
    """Name a symbol's folder: BTC/USDT:USDT is BTC-USDT_USDT, what is not plain is escaped.

    >>> folder_of("BTC/USDT:USDT"), folder_of("../x")
    ('BTC-USDT_USDT', '%2E%2E-x')
    """
    escaped = "".join(
        char
        if char.isascii() and char.isalnum()
        else _PLAIN.get(char)
        or "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
        for char in symbol
    )
    return escaped or "%"


def symbol_of(folder: str) -> str | None:
    """Return the symbol whose folder has this name; None if `folder_of` makes no such name.

    >>> symbol_of("BTC-USDT_USDT~251226"), symbol_of("my candles")
    ('BTC/USDT:USDT-251226', None)
    """
    if not _FOLDER.match(folder):
        return None
    parts = re.split(r"((?:%[0-9A-F]{2})+)", folder)
    try:
        return "".join(
            bytes.fromhex(part.replace("%", "")).decode("utf-8", "surrogatepass")
            if part.startswith("%")
            else "".join(_MEANT.get(char, char) for char in part)
            for part in parts
        )
    except UnicodeDecodeError:
        return None
