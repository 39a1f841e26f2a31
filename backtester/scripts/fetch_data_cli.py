"""The command at the spec's path; runs from a bare checkout, in any directory."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run() -> None:
    """Run the command from this checkout, in its virtual environment if this Python lacks one."""
    sys.path.insert(0, str(ROOT))
    try:
        from backtester.data.cli import spec_main
    except ModuleNotFoundError as missing:
        python = ROOT / ".venv" / "bin" / "python"
        if python.exists() and Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
            os.execv(python, [str(python), __file__, *sys.argv[1:]])  # noqa: S606 - itself
        sys.exit(f"{missing.name} is not installed; run 'make install' in {ROOT} first")
    spec_main()


if __name__ == "__main__":
    run()
