"""A process of `store_worker` that forks children, to be killed or to meet faults of the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT


class Nursery:
    """Has children born, and tells how they ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def born(self, **what: Any) -> int:
        return self._ask({k: str(v) if isinstance(v, Path) else v for k, v in what.items()})

    def ended(self, child: int) -> int:
        return self._ask({"wait": child})

    def _ask(self, order: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def opened(**variables: str) -> Iterator[Nursery]:
    """Open a nursery with more environment variables."""
    command = [sys.executable, "-W", "error", "-m", "tests.contract.store_worker"]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **variables}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0
