"""Where things are kept: the rules in their order, read at the moment of use."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest

from backtester.data import settings
from backtester.data.errors import OptionError, StorageError
from backtester.data.home import home_in
from backtester.data.settings import (
    DATA_DIR_VARIABLE,
    SANDBOX_VARIABLE,
    data_directory,
    sandbox_url,
    venue,
)

PACKAGE = Path(settings.__file__).resolve().parent


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    monkeypatch.delenv(SANDBOX_VARIABLE, raising=False)


def test_the_argument_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is named is the folder, as text or path, with ~ for the home."""
    monkeypatch.setenv(DATA_DIR_VARIABLE, "/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_directory(tmp_path) == data_directory(str(tmp_path)) == tmp_path
    assert data_directory("~/candles") == tmp_path / "candles"


def test_the_variable_comes_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read at every call, so that a change holds at once; empty means unset."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(DATA_DIR_VARIABLE, "~/one")
    assert data_directory() == tmp_path / "one"
    monkeypatch.setenv(DATA_DIR_VARIABLE, "/two")
    assert data_directory() == Path("/two")
    monkeypatch.setenv(DATA_DIR_VARIABLE, "")
    assert data_directory() != Path()


def test_a_checkout_keeps_its_data_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a pyproject.toml the folder of the specification is used, if it can be written."""
    if not (PACKAGE.parent.parent / "pyproject.toml").is_file():
        pytest.skip("not run from a checkout")
    monkeypatch.setattr(os, "access", lambda *_: True)
    assert data_directory() == PACKAGE / "vbt_data"


def test_an_installed_package_uses_the_platforms_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package cannot be written to, the user's own data folder is taken."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    expected = platformdirs.user_data_path("backtester", appauthor=False) / "vbt_data"
    assert data_directory() == expected


def test_the_sandbox_may_run_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address comes from the environment, or there is none."""
    assert sandbox_url() is None
    monkeypatch.setenv(SANDBOX_VARIABLE, "http://127.0.0.1:9")
    assert sandbox_url() == "http://127.0.0.1:9"
    monkeypatch.setenv(SANDBOX_VARIABLE, "")
    assert sandbox_url() is None


def test_one_home_per_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two names of a folder give one home with one store; nothing is created for it."""
    folder = tmp_path / "data"
    monkeypatch.chdir(tmp_path)
    home = home_in("data")
    assert home is home_in(folder)
    assert home.folder == folder
    assert home.store.keys() == []
    assert not folder.exists()


def test_a_clock_belongs_to_the_host_that_showed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rehearsal on another host has a clock of its own; proxies and keys change nothing."""
    monkeypatch.delenv("BACKTESTER_SANDBOX_URL", raising=False)
    assert venue("binance", None) == venue("binance", {"httpsProxy": "http://x"}) == "binance"
    moved = venue("binance", {"urls": {"api": {"public": "http://127.0.0.1:1"}}})
    assert moved != venue("binance", {"urls": {"api": {"public": "http://127.0.0.1:2"}}})
    assert moved.startswith("binance@")
    monkeypatch.setenv("BACKTESTER_SANDBOX_URL", "http://127.0.0.1:3")
    assert venue("sandbox", None) == venue("sandbox", {"sandboxUrl": "http://127.0.0.1:3"})
    assert venue("sandbox", None) != "sandbox"


@pytest.mark.parametrize("wrong", ["", "  ", 5, b"x", ["x"], "x\0y"], ids=repr)
def test_what_is_no_directory_is_refused(wrong: object) -> None:
    """A data directory that cannot be one is an error, never the current directory."""
    with pytest.raises(OptionError, match="is not a data directory"):
        data_directory(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("storage", ["auto", "sqlite"])
def test_a_directory_out_of_reach_is_told(tmp_path: Path, storage: str) -> None:
    """A name no file system takes is an error of ours that names it."""
    with pytest.raises(StorageError, match="xx cannot be reached: File name too long"):
        home_in(tmp_path / ("x" * 300), storage)


def test_a_relative_directory_of_nowhere_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current directory may have been deleted under a running program."""
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StorageError, match="data directory candles cannot be reached"):
        home_in("candles")
