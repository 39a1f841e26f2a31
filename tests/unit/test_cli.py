"""The commands: what goes where, how they exit, how they look."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from backtester.data import cli, rendering
from backtester.data.errors import (
    DataError,
    ExchangeUnavailableError,
    OptionError,
    UnknownSymbolError,
)
from backtester.data.events import FetchPlanned, PageFetched, Retrying, Waiting
from backtester.data.model import Interval
from backtester.data.sandbox import Fault
from tests.support.processes import ROOT, command, environment
from tests.support.world import MARKET, NOON, World, ms, same, truth

BTC, ETH = "BTC/USDT", "ETH/USDT"
DATES = ("--start", "2025-06-01", "--end", "2025-06-10")
FETCH = ("fetch", "-e", "sandbox", "-t", "1h", *DATES)
COMMANDS = (
    "fetch",
    "update",
    "summary",
    "sandbox",
    "import",
    "verify",
    "history",
    "convert",
    "export",
    "delete",
)


class Ran:
    """What a command printed, and how it ended."""

    def __init__(self, result: Any) -> None:
        self.code: int = result.exit_code
        self.out: str = result.stdout
        self.err: str = result.stderr
        unexpected = result.exception and not isinstance(result.exception, SystemExit)
        self.exception = result.exception if unexpected else None

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(*words: str) -> Ran:
    """Run the command in this process."""
    return Ran(CliRunner().invoke(cli.app, list(words), prog_name="vbt-data"))


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("backtester")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before[0], before[1], before[2]


@pytest.fixture
def shop(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, its exchange known to the command by the environment."""
    monkeypatch.setenv("BACKTESTER_SANDBOX_URL", world.server.url)
    return world


# ------------------------------------------------------------------ help


