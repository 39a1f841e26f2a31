"""The documentation is run, so that it cannot drift from the code."""

from __future__ import annotations

import doctest
import re
import runpy
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import backtester.data
from backtester.data.cli import app

ROOT = Path(__file__).resolve().parents[2]
WITH_EXAMPLES = sorted(
    path for path in (ROOT / "backtester").rglob("*.py") if ">>> " in path.read_text("utf-8")
)


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_every_python_block_of_the_readme_runs_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newcomer can paste the README's Python, block by block, with the network unplugged."""
    monkeypatch.setenv("BACKTESTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BACKTESTER_STATE_DIR", str(tmp_path / "state"))
    blocks = python_blocks(ROOT / "README.md")
    names: dict[str, Any] = {}
    ran = 0
    for block in blocks:
        if "needs the internet" not in block:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # VectorBT's own, on what it computes
                exec(compile(block, "README.md", "exec"), names)
            ran += 1
    assert ran >= 3
    assert names["data"].symbols == ["BTC/USDT"]


def shown(block: str) -> str:
    """Turn every line that ends with what it gives, after ``#:``, into a comparison of the two."""
    lines = (re.fullmatch(r"(\S.*?) +#: (.*)", line) for line in block.splitlines())
    return "\n".join(
        f"check({match[1]!r}, str({match[1]}), {match[2]!r})" if match else line
        for line, match in zip(block.splitlines(), lines, strict=True)
    )


def test_every_example_for_vectorbt_users_gives_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is run from top to bottom, offline, and every line shown with its value has it."""
    monkeypatch.setenv("BACKTESTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BACKTESTER_STATE_DIR", str(tmp_path / "state"))
    page = ROOT / "docs" / "vectorbt.md"
    differing: list[tuple[str, str, str]] = []
    checked: list[str] = []

    def check(code: str, found: str, expected: str) -> None:
        checked.append(code)
        if found != expected:
            differing.append((code, found, expected))

    names: dict[str, Any] = {"check": check, "__name__": "page"}
    for block in python_blocks(page):
        if "vbt.talib(" in block and find_spec("talib") is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # VectorBT's own, on what it computes
            exec(compile(shown(block), page.name, "exec"), names)
    assert differing == []
    assert len(checked) >= 30


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples_in_docstrings_give_what_they_show(path: Path) -> None:
    """An example in a docstring is run, too."""
    module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert doctest.testmod(module).failed == 0


def test_docs_cli_is_what_the_command_says() -> None:
    """docs/cli.md is the command's own help; `make docs` writes it."""
    page = runpy.run_path(str(ROOT / "docs" / "generate_cli.py"))
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == page["render"]()
    assert set(page["COMMANDS"]) == {
        command.name or command.callback.__name__
        for command in app.registered_commands
        if command.callback is not None
    }


def test_every_decision_is_in_the_index() -> None:
    """A decision that nobody can find was not written down."""
    folder = ROOT / "docs" / "decisions"
    linked = set(re.findall(r"\((\d{3}-[a-z0-9-]+\.md)\)", (folder / "README.md").read_text()))
    assert linked == {page.name for page in folder.glob("[0-9]*.md")}


@pytest.mark.parametrize("name", backtester.data.__all__)
def test_every_public_name_has_a_docstring(name: str) -> None:
    """What the package shows, it explains."""
    assert getattr(backtester.data, name).__doc__


def test_make_lists_its_targets() -> None:
    """`make` without a target names every target with a line of text."""
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"\.PHONY: (.*)", makefile)
    assert phony is not None
    for target in phony[1].split():
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), target
