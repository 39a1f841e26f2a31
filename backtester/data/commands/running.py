"""Run a command to its exit code, also if its streams are closed or broken."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import IO, Any

import typer

from backtester.data import rendering

__all__ = ["run"]

_EXIT_FAILED = 1
_EXIT_INTERRUPTED = 130
_EXIT_UNREAD = 141  # as the shell reports a program killed by SIGPIPE


def run(application: typer.Typer) -> None:
    """Run a command to its exit.

    With ``--json``, stdout always gets one object, also after wrong usage and Ctrl-C.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us
            setattr(sys, name, io.StringIO())
    rendering.print_anything()
    as_json = "--json" in sys.argv[1:]
    try:
        code = _run(application, as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        code = _EXIT_UNREAD
    except OSError as error:  # a full disk
        rendering.error(f"cannot write the output: {error.strerror}")
        code = _EXIT_FAILED
    if code in (_EXIT_UNREAD, _EXIT_FAILED):
        _silence(sys.stdout)
    sys.exit(code)


def _run(application: typer.Typer, *, as_json: bool) -> int:
    command = typer.main.get_command(application)
    name = application.info.name or Path(sys.argv[0]).name
    try:
        # Not `main()`, which would exit by itself.
        with command.make_context(str(name), sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, typer.Abort):
        rendering.error("interrupted")
        if as_json:
            typer.echo(json.dumps({"interrupted": True}))
        return _EXIT_INTERRUPTED
    except Exception as error:
        # The parser's errors can print themselves, but their classes are not public.
        show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if show is None or not isinstance(code, int):
            raise
        show()
        if as_json:
            describe = getattr(error, "format_message", None)
            message = str(error) if describe is None else describe()
            typer.echo(json.dumps(rendering.error_object(type(error).__name__, message)))
        return code
    return 0


def _silence(stream: IO[Any]) -> None:
    """Discard what is still buffered: flushing it at exit would fail again."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # not a real file
        return
