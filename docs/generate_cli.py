"""Write docs/cli.md from the command itself; `make docs`. A test compares the two."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from backtester.data.cli import app

COMMANDS = (
    "fetch",
    "update",
    "summary",
    "exchanges",
    "sandbox",
    "import",
    "verify",
    "history",
    "convert",
    "export",
    "delete",
)
INTRODUCTION = """\
# The command

`vbt-data` is installed with the package. `backtester/scripts/fetch_data_cli.py` and
`backtester/scripts/fetch` run `vbt-data fetch` straight from a checkout.

Data goes to stdout, progress and logs to stderr. Exit code 0: all done; 1: something failed;
2: wrong usage; 130: interrupted; 141: broken pipe. `--json` always prints exactly one JSON object;
if the command failed altogether, it has `error` with `type` and `message`.

`make docs` generates this page.
"""


def render() -> str:
    """Return the page: the help of every command."""
    runner = CliRunner()
    parts = [INTRODUCTION]
    for words in ((), *((name,) for name in COMMANDS)):
        call = " ".join(("vbt-data", *words))
        shown = runner.invoke(
            app, [*words, "--help"], prog_name="vbt-data", env={"COLUMNS": "90"}, terminal_width=90
        )
        parts.append(f"## {call}\n\n```text\n{shown.stdout.strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    (Path(__file__).parent / "cli.md").write_text(render(), encoding="utf-8")