@pytest.mark.parametrize("words", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    """`--help` exits 0, on stdout, naming every option with a sentence about it."""
    shown = run(*words, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert "Usage: vbt-data" in shown.out
    group = typer.main.get_command(cli.app)
    parameters = group.commands[words[0]].params if words else []  # type: ignore[attr-defined]
    for parameter in parameters:
        for flag in parameter.opts:
            assert flag in shown.out
        assert getattr(parameter, "help", None), f"{parameter.name} is not explained"


def test_the_command_without_a_word_shows_its_help() -> None:
    """Nothing to do is a usage error that shows what there is."""
    shown = run()
    assert shown.code == 2
    assert "fetch" in shown.out + shown.err


def test_the_page_about_the_command_is_the_commands_own() -> None:
    """docs/cli.md is what the help says today."""
    page = runpy.run_path(str(ROOT / "docs" / "generate_cli.py"))["render"]()
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == page


# ------------------------------------------------------------------ where things go


def test_the_account_goes_to_stdout_and_progress_to_stderr(shop: World) -> None:
    """A fetch prints its table on stdout, and the preview of its cost on stderr."""
    shown = run(*FETCH, "-s", f"{BTC},{ETH}")
    assert shown.code == 0
    rows = {line.split()[0]: line.split() for line in shown.out.splitlines()}
    assert rows[BTC][:3] == [BTC, "216", "2025-06-01"]
    assert "432 candles of 2 symbols" in shown.out
    assert "2 requests for up to 432 candles" in shown.err
    assert "Symbol" not in shown.err


def test_json_is_one_object_and_nothing_else(shop: World) -> None:
    """With --json stdout is the account alone, also when logs are on."""
    for words in ((), ("-v",), ("-q",)):
        shown = run(*FETCH, "-s", BTC, "--json", *words)
        assert shown.code == 0
        assert shown.json["symbols"][BTC]["candles"] == 216
        assert shown.json["start_ms"] == ms("2025-06-01")
        assert len(shown.out.splitlines()) == 1


def test_verbose_logs_go_to_stderr(shop: World) -> None:
    """--verbose tells what the library does, away from the data."""
    shown = run(*FETCH, "-s", BTC, "--verbose", "--json")
    assert "sandbox spot 1h: 216 candles of 1 symbol," in shown.err
    assert shown.json["failures"] == {}


def test_quiet_says_little(shop: World) -> None:
    """--quiet keeps stderr empty while all goes well, and stdout to a line."""
    shown = run(*FETCH, "-s", BTC, "--quiet")
    assert (shown.code, shown.err) == (0, "")
    assert len(shown.out.splitlines()) <= 1


def test_the_summary_tells_what_is_stored(shop: World) -> None:
    """`summary` and --storage-summary print the same: on stdout, as table or JSON."""
    empty = run("summary", "--json")
    assert (empty.code, empty.json["pickle_files"], empty.json["files"]) == (0, 0, {})
    assert not shop.folder.exists(), "looking creates nothing"
    run(*FETCH, "-s", f"{BTC},{ETH}")
    told = run("summary", "--json").json
    assert told == run("fetch", "--storage-summary", "--json").json
    assert told["files"]["sandbox_spot_1h.pickle.blosc"]["symbol_count"] == 2
    table = run("summary")
    assert table.err == ""
    assert "sandbox_spot_1h.pickle.blosc" in table.out
    assert "432" in table.out
    assert str(shop.folder) in table.out.replace("\n", "")


def test_a_damaged_file_shows_in_the_summary(shop: World) -> None:
    """The summary names a file that cannot be read instead of leaving it out."""
    run(*FETCH, "-s", BTC)
    path = shop.folder / "sandbox_spot_1h.pickle.blosc"
    path.write_bytes(path.read_bytes()[:-8] + b"12345678")
    shown = run("summary")
    assert shown.code == 0
    assert "damaged" in shown.out
    assert path.name in shown.err
    assert run("summary", "--json").json["files"][path.name]["problem"]


# ------------------------------------------------------------------ exit codes


@pytest.mark.parametrize(
    "words",
    [
        ("fetch",),
        ("fetch", "--top", "3", "-s", BTC),
        ("fetch", "-s", BTC, "--inception", "--start", "2024-01-01"),
        ("fetch", "-s", BTC, "-v", "-q"),
        ("fetch", "-s", ","),
        ("fetch", "-s", ""),
        ("fetch", "--top", "0", "-e", "sandbox"),
        ("fetch", "--top", "-3", "-e", "sandbox"),
        ("fetch", "--top", "many"),
        ("fetch", "-s", BTC, "-t", "1x"),
        ("fetch", "-s", BTC, "-m", "options"),
        ("fetch", "-s", BTC, "-e", "no/such"),
        ("fetch", "-s", BTC, "-e", "binnance"),
        ("fetch", "-s", f"{BTC},{BTC}", "-e", "sandbox"),
        ("fetch", "-s", BTC, "-e", "sandbox", "--start", "someday"),
        ("fetch", "-s", BTC, "--config", "/no/such/file.toml"),
        ("fetch", "-s", BTC, "--nonsense"),
        ("nonsense",),
        ("update", "-e", "no/such"),
        ("sandbox", "--fault", "nonsense"),
        ("sandbox", "--fault", "503=often"),
        ("sandbox", "--fault", "503=1.5"),
        ("sandbox", "--fault", "503=nan"),
        ("sandbox", "--fault", "revision"),
        ("sandbox", "--port", "70000"),
        ("sandbox", "--latency-ms", "-1"),
        ("sandbox", "--weight-limit", "0"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_and_asks_nothing(shop: World, words: tuple[str, ...]) -> None:
    """What the caller can mend is one sentence on stderr, code 2, and touches nothing."""
    shown = run(*words)
    assert shown.exception is None
    assert shown.code == 2
    assert shown.out == ""
    assert shown.err.strip()
    assert "Traceback" not in shown.err
    assert shop.folder.exists() is False or shop.files() == {}
    assert not any(request.path.endswith("klines") for request in shop.sent())


def test_a_failing_symbol_exits_1_and_prints_the_others(shop: World) -> None:
    """One of two symbols failing prints both, and exits 1."""
    shown = run(*FETCH, "-s", f"{BTC},NOPE/USDT")
    assert shown.code == 1
    assert re.search(rf"{BTC}\s+216", shown.out)
    assert "NOPE/USDT" in shown.out
    assert "NOPE/USDT" in shown.err
    told = run(*FETCH, "-s", f"{BTC},NOPE/USDT", "--json")
    assert told.code == 1
    assert told.json["failures"]["NOPE/USDT"]["error"] == "UnknownSymbolError"


def test_everything_failing_exits_1_with_the_account(shop: World) -> None:
    """When nothing comes, --json still accounts for what was asked and why it failed."""
    shown = run(*FETCH, "-s", "NOPE/USDT", "--json")
    assert shown.code == 1
    told = shown.json
    assert told["error"]["type"] == "UnknownSymbolError"
    assert list(told["failures"]) == ["NOPE/USDT"]
    assert (told["exchange"], told["timeframe"], told["symbols"]) == ("sandbox", "1h", {})
    assert told["requests"] == len(shop.sent())
    assert "did you mean" in shown.err


def test_an_exchange_that_is_down_exits_1(shop: World) -> None:
    """A failing exchange is one line on stderr and code 1; verbose adds the traceback."""
    shop.faults.add(Fault.HTTP_503)
    shown = run(*FETCH, "-s", BTC, "-q")
    assert (shown.code, shown.out) == (1, "")
    assert len(shown.err.splitlines()) == 1
    assert "Traceback" in run(*FETCH, "-s", BTC, "-v").err


def test_an_update_of_nothing_exits_1(shop: World) -> None:
    """There must be something to update."""
    shown = run("update", "-e", "sandbox", "-t", "1h")
    assert shown.code == 1
    assert "nothing is stored" in shown.err


def test_an_interrupt_exits_130(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is told in one line, with the shell's code for it."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_pipeline", interrupted)
    shown = run(*FETCH, "-s", BTC)
    assert shown.code == 130
    assert "interrupted" in shown.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OptionError("x"), 2),
        (UnknownSymbolError("x"), 1),
        (ExchangeUnavailableError("x"), 1),
        (DataError("x"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_kind_of_error_decides_the_code(
    shop: World, monkeypatch: pytest.MonkeyPatch, error: DataError, code: int
) -> None:
    """The caller's mistakes exit 2, except a symbol: that is an answer of the exchange."""

    def failing(*_: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "_pipeline", failing)
    shown = run(*FETCH, "-s", BTC, "--json")
    assert shown.code == code
    assert shown.json["error"] == {"type": type(error).__name__, "message": "x"}


# ------------------------------------------------------------------ streams


def started(world: World, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as a program, with streams of our own."""
    code = (
        f"import sys; sys.argv[1:] = {list(words)!r}; from backtester.data.cli import main; main()"
    )
    variables = options.pop("variables", {})
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(world, **variables), text=True, timeout=60, check=False, **streams,
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ("fetch", "--json"),
        ("fetch", "--json", "--top", "many"),
        ("fetch", "--json", "--nonsense"),
        ("nonsense", "--json"),
        ("import", "--json"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_to_machines_too(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json every end is one object: its kind and its sentence."""
    monkeypatch.setattr(sys, "argv", ["vbt-data", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert set(json.loads(out)["error"]) == {"type", "message"}
    assert err.strip()


def test_an_interrupt_anywhere_is_told_to_machines_too(
    shop: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inside a command and before it begins."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["vbt-data", "summary", "--json"])
    for name in ("backtester.data.cli._print_summary", "backtester.data.cli.Output"):
        with monkeypatch.context() as patch:
            patch.setattr(name, interrupted)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        out, err = capsys.readouterr()
        assert (ended.value.code, json.loads(out)["interrupted"]) == (130, True)
        assert "interrupted" in err


def test_a_reader_that_goes_away_is_no_fault(shop: World) -> None:
    """As in `vbt-data exchanges | head -1`: no traceback, the shell's code for it."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = started(shop, "exchanges", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_told_in_one_line(shop: World) -> None:
    """What cannot be written is a failure, and no traceback."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with full.open("w") as stdout:
        done = started(shop, "exchanges", stdout=stdout)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "No space left" in done.stderr


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_closed_streams_change_no_exit_code(shop: World, closed: str) -> None:
    """A service may be started without either."""
    number = {"stdout": 1, "stderr": 2}[closed]
    for words, code in ((("exchanges",), 0), (("fetch",), 2)):
        done = started(shop, *words, **{closed: None}, preexec_fn=lambda: os.close(number))
        assert done.returncode == code


def test_names_that_are_no_text_are_wrong_usage(shop: World) -> None:
    """Half characters, as a terminal of another encoding sends them."""
    shown = run(*FETCH, "-s", "\udcff/USDT")
    assert (shown.code, shown.exception) == (2, None)


def test_the_version_is_told(shop: World) -> None:
    """With those of the packages that matter in a report."""
    shown = run("--version")
    assert shown.code == 0
    for package in ("backtester", "ccxt", "vectorbt", "Python"):
        assert package in shown.out


# ------------------------------------------------------------------ what the flags do


def test_each_flag_reaches_the_question(shop: World) -> None:
    """Market type, timeframe, dates, cache and directory mean for the command what they say."""
    elsewhere = shop.folder.parent / "elsewhere"
    words = ("fetch", "--exchange", "sandbox", "--json", "--data-dir", str(elsewhere))
    told = run(
        *words, "--symbols", "BTC/USDT", "--market-type", "swap", "--timeframe", "15m",
        "--start", "2025-06-01", "--end", "2025-06-02 12:00",
    ).json  # fmt: skip
    assert (told["market_type"], told["timeframe"]) == ("swap", "15m")
    assert told["symbols"]["BTC/USDT"]["candles"] == 36 * 4
    assert (elsewhere / "sandbox_swap_15m.pickle.blosc").exists()
    assert not shop.folder.exists()
    alias = run(*words, "-s", "BTC/USDT", "--market", "swap", "-t", "15m", "--start", "2025-06-01",
                "--end", "2025-06-02 12:00").json  # fmt: skip
    assert alias["requests"] == 0
    afresh = run(*words, "-s", "BTC/USDT", "-m", "swap", "-t", "15m", "--start", "2025-06-01",
                 "--end", "2025-06-02 12:00", "--no-cache").json  # fmt: skip
    assert afresh["requests"] == 1


def test_inception_and_the_default_start(shop: World) -> None:
    """--inception reaches back to the first candle; without a start it is 1000 candles."""
    words = ("fetch", "-e", "sandbox", "-s", "ONDO/USDT", "-t", "4h", "--json")
    expected = truth("ONDO/USDT", "4h", 0, shop.clock())
    default = run(*words).json["symbols"]["ONDO/USDT"]
    assert default["candles"] == len(expected)
    assert default["absent"] == {"not_listed": 1000 - len(expected)}
    told = run(*words, "--inception").json["symbols"]["ONDO/USDT"]
    assert (told["candles"], told["first_ms"]) == (len(expected), int(expected.open_time[0]))


def test_top_fetches_the_symbols_with_the_highest_volume(shop: World) -> None:
    """--top N takes the N biggest by quote volume, among those quoted in --quote."""
    volumes = {
        one.symbol: MARKET.ticker(one.symbol, NOON).quote_volume
        for one in MARKET.listings("spot")
        if one.trading_at(NOON) and one.market.quote == "USDT"
    }
    told = run(*FETCH, "--top", "3", "--json").json
    assert list(told["symbols"]) == sorted(volumes, key=volumes.__getitem__, reverse=True)[:3]
    euros = run(*FETCH, "--top", "2", "--quote", "EUR", "--json").json
    assert list(euros["symbols"]) == ["BTC/EUR", "ETH/EUR"]
    none = run(*FETCH, "--top", "2", "--quote", "XYZ")
    assert none.code == 1
    assert "XYZ" in none.err


def test_update_brings_what_is_stored_up_to_now(shop: World) -> None:
    """`update` extends every stored symbol to the last closed candle, or those named."""
    run(*FETCH, "-s", f"{BTC},{ETH}")
    one = run("update", "-e", "sandbox", "-t", "1h", "-s", BTC, "--json")
    assert (one.code, list(one.json["symbols"])) == (0, [BTC])
    assert same(shop.stored(BTC).candles, truth(BTC, "1h", "2025-06-01", shop.clock()))
    both = run("update", "-e", "sandbox", "-t", "1h")
    assert both.code == 0
    assert same(shop.stored(ETH).candles, truth(ETH, "1h", "2025-06-01", shop.clock()))


def test_the_config_file_holds_settings_per_exchange(
    shop: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TOML table of an exchange's id is its ccxt settings; others are left alone."""
    monkeypatch.delenv("BACKTESTER_SANDBOX_URL")
    config = tmp_path / "config.toml"
    config.write_text(f'[kraken]\ntimeout = 1\n[sandbox]\nsandboxUrl = "{shop.server.url}"\n')
    assert run(*FETCH, "-s", BTC, "--config", str(config)).code == 0
    assert len(shop.sent()) == 3
    for text in ("[sandbox", "sandbox = 3", "\x00"):
        config.write_text(text)
        shown = run(*FETCH, "-s", ETH, "--config", str(config))
        assert (shown.code, shown.exception) == (2, None)
        assert str(config) in shown.err


def test_a_config_file_that_is_not_text_is_wrong_usage(shop: World, tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are one sentence, too."""
    config = tmp_path / "config.toml"
    config.write_bytes(b"\xff\xfe[sandbox]")
    shown = run(*FETCH, "-s", BTC, "--config", str(config))
    assert (shown.code, shown.exception) == (2, None)


def test_the_sandbox_serves_until_it_is_stopped(shop: World) -> None:
    """`sandbox` prints its address, serves it, and ends with Ctrl-C and code 0."""
    process = subprocess.Popen(
        [sys.executable, "-m", "backtester.data.cli", "sandbox", "--fault", "503=0.0"],
        env=environment(shop, PYTHONUNBUFFERED="1"),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        shop.config = {"sandboxUrl": url}
        asked = run("fetch", "-e", "sandbox", "-s", BTC, "-t", "1d", "--json")
        assert asked.code == 0
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert f"BACKTESTER_SANDBOX_URL={url}" in err


# ------------------------------------------------------------------ how it looks


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", "❌"), ("ascii", "error:")])
def test_emoji_only_where_they_can_be_shown(shop: World, encoding: str, mark: str) -> None:
    """A terminal that knows no emoji gets words; nothing ever fails to print."""
    done = command(shop, "-s", "NOPE/USDT", "-e", "sandbox", "-t", "1h", PYTHONIOENCODING=encoding)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(mark)


def test_any_name_can_be_printed_anywhere(shop: World) -> None:
    """Names with letters or brackets of their own neither crash nor vanish from the table."""
    names = f"{BTC},ÜÖ/USDT,[bold]/USDT,[/x]"
    done = command(shop, "-s", names, "-e", "sandbox", "-t", "1h", *DATES, PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "[bold]/USDT" in done.stdout
    assert "[/x]" in done.stdout


def test_piped_tables_are_not_wrapped(shop: World) -> None:
    """A program that reads the table gets a line per symbol, whatever COLUMNS says."""
    done = command(shop, "-s", f"{BTC},{ETH}", "-e", "sandbox", "-t", "1h", *DATES, COLUMNS="20")
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [[BTC, "216"], [ETH, "216"]]
    assert len(lines) == 4


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_the_progress_bar_follows_the_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, plan, pages, waits and retries are shown on stderr as they come."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with rendering.progress(shown=True) as on_event:
        on_event(FetchPlanned("sandbox", 1, 2, 2000, 4, 90.0, 96_000))
        on_event(PageFetched(BTC, Interval(0, 1), 1000))
        on_event(Waiting("sandbox", 12.0, "the budget is spent"))
        on_event(Retrying(BTC, 2, 0.5, "HTTP 503"))
    shown = terminal.getvalue()
    for words in ("2 requests", "at least 90.0 s", "waiting 12 s", "HTTP 503", f"fetching {BTC}"):
        assert words in shown


def test_a_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a display events go nowhere."""
    with rendering.progress(shown=False) as on_event:
        on_event(Waiting("sandbox", 12.0, "the budget is spent"))
    assert capsys.readouterr() == ("", "")


assert os.name
