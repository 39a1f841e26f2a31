"""The command at the spec's other path; see ``backtester/scripts``."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
    runpy.run_path(str(SCRIPTS / "fetch_data_cli.py"), run_name="__main__")
