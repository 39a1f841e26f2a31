"""One exchange class without the others, and a program that never notices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ALONE = "from backtester.data.fetching.lazy_ccxt import exchange_class, exchange_ids\n"
NAMES = """
import json, sys
import ccxt, ccxt.async_support, ccxt.pro
assert ccxt.exchanges and ccxt.async_support.exchanges

def words(value):
    where, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    return f"{where}.{name}" if name else f"{type(value).__name__} {value!r}"[:3000]

print(json.dumps({
    package: {name: words(value) for name, value in vars(sys.modules[package]).items()
              if not name.startswith("__") or name in ("__all__", "__version__", "__path__")}
    for package in
    ("ccxt", "ccxt.async_support", "ccxt.pro", "ccxt.base", "ccxt.async_support.base")
}))
"""


def said(code: str) -> str:
    """Run a program in a new interpreter, and give the last line it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1] if done.stdout else ""


@pytest.mark.parametrize(
    "asked", [["kraken"], ["kraken", "kraken", "okx"]], ids=["once", "by fetch after fetch"]
)
def test_a_class_brings_no_other(asked: list[str]) -> None:
    """What costs the time is not imported: ccxt's packages, and a hundred exchanges."""
    loaded = said(
        ALONE + f"assert [exchange_class(one).__name__ for one in {asked}] == {asked}\n"
        "import sys; print([m.removeprefix('ccxt.async_support.') for m in sys.modules"
        " if m.startswith('ccxt.async_support.') and m.count('.') == 2"
        " and not m.endswith('.base')], 'ccxt.kraken' in sys.modules)"
    )
    assert loaded == f"{list(dict.fromkeys(asked))} False"


@pytest.fixture(scope="module")
def ordinary() -> dict[str, dict[str, str]]:
    """All names of ccxt's packages in a program that imports them as anybody does."""
    names: dict[str, dict[str, str]] = json.loads(said(NAMES))
    return names


@pytest.mark.parametrize(
    "before",
    [
        ALONE + "exchange_class('binanceusdm')",
        ALONE + "exchange_class('okx'); from ccxt.async_support.kraken import kraken",
        ALONE + "exchange_class('okx'); exchange_class('okx'); exchange_class('kraken')",
        ALONE + "exchange_class('okx'); from ccxt import *; import ccxt.pro",
        "import ccxt\n" + ALONE + "exchange_class('okx')",
        ALONE + "assert exchange_class('nonesuch') is None; exchange_class('okx')",
    ],
)
def test_ccxt_is_afterwards_what_it_always_is(
    before: str, ordinary: dict[str, dict[str, str]]
) -> None:
    """Every name of its packages, in whatever order a program goes on to import them."""
    found = json.loads(said(before + NAMES))
    for package, names in ordinary.items():
        assert found[package] == names
    assert len(ordinary["ccxt"]) > 150


@pytest.mark.parametrize(
    "program",
    [
        "import ccxt; assert isinstance(ccxt.binance(), ccxt.Exchange); assert ccxt.NetworkError",
        "from ccxt import binance; import ccxt; assert ccxt.binance is binance is not base",
        "import ccxt.async_support as ccxt; assert ccxt.binance is base; assert ccxt.kraken",
        "import ccxt.async_support as a; assert a.Exchange.synchronous is False",
        "import ccxt; assert ccxt.Exchange.synchronous and 'kraken' in dir(ccxt)",
        "import ccxt; assert not hasattr(ccxt, 'nonesuch') and not hasattr(ccxt, '__nonesuch__')",
        "import ccxt; assert ccxt.__version__ and 'okx' in ccxt.exchanges and ccxt.errors",
        "import pickle; assert pickle.loads(pickle.dumps(base)) is base",
        "import threading, ccxt.async_support as a\nfound = []\n"
        "tasks = [threading.Thread(target=lambda: found.append(a.kraken)) for _ in range(8)]\n"
        "[t.start() for t in tasks]; [t.join() for t in tasks]\n"
        "assert len(found) == 8 and len(set(found)) == 1 and isinstance(found[0], type)",
    ],
)
def test_a_program_uses_ccxt_beside_a_fetch(program: str) -> None:
    """Whichever name it looks up first, it gets what it would have got."""
    said(ALONE + "base = exchange_class('binance')\n" + program)
