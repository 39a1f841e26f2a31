"""What the benchmarks share: rows of a table, child processes, a sandbox to talk to."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement, its peer or limit in the same run, and the target."""

    what: str
    measured: str
    against: str
    target: str
    met: bool | None
    """None where there is no target."""


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """Return the median duration of `work`, milliseconds, after one run to warm up."""
    work()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)


def in_child(module: str, *args: str, env: dict[str, str] | None = None) -> Any:
    """Run a benchmark module in a process of its own and read the JSON it prints."""
    done = subprocess.run(
        [sys.executable, "-m", module, *args],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} {args} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def sandbox(*flags: str) -> Iterator[str]:
    """Serve the sandbox exchange from a process of its own; gives its address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "backtester.data.cli", "sandbox", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def peak_bytes() -> int:
    """Return the most memory this program has had; `ru_maxrss` is inherited from who started it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine() -> str:
    """Name the machine, the interpreter and the commit that were measured."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    cores = os.cpu_count()
    load = os.getloadavg()[0]
    return (
        f"{platform.machine()}, {cores} cores (load {load:.1f}), Python "
        f"{platform.python_version()}, commit {commit or 'unknown'}"
    )
