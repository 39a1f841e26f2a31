"""The VectorBT edge: candles as Data objects, their verbs, and files of them."""

import copy
import inspect
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import blosc2
import numpy as np
import pandas as pd
import pytest
import pytz
import vectorbt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from backtester import vbt
from backtester.data.candles import COLUMNS, Candles, Series
from backtester.data.errors import (
    CandleError,
    CorruptDatasetError,
    DatasetWriteError,
    DateError,
    EmptyIntervalError,
    ExchangeUnavailableError,
    NoSymbolsError,
    OptionError,
    UnknownSymbolError,
    UnknownTimeframeError,
)
from backtester.data.model import Interval, Timeframe
from backtester.data.storage import plain
from backtester.data.vbt_adapter import Data, asking, build, engine, metadata_of, rebuild, tables_of

HOUR = 3_600_000
DAY = 24 * HOUR
START = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * 1000  # a Monday
H1 = Timeframe.parse("1h")

# Open-source VectorBT asks pandas 3.1 for what pandas 4 will answer differently.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*inferred_freq"),
    pytest.mark.filterwarnings(r"ignore:isinstance\(obj, DateOffset\)"),
]
BTC, ETH, SOL = "BTC/USDT", "ETH/USDT", "SOL/USDT"


def table(count, first=0, timeframe=H1, seed=0, skip=()):
    """Candles from the `first`-th of 2024 on, without those at the places in `skip`."""
    places = np.array([p for p in range(first, first + count) if p not in skip], dtype=np.int64)
    origin = timeframe.index(START)
    times = np.array([timeframe.open_time(origin + int(p)) for p in places], dtype=np.int64)
    walk = 100 * np.exp(np.cumsum(np.random.default_rng([seed, 1]).normal(0, 0.01, 2000)))
    volumes = np.random.default_rng([seed, 2]).random(2000)
    opens, closes = walk[places], walk[places + 1]
    return Candles.of(
        times,
        np.stack(
            [
                opens,
                np.maximum(opens, closes) * 1.01,
                np.minimum(opens, closes) * 0.99,
                closes,
                volumes[places],
            ],
            axis=1,
        ),
    )


def made(single=False, timeframe=H1, fetch_kwargs=None, **tables):
    """Data of tables by the symbol's base: made(BTC=table(3))."""
    return build(
        {f"{base}/USDT": one for base, one in tables.items()},
        timeframe=timeframe,
        single=single,
        metadata={"volume_data": {BTC: 5e8}},
        fetch_kwargs=fetch_kwargs,
    )


def stamp(place, timeframe=H1):
    ms = timeframe.open_time(timeframe.index(START) + place)
    return pd.Timestamp(ms, unit="ms", tz="UTC")


def assert_same(left, right):
    """Two objects hold the same tables, bit for bit, and the same notes."""
    assert left.symbols == right.symbols
    assert tables_of(left) == tables_of(right)
    pd.testing.assert_index_equal(left.index, right.index, exact=True)
    assert left.wrapper._metadata == right.wrapper._metadata


# ---------------------------------------------------------------------- build


def test_one_index_holds_every_symbols_times():
    """The index is the union of all open times; a symbol without a candle there is NaN."""
    data = made(BTC=table(3), ETH=table(3, 2))
    assert list(data.index) == [stamp(p) for p in range(5)]
    assert list(data.close[BTC].isna()) == [False, False, False, True, True]
    assert list(data.close[ETH].isna()) == [True, True, False, False, False]
    assert list(data.close[BTC][:3]) == list(table(3).values[:, 3])


def test_an_object_says_in_one_line_what_it_holds():
    """What a notebook shows of an object: symbols, rows, span, features."""
    data = made(BTC=table(3), ETH=table(3, 2))
    features = "Open, High, Low, Close, Volume"
    assert repr(data) == (
        f"<Data of BTC/USDT, ETH/USDT: 5 rows from {stamp(0)} to {stamp(4)}; {features}>"
    )
    assert repr(made(BTC=table(0))) == f"<Data of BTC/USDT: 0 rows; {features}>"
    assert (
        repr(Data.from_data({0: pd.Series([1.5], name="x")})) == "<Data of 0: 1 row from 0 to 0; x>"
    )
    many = made(**{f"C{place}": table(1) for place in range(7)})
    assert repr(many).startswith("<Data of C0/USDT, C1/USDT, C2/USDT, C3/USDT, C4/USDT and 2 more:")


def test_the_shape_of_the_frames_is_the_promised_one():
    """Open to Volume as float64 on 'Open time', UTC, in nanoseconds, with a step for VectorBT."""
    data = made(BTC=table(3), ETH=table(3, 2))
    frame = data.data[BTC]
    assert tuple(frame.columns) == COLUMNS == tuple(data.features)
    assert set(frame.dtypes) == {np.dtype("float64")}
    assert data.index.name == "Open time"
    assert str(data.index.dtype) == "datetime64[ns, UTC]"
    assert data.freq == pd.Timedelta(hours=1)
    assert (data.timeframe, data.symbols) == ("1h", [BTC, ETH])


@pytest.mark.parametrize(
    "skips", [((), ()), ((1,), (2,)), ((0, 5), (3,)), ((), (1, 2, 3))], ids=str
)
def test_holes_inside_a_symbols_history_stay_where_they_are(skips):
    """Each candle lands on its own time, whichever the other symbol lacks."""
    tables = {BTC: table(6, skip=skips[0]), ETH: table(6, 1, seed=1, skip=skips[1])}
    data = build(tables, timeframe=H1)
    for symbol, one in tables.items():
        own = data.get(symbol=symbol).dropna(how="all")
        assert list(own.index.as_unit("ms").asi8) == list(one.open_time)
        assert np.array_equal(own.to_numpy(), one.values)
    assert not data.close.isna().all(axis=1).any()


def test_a_symbol_without_candles_is_a_column_of_nan():
    """Asked for, answered, nothing there: the symbol stays in the object."""
    data = made(BTC=table(2), ETH=Candles.empty())
    assert data.close[ETH].isna().all()
    assert data.last_index == {BTC: stamp(1), ETH: None}


def test_no_candles_at_all_give_an_empty_frame_of_the_right_types():
    """An empty answer has the columns, types and index of a full one."""
    data = made(BTC=Candles.empty())
    assert data.get(symbol=BTC).shape == (0, 5)
    assert set(data.data[BTC].dtypes) == {np.dtype("float64")}
    assert str(data.index.dtype) == "datetime64[ns, UTC]"
    assert data.last_index == {BTC: None}


def test_no_symbols_are_an_error():
    """An object of nothing cannot be made."""
    with pytest.raises(NoSymbolsError):
        build({}, timeframe=H1)
    with pytest.raises(NoSymbolsError):
        Data.from_data({})


def test_a_time_that_nanoseconds_cannot_hold_is_an_error():
    """A year 2300 does not come back as 1715."""
    with pytest.raises(CandleError, match="2300"):
        made(BTC=Candles.of([10_413_792_000_000], [[1, 1, 1, 1, 1]]))


def test_months_get_the_step_that_vectorbt_can_count_with():
    """VectorBT reads pandas' name of a month as a millisecond; it never sees it."""
    month = Timeframe.parse("1M")
    data = made(timeframe=month, BTC=table(5, timeframe=month))
    assert data.timeframe == "1M"
    assert data.index[1] == pd.Timestamp("2024-02-01", tz="UTC")
    assert data.freq == pd.Timedelta(days=365.2425 / 12)
    assert vbt.PF.from_holding(data.select(BTC)).stats()["Period"] > pd.Timedelta(days=150)


def test_what_is_built_cannot_be_written_through():
    """Tables are shared with the cache: frames refuse writes, what `get` gives is one's own."""
    source = table(3)
    data = made(BTC=source)
    with pytest.raises(ValueError, match="read-only"):
        data.data[BTC].iloc[0, 0] = 0.0
    mine = data.get()
    mine.iloc[0, 0] = -1.0
    assert source == table(3)
    assert data.open[BTC].iloc[0] == source.values[0, 0]


def test_a_feature_is_put_together_once_and_given_to_each_as_his_own():
    """The second `get` copies nothing; who writes to what he got changes nobody else's."""
    data = made(BTC=table(3), ETH=table(3, seed=1))
    first, second = data.get("close"), data.get("close")
    assert np.shares_memory(first.to_numpy(), second.to_numpy())
    first.iloc[0, 0] = -1.0
    assert data.close.equals(second)
    assert second.iloc[0, 0] == table(3).values[0, 3]
    alone = made(BTC=table(3), ETH=table(3, seed=1)).get("close")  # its object is gone already
    alone.iloc[0, 0] = -1.0
    assert alone.iloc[0, 0] == -1.0


@pytest.mark.parametrize(
    "choose",
    [
        lambda d: d.select(ETH),
        lambda d: d.loc["2024-01-01 01:00":"2024-01-01 03:00"],
        lambda d: d.iloc[1:3],
        lambda d: d["Close"],
        lambda d: d.iloc[1:3, 0:2],
    ],
    ids=["select", "loc", "iloc", "column", "block"],
)
def test_choosing_copies_nothing(choose):
    """The chosen tables are views of the candles the object was built of."""
    tables = {BTC: table(5), ETH: table(5, seed=1)}
    data = choose(build(tables, timeframe=H1))
    for symbol, part in data.data.items():
        assert np.shares_memory(part.to_numpy(), tables[symbol].values)


def test_frames_that_share_an_index_still_do():
    """One index object for all symbols: VectorBT looks at it once per symbol."""
    frame = frame_of(table(3))
    data = Data.from_data({BTC: frame, ETH: frame.copy(), SOL: frame_of(table(3))})
    assert len({id(one.index) for one in data.data.values()}) == 1
    with pytest.raises(AssertionError):
        Data(data.wrapper, {BTC: frame, ETH: frame.iloc[1:]})


# ---------------------------------------------------------------------- tables_of


tables_strategy = st.dictionaries(
    st.sampled_from([BTC, ETH, SOL]),
    st.builds(
        lambda places, seed: table(60, seed=seed, skip=set(range(60)) - places),
        st.sets(st.integers(0, 59), max_size=12),
        st.integers(0, 3),
    ),
    min_size=1,
)


@given(tables_strategy)
@settings(max_examples=60, deadline=None)
def test_tables_come_back_from_the_object_they_made(tables):
    """`tables_of` is the inverse of `build`, padding and all."""
    assert tables_of(build(tables, timeframe=H1), H1) == tables


def frame_of(one, **kwargs):
    index = pd.DatetimeIndex(pd.to_datetime(one.open_time, unit="ms", utc=True), name="t")
    return pd.DataFrame(one.values, index=index, columns=list(COLUMNS), **kwargs)


def test_open_source_data_and_plain_dicts_give_their_tables():
    """Whatever holds frames by symbol will do; padding of a foreign object is dropped."""
    frames = {BTC: frame_of(table(3)), ETH: frame_of(table(3, 2))}
    with pytest.warns(UserWarning, match="mismatching index"):
        foreign = vectorbt.Data.from_data(frames, download_kwargs={})
    expected = {BTC: table(3), ETH: table(3, 2)}
    assert tables_of(frames) == expected
    assert tables_of(foreign) == expected
    assert tables_of(SimpleNamespace(data=frames)) == expected


def test_data_by_feature_give_their_tables():
    """VectorBT PRO's other layout: one frame per feature, a column per symbol."""

    class feature_dict(dict):  # noqa: N801  # the name PRO gives it
        pass

    data = made(BTC=table(3), ETH=table(3, 2))
    by_feature = feature_dict({name: data.get(name) for name in COLUMNS})
    assert tables_of(SimpleNamespace(data=by_feature)) == tables_of(data)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_an_index_of_any_unit_and_zone_names_the_same_times(unit, zone):
    """A naive index is UTC; a zoned one is the instants it names."""
    frame = frame_of(table(3))
    frame.index = (
        frame.index.tz_localize(None) if zone is None else frame.index.tz_convert(zone)
    ).as_unit(unit)
    assert tables_of({BTC: frame}) == {BTC: table(3)}


def test_columns_are_found_whatever_their_case_and_order():
    """Extra columns are left out, and whole numbers become floats."""
    frame = frame_of(table(3)).rename(columns=str.lower).assign(extra="x")
    assert tables_of({BTC: frame[["volume", "close", "extra", "low", "high", "open"]]}) == {
        BTC: table(3)
    }
    whole = frame_of(table(3)).round().astype("int64")
    assert tables_of({BTC: whole})[BTC].values.dtype == np.float64


def test_unsorted_rows_are_put_in_order():
    """Newest first is how some exchanges and people keep their tables."""
    assert tables_of({BTC: frame_of(table(5)).iloc[::-1]}) == {BTC: table(5)}


def test_candles_do_not_change_with_the_frame_they_came_from():
    """Writing to the frame later leaves the candles alone."""
    frame = frame_of(table(3), copy=True)
    tables = tables_of({BTC: frame})
    frame.iloc[0, 0] = -1.0
    assert tables == {BTC: table(3)}


def test_a_close_alone_is_no_candle():
    """A frame of closes raises, naming what is missing: no file shall lose four columns."""
    data = made(BTC=table(3), ETH=table(3))
    with pytest.raises(CandleError, match=r"BTC/USDT: .*Open, High, Low, Volume is missing"):
        tables_of(data["Close"])
    with pytest.raises(CandleError, match="Volume is missing"):
        tables_of({BTC: frame_of(table(3)).drop(columns="Volume")})


def twice(frame):
    return pd.concat([frame, frame.iloc[[1]]])


def holed(frame):
    return frame.assign(High=frame["High"].where(frame.index != frame.index[1]))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (twice, "2024-01-01 01:00 UTC is there twice"),
        (holed, "2024-01-01 01:00 UTC is missing in some"),
        (lambda f: f.reset_index(drop=True), "DatetimeIndex, got RangeIndex"),
        (
            lambda f: f.set_axis(f.index.where(f.index != f.index[1])),
            "time in the index is missing",
        ),
        (lambda f: f.set_axis(f.index + pd.Timedelta("1us")), "not a whole millisecond"),
        (lambda f: f.astype(object).assign(Low="cheap"), "not all values are numbers"),
        (lambda f: f["Close"], "is missing"),
        (lambda f: f.to_numpy(), "DatetimeIndex, got NoneType"),
    ],
)
def test_a_table_that_breaks_a_rule_is_named(spoil, reason):
    """The error says which symbol, which candle and which rule."""
    with pytest.raises(CandleError, match=reason) as caught:
        tables_of({BTC: spoil(frame_of(table(3)))})
    assert str(caught.value).startswith(BTC)


def test_a_flat_candle_is_no_duplicate():
    """Rows with equal values at different times are all kept."""
    flat = Candles.of(table(3).open_time, np.ones((3, 5)))
    assert tables_of({BTC: frame_of(flat)}) == {BTC: flat}


def test_a_time_off_the_grid_is_named_when_the_timeframe_is_known():
    """Data of another timeframe are not taken for these."""
    with pytest.raises(CandleError, match="off the 4h grid"):
        tables_of(made(BTC=table(3)), "4h")


def test_what_holds_no_frames_is_refused():
    """A frame by itself has no symbol."""
    with pytest.raises(OptionError, match="got DataFrame"):
        tables_of(frame_of(table(3)))


# ---------------------------------------------------------------------- get, select, indexing


def test_one_feature_over_symbols_is_a_frame_with_symbol_columns():
    """`get('close')` as the spec uses it, for many symbols and for a list of one."""
    data = made(BTC=table(3), ETH=table(3, seed=1))
    close = data.get("close")
    assert list(close.columns) == [BTC, ETH]
    assert close.columns.name == "symbol"
    assert list(close[ETH]) == list(table(3, seed=1).values[:, 3])
    assert list(made(BTC=table(3)).get("Close").columns) == [BTC]


def test_a_bare_symbol_gives_series():
    """Asked for by its name alone, a symbol's feature is a Series and its features a frame."""
    data = made(single=True, BTC=table(3))
    assert data.single_key
    assert isinstance(data.get("close"), pd.Series)
    assert list(data.close) == list(table(3).values[:, 3])
    assert list(data.get().columns) == list(COLUMNS)
    assert list(data.get(["low", "High"]).columns) == ["Low", "High"]


def test_features_and_symbols_can_be_named_in_every_way():
    """By name, by list, by both, with VectorBT's own argument, exact case before any case."""
    data = made(BTC=table(3), ETH=table(3, seed=1))
    assert data.get("Close", BTC).equals(data.close[BTC].rename("Close"))
    assert data.get(symbol="eth/usdt").equals(data.data[ETH])
    assert data.get(["Open"], BTC).equals(data.data[BTC][["Open"]])
    assert list(data.get("volume", [ETH]).columns) == [ETH]
    opens, lows = data.get(["open", "low"])
    assert opens.equals(data.open)
    assert lows.equals(data.low)
    assert data.get(column="Close").equals(data.close)
    assert [one.equals(data.get(name)) for one, name in zip(data.get(), COLUMNS, strict=True)] == [
        True
    ] * 5
    assert data.get("close", level_name="coin").columns.name == "coin"
    frame = frame_of(table(3)).assign(close=1.0)
    assert (Data.from_data({BTC: frame}).get("close") == 1.0).all()
    assert (Data.from_data({BTC: frame}).get("Close") == frame["Close"]).all()


def test_features_of_any_type_can_be_taken_across_symbols():
    """Times, flags and texts keep their types."""
    data = Data.from_data({BTC: kinds(), ETH: kinds()})
    for name in kinds().columns:
        across = data.get(name)
        assert list(across.columns) == [BTC, ETH]
        assert set(across.dtypes) == {kinds()[name].dtype}
        assert list(across[ETH])[:2] == list(kinds()[name])[:2]


def test_prices_and_volumes_are_attributes():
    """`open`, `high`, `low`, `close` and `volume`, each of all symbols."""
    data = made(BTC=table(3), ETH=table(3, seed=1))
    for name in COLUMNS:
        assert getattr(data, name.lower()).equals(data.get(name))


def test_an_unknown_feature_is_a_key_error_that_lists_those_there():
    """So `get` fails like the frame it looks into."""
    data = made(BTC=table(3))
    with pytest.raises(KeyError, match="no feature 'Closing'; there are Open"):
        data.get("Closing")
    both = Data.from_data({BTC: frame_of(table(3)).rename(columns={"Open": "close"})})
    with pytest.raises(KeyError, match="CLOSE"):
        both.get("CLOSE")  # 'close' or 'Close'? neither is guessed
    assert not hasattr(data["Close"], "volume")


def test_a_misspelt_argument_of_get_is_named():
    """Nothing is passed over, and the nearest name there is is told."""
    data = made(BTC=table(3))
    with pytest.raises(TypeError, match=r"argument 'symbols'; did you mean 'symbol'\?"):
        data.get(symbols=[BTC])
    with pytest.raises(TypeError, match=r"'nothing'$"):
        data.get("close", nothing=1)


def test_select_gives_the_symbols_named_in_their_order():
    """A list keeps frames, a bare symbol gives Series; the index stays."""
    data = made(BTC=table(3), ETH=table(3, 1), SOL=table(3, 2))
    some = data.select([SOL, BTC])
    assert some.symbols == [SOL, BTC]
    assert some.index.equals(data.index)
    assert isinstance(data.select(ETH).close, pd.Series)
    assert isinstance(data.select([ETH]).close, pd.DataFrame)
    assert data.select((BTC, ETH)).symbols == [BTC, ETH]
    assert data.symbols == [BTC, ETH, SOL]


@pytest.mark.parametrize("wanted", ["BTC/USD", [ETH, "BTC/USD"]])
def test_selecting_an_unknown_symbol_names_the_nearest(wanted):
    """Nothing is silently dropped."""
    with pytest.raises(UnknownSymbolError, match=r"'BTC/USD'; did you mean BTC/USDT") as caught:
        made(BTC=table(3), ETH=table(3)).select(wanted)
    assert caught.value.symbol == "BTC/USD"
    assert caught.value.suggestions[0] == BTC
    assert isinstance(caught.value, LookupError)


def test_selecting_nothing_is_an_error():
    """An empty list is a mistake, not an empty object."""
    with pytest.raises(NoSymbolsError):
        made(BTC=table(3)).select([])


def test_indexing_works_as_on_frames():
    """Rows by label and place, columns by name; all symbols at once."""
    data = made(BTC=table(5), ETH=table(5, seed=1))
    assert list(data.loc["2024-01-01 02:00":].index) == [stamp(p) for p in (2, 3, 4)]
    assert data.iloc[1:3].close.equals(data.close.iloc[1:3])
    assert data["Close"].get().equals(data.close)
    assert data[["Open", "Close"]].features == ["Open", "Close"]


# ---------------------------------------------------------------------- metadata


class Mine(Data):
    """A user's own class."""


VERBS = {
    "select": lambda d, _: d.select(BTC),
    "index": lambda d, _: d[["Open", "Close"]],
    "loc": lambda d, _: d.loc["2024-01-01":],
    "iloc": lambda d, _: d.iloc[1:4],
    "copy": lambda d, _: d.copy(),
    "replace": lambda d, _: d.replace(single_key=False),
    "copy.copy": lambda d, _: copy.copy(d),
    "copy.deepcopy": lambda d, _: copy.deepcopy(d),
    "pickle": lambda d, _: pickle.loads(pickle.dumps(d)),
    "dumps": lambda d, _: type(d).loads(d.dumps()),
    "merge": lambda d, _: d.merge(made(SOL=table(3))._replace()),
    "Data.merge": lambda d, _: Data.merge(d, d),
    "resample": lambda d, _: d.resample("4h"),
    "update": lambda d, _: d.update(exchange="sandbox"),
    "save": lambda d, tmp: (d.save(tmp / "x.pickle.blosc"), type(d).load(tmp / "x.pickle.blosc"))[
        1
    ],
    "regroup": lambda d, _: d.regroup(True),
}


@pytest.mark.parametrize("verb", VERBS)
def test_metadata_and_class_survive_every_verb(verb, tmp_path, monkeypatch):
    """What stands in `wrapper._metadata` goes along; so does a user's own class."""
    monkeypatch.setattr(
        asking, "ask", lambda symbols, **_: build({s: table(2, 5) for s in symbols}, timeframe=H1)
    )
    data = Mine._of(made(BTC=table(6), ETH=table(6)))
    changed = VERBS[verb](data, tmp_path)
    notes = metadata_of(changed)
    assert (notes.pop("derived", None) is not None) == (verb == "resample")
    assert notes == {"volume_data": {BTC: 5e8}}
    assert type(changed) is (Data if verb == "merge" else Mine)
    assert changed.fetch_kwargs["timeframe"] == ("4h" if verb == "resample" else "1h")


def test_notes_on_a_copy_are_not_made_on_the_original():
    """Metadata go along as a copy."""
    data = made(BTC=table(3))
    data.select(BTC).wrapper._metadata["mine"] = 1
    assert data.wrapper._metadata == {"volume_data": {BTC: 5e8}}


def test_notes_on_open_sources_wrapper_are_taken_over():
    """A hand-set `_metadata` on VectorBT's own object is not lost on the way here."""
    foreign = vectorbt.Data.from_data({BTC: frame_of(table(3))}, download_kwargs={})
    foreign.wrapper._metadata = {"volume_data": {BTC: 1.0}}
    assert Data.merge(foreign).wrapper._metadata == {"volume_data": {BTC: 1.0}}


# ---------------------------------------------------------------------- pull and update


class FakePipeline:
    """Answers from full tables, like `fetch_data`, and notes what it was asked."""

    def __init__(self, **tables):
        self.tables = {f"{base}/USDT": one for base, one in tables.items()}
        self.asked = []
        self.failing = {}

    def __call__(self, symbols, **kwargs):
        self.asked.append((symbols, kwargs))
        names = [symbols] if isinstance(symbols, str) else symbols
        for name in names:
            if name in self.failing:
                raise self.failing[name]
        start = int(pd.Timestamp(kwargs.get("start_date", "2000-01-01T00Z")).value // 10**6)
        end = int(pd.Timestamp(kwargs.get("end_date", "2100-01-01T00Z")).value // 10**6)
        return build(
            {name: self.tables[name].within(Interval(start, end)) for name in names},
            timeframe=H1,
            single=isinstance(symbols, str),
            fetch_kwargs={"exchange_id": "sandbox", "market_type": "spot"},
        )


@pytest.fixture
def pipeline(monkeypatch):
    fake = FakePipeline(BTC=table(10), ETH=table(10, seed=1), SOL=table(10, seed=2))
    monkeypatch.setattr(asking, "ask", fake)
    return fake


@pytest.mark.parametrize("verb", ["pull", "fetch", "download"])
def test_pull_asks_the_pipeline(pipeline, verb):
    """All three names ask once, in the front door's words, and remember what was asked."""
    data = getattr(Mine, verb)(
        [BTC, ETH], exchange="sandbox", timeframe="1h", start="2024-01-01T02Z"
    )
    assert pipeline.asked == [
        ([BTC, ETH], {"exchange_id": "sandbox", "timeframe": "1h", "start_date": "2024-01-01T02Z"})
    ]
    assert type(data) is Mine
    assert data.index[0] == stamp(2)
    assert data.fetch_kwargs == {
        "exchange_id": "sandbox",
        "market_type": "spot",
        "timeframe": "1h",
        "start_date": "2024-01-01T02Z",
    }
    assert isinstance(data.close, pd.DataFrame)
    assert isinstance(Data.pull(BTC).close, pd.Series)
    assert isinstance(Data.pull([BTC]).close, pd.DataFrame)


def test_a_progress_hook_is_of_one_question_only(pipeline):
    """It is passed on, and not asked again: it could not be saved either."""
    data = Data.pull(BTC, exchange="sandbox", timeframe="1h", include_forming=True, on_event=print)
    assert pipeline.asked[0][1]["on_event"] is print
    assert data.fetch_kwargs["include_forming"] is True
    assert "on_event" not in data.fetch_kwargs


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"tiemframe": "1h"}, "unknown option 'tiemframe'"), ({"start": 1, "start_date": 1}, "twice")],
)
def test_pull_refuses_options_it_does_not_know(pipeline, options, reason):
    """A misspelt option is not passed over in silence."""
    with pytest.raises(OptionError, match=reason):
        Data.pull([BTC], **options)
    assert pipeline.asked == []


def test_pull_takes_vectorbts_own_options(pipeline):
    """Zone, rows and wrapper as in VectorBT's `download`, by name and by place."""
    tables = pipeline.tables
    tables[ETH] = table(4, 2, seed=1)
    asked = {"exchange": "sandbox", "timeframe": "1h"}
    with pytest.warns(UserWarning, match="Dropping"):  # VectorBT says so
        berlin = Data.pull(
            [BTC, ETH], None, "Europe/Berlin", "drop", wrapper_kwargs={"freq": "2h"}, **asked
        )
    assert list(berlin.index) == [stamp(p) for p in range(2, 6)]
    # VectorBT reads a zone's name as its offset of today, or as the zone, by its settings.
    assert berlin.index.tz == berlin.close.index.tz != UTC
    assert berlin.index.name == "Open time"
    assert (berlin.tz_convert, berlin.missing_index) == ("Europe/Berlin", "drop")
    assert berlin.freq == pd.Timedelta(hours=2)
    later = berlin.update()
    assert later.index.tz == berlin.index.tz
    assert list(later.index) == list(berlin.index)
    with pytest.raises(ValueError, match="mismatching index"):
        Data.pull([BTC, ETH], missing_index="raise", **asked)


def test_pull_takes_a_value_per_symbol(pipeline):
    """Symbols that are asked for alike are asked for together, and come in the order named."""
    starts = vbt.symbol_dict({BTC: "2024-01-01T02Z", ETH: "2024-01-01T05Z", SOL: "2024-01-01T02Z"})
    data = Data.pull([BTC, ETH, SOL], exchange="sandbox", timeframe="1h", start=starts)
    assert [symbols for symbols, _ in pipeline.asked] == [[BTC, SOL], [ETH]]
    assert data.symbols == [BTC, ETH, SOL]
    assert list(data.close.notna().sum()) == [8, 5, 8]
    assert not data.single_key
    data.update(include_forming=vbt.symbol_dict({BTC: True}))
    assert [k.get("include_forming") for s, k in pipeline.asked[2:] if BTC in s] == [True]
    assert [k.get("include_forming") for s, k in pipeline.asked[2:] if ETH in s] == [None]


def test_code_written_for_ccxtdata_needs_no_change(pipeline):
    """How VectorBT pages is not asked for; its name for the exchange's settings is understood."""
    vbt.CCXTData.download(
        BTC, exchange="sandbox", config={"timeout": 1}, limit=500, delay=None, retries=3,
        show_progress=False,
    )  # fmt: skip
    assert pipeline.asked == [(BTC, {"exchange_id": "sandbox", "exchange_config": {"timeout": 1}})]


def test_pull_takes_whatever_fetch_data_takes():
    """No option of the front door is missing here."""
    from backtester.data.fetching.data_fetcher import fetch_data

    options = inspect.signature(fetch_data).parameters.keys() - {"symbols"}
    assert asking.arguments(dict.fromkeys(options, "x")) == dict.fromkeys(options, "x")


def test_an_exchange_object_is_refused_with_the_way_to_say_it(pipeline):
    """VectorBT's CCXTData takes one; its keys and proxies would be lost here in silence."""
    with pytest.raises(OptionError, match="not by a SimpleNamespace; its settings go into"):
        vbt.CCXTData.download(BTC, exchange=SimpleNamespace(id="sandbox"))
    assert pipeline.asked == []


def test_update_starts_at_each_symbols_own_last_candle(pipeline):
    """A symbol eight bars behind the others gets no hole; equals are asked for together."""
    old = build(
        {BTC: table(9), ETH: table(1, seed=1), SOL: table(9, seed=2)},
        timeframe=H1,
        fetch_kwargs={"exchange_id": "sandbox", "end_date": "2024-01-01T09Z"},
    )
    new = old.update()
    assert tables_of(new) == pipeline.tables
    assert [(symbols, kwargs["start_date"]) for symbols, kwargs in pipeline.asked] == [
        ([BTC, SOL], stamp(8)),
        ([ETH], stamp(0)),
    ]
    assert all(kwargs["use_cache"] is False for _, kwargs in pipeline.asked)
    assert all("end_date" not in kwargs for _, kwargs in pipeline.asked)
    assert len(old.index) == 9  # the old object is as it was
    assert new.fetch_kwargs == old.fetch_kwargs


def test_update_replaces_a_last_candle_that_was_unfinished(pipeline):
    """The last stored row is read again, and the new answer wins."""
    values = table(4).values.copy()
    values[-1] *= 0.5
    old = made(fetch_kwargs={"exchange_id": "sandbox"}, BTC=Candles.of(table(4).open_time, values))
    assert tables_of(old.update(end="2024-01-01T06Z")) == {BTC: table(6)}
    assert pipeline.asked[0][1]["end_date"] == "2024-01-01T06Z"


def test_update_of_a_symbol_without_candles_asks_from_where_the_data_were_asked(pipeline):
    """A symbol that had nothing yet is asked for in full."""
    old = made(
        fetch_kwargs={"exchange_id": "sandbox", "start_date": "2024-01-01T01Z"},
        BTC=table(3),
        ETH=Candles.empty(),
    )
    new = old.update()
    assert pipeline.asked[1][1]["start_date"] == "2024-01-01T01Z"
    assert (
        tables_of(new)[ETH] == table(9, 1, seed=1, skip=()).within(Interval(0, 2**50))
        or len(tables_of(new)[ETH]) == 9
    )


def test_update_keeps_what_it_was_asked_for_by(pipeline):
    """A bare symbol stays one; the caller's own words override what was asked then."""
    data = Data.pull(BTC, exchange="sandbox", timeframe="1h", end="2024-01-01T03Z")
    new = data.update(exchange_config={"timeout": 1})
    assert new.single_key
    assert isinstance(new.close, pd.Series)
    assert len(new.index) == 10
    assert pipeline.asked[1][1]["exchange_config"] == {"timeout": 1}


def test_update_of_data_that_know_no_exchange_says_how(pipeline):
    """Data made by hand need to be told; then they are updated too."""
    data = Data.from_data({BTC: frame_of(table(3))})
    with pytest.raises(OptionError, match="which exchange and timeframe"):
        data.update()
    new = data.update(exchange="sandbox", timeframe="1h")
    assert tables_of(new) == {BTC: table(10)}


def test_update_to_before_the_end_changes_nothing(pipeline):
    """Data that already reach beyond the end asked for stay as they are."""
    pipeline.failing[BTC] = EmptyIntervalError("the start is not before the end")
    old = made(fetch_kwargs={"exchange_id": "sandbox"}, BTC=table(5))
    assert_same(old.update(end="2024-01-01T02Z"), old)


def test_update_warns_of_symbols_that_failed_and_keeps_them(pipeline):
    """One dead symbol does not stop the others, and is not passed over in silence."""
    pipeline.failing[ETH] = ExchangeUnavailableError("down")
    old = made(fetch_kwargs={"exchange_id": "sandbox"}, BTC=table(5), ETH=table(4, seed=1))
    with pytest.warns(RuntimeWarning, match="ETH/USDT was not updated: down") as caught:
        new = old.update()
    assert caught[0].filename == __file__
    assert tables_of(new) == {BTC: table(10), ETH: table(4, seed=1)}


def test_update_raises_when_nothing_could_be_updated(pipeline):
    """The failure of all is the failure of the update; so is a question that makes no sense."""
    old = made(fetch_kwargs={"exchange_id": "sandbox"}, BTC=table(5))
    pipeline.failing[BTC] = DateError("not a date")
    with pytest.raises(DateError):
        old.update(end="soonish")


def test_a_merged_object_updates_like_any_other(pipeline):
    """Merging keeps the class and what was asked, for each symbol its own."""
    one = build(
        {BTC: table(3)}, timeframe=H1, fetch_kwargs={"exchange_id": "a", "market_type": "spot"}
    )
    two = build(
        {ETH: table(3, seed=1)},
        timeframe=H1,
        fetch_kwargs={"exchange_id": "b", "market_type": "spot"},
    )
    both = Data.merge(one, two)
    assert both.fetch_kwargs["market_type"] == "spot"
    assert len(both.update().index) == 10
    assert [(symbols, kwargs["exchange_id"]) for symbols, kwargs in pipeline.asked] == [
        ([BTC], "a"),
        ([ETH], "b"),
    ]


# ---------------------------------------------------------------------- merge


def test_merge_unites_symbols_and_times():
    """Symbols in order of appearance, each on its own times, later rows over earlier ones."""
    changed = Candles.of(table(4, 2).open_time, table(4, 2).values * 2)
    merged = Data.merge(made(BTC=table(4)), made(ETH=table(2, 4), BTC=changed))
    assert merged.symbols == [BTC, ETH]
    tables = tables_of(merged)
    assert tables[ETH] == table(2, 4)
    assert list(tables[BTC].open_time) == list(table(6).open_time)
    assert np.array_equal(tables[BTC].values[:2], table(2).values)
    assert np.array_equal(tables[BTC].values[2:], changed.values)


def test_a_row_of_padding_never_replaces_a_candle():
    """A later object that only lacks a candle does not remove it."""
    later = made(BTC=table(1), ETH=table(4))
    assert tables_of(Data.merge(made(BTC=table(4)), later))[BTC] == table(4)


@given(tables_strategy, tables_strategy)
@settings(max_examples=40, deadline=None)
def test_merging_is_the_union_in_which_the_later_wins(first, second):
    """By value, against dictionaries of rows; and merging again changes nothing."""
    one, two = build(first, timeframe=H1), build(second, timeframe=H1)
    merged = Data.merge(one, two)
    for symbol in {**first, **second}:
        rows = {
            int(time): tuple(row)
            for part in (first, second)
            if symbol in part
            for time, row in zip(part[symbol].open_time, part[symbol].values, strict=True)
        }
        found = tables_of(merged)[symbol]
        assert dict(zip(found.open_time.tolist(), map(tuple, found.values), strict=True)) == rows
    assert_same(Data.merge(merged, two), merged)
    assert_same(merged.merge(), merged)
    assert_same(Data.merge([merged, merged]), merged)


def test_merging_keeps_the_most_specific_common_class():
    """Of a class and its subclass the class; of open source's and ours, ours."""

    class Other(Data):
        pass

    mine, other, base = (
        Mine._of(made(BTC=table(2))),
        Other._of(made(ETH=table(2))),
        made(SOL=table(2)),
    )
    foreign = vectorbt.Data.from_data({"X": frame_of(table(2))}, download_kwargs={})
    assert type(Data.merge(mine, mine)) is Mine
    assert type(Data.merge(mine, other)) is Data
    assert type(Mine.merge(base, mine)) is Data
    assert type(Data.merge(foreign, mine)) is Data
    assert Data.merge(foreign, mine).symbols == ["X", BTC]


def test_metadata_are_merged_entry_by_entry():
    """Volumes of both objects are there afterwards; of one name's values the later's."""
    one, two = made(BTC=table(2)), made(ETH=table(2))
    one.wrapper._metadata = {"volume_data": {BTC: 1.0, ETH: 0.0}, "source": "a", "only": 1}
    two.wrapper._metadata = {"volume_data": {ETH: 2.0}, "source": "b"}
    assert Data.merge(one, two).wrapper._metadata == {
        "volume_data": {BTC: 1.0, ETH: 2.0},
        "source": "b",
        "only": 1,
    }


def test_what_has_passed_is_not_noted_any_more():
    """A failure or an unfinished candle of an earlier answer ends with a later one."""
    one, two = made(BTC=table(2), ETH=table(2)), made(ETH=table(3))
    one.wrapper._metadata = {"failures": {SOL: "down"}, "forming": {BTC: 1, ETH: 1}}
    two.wrapper._metadata = {"failures": {}, "forming": {}}
    assert metadata_of(Data.merge(one, two)) == {"failures": {SOL: "down"}, "forming": {BTC: 1}}


def test_metadata_can_be_asked_of_anything():
    """Foreign objects and dictionaries just have none."""
    data = made(BTC=table(2))
    notes = metadata_of(data)
    notes["mine"] = 1
    assert metadata_of(data) == {"volume_data": {BTC: 5e8}}
    assert metadata_of({BTC: frame_of(table(2))}) == {}
    assert metadata_of(vectorbt.Data.from_data({BTC: frame_of(table(2))}, download_kwargs={})) == {}


def test_what_to_do_with_missing_times_and_columns_can_be_said():
    """NaN, dropped, or an error."""
    one, two = made(BTC=table(4)), made(ETH=table(4, 2))
    assert list(Data.merge(one, two, missing_index="drop").index) == [stamp(2), stamp(3)]
    with pytest.raises(ValueError, match="same index"):
        Data.merge(one, two, missing_index="raise")
    assert Data.merge(one, made(ETH=table(4)), missing_index="raise").symbols == [BTC, ETH]
    three = two[["Close", "Volume"]]
    with pytest.raises(ValueError, match="Open, High, Low"):
        Data.merge(one, three)
    assert Data.merge(one, three, missing_columns="drop").features == ["Close", "Volume"]
    padded = Data.merge(one, three, missing_columns="nan")
    assert padded.features == list(COLUMNS)
    assert padded.open[ETH].isna().all()
    with pytest.raises(OptionError, match="nan, drop, raise"):
        Data.merge(one, two, missing_index="guess")


def test_merging_what_does_not_belong_together_is_an_error():
    """Different timeframes would make one wrong table; a frame is no Data object."""
    day = Timeframe.parse("1d")
    with pytest.raises(OptionError, match="1d, 1h"):
        Data.merge(made(BTC=table(3)), made(timeframe=day, BTC=table(3, timeframe=day)))
    with pytest.raises(OptionError, match="DataFrame"):
        Data.merge(made(BTC=table(3)), frame_of(table(3)))
    with pytest.raises(OptionError, match="nothing"):
        Data.merge()


def test_zones_and_units_are_brought_together():
    """A naive object is UTC; the first zone there is wins, the instants stay."""
    berlin = Data.from_data({SOL: frame_of(table(3, 2))}, tz_convert="Europe/Berlin")
    merged = Data.merge(made(BTC=table(3)), berlin, naive(ETH))
    assert str(merged.index.dtype) == "datetime64[ns, UTC]"
    assert tables_of(merged) == {BTC: table(3), SOL: table(3, 2), ETH: table(3)}


# ---------------------------------------------------------------------- resample


def aggregated(one, timeframe, places):
    """The candles of a longer timeframe, worked out row by row."""
    rows = []
    for place in places:
        start = timeframe.open_time(timeframe.index(START) + place)
        part = one.within(Interval(start, timeframe.next(start))).values
        rows.append(
            (start, part[0, 0], part[:, 1].max(), part[:, 2].min(), part[-1, 3], part[:, 4].sum())
        )
    return Candles.of([r[0] for r in rows], [r[1:] for r in rows])


def close_to(left, right):
    return np.array_equal(left.open_time, right.open_time) and np.allclose(
        left.values, right.values, rtol=1e-12
    )


@pytest.mark.parametrize(
    ("rule", "first", "count", "places"),
    [
        ("4h", 0, 24, range(6)),
        ("4h", 1, 24, range(1, 6)),  # the first and the last four hours are not whole
        ("1d", 0, 72, range(3)),
        ("1w", -3, 24 * 7 * 2 + 5, range(2)),  # weeks begin on Monday, and 2024 did too
        ("1M", 0, 24 * 61, range(2)),  # January and February, and a day of March
        ("1h", 0, 5, range(5)),
    ],
)
def test_longer_candles_are_whole_ones(rule, first, count, places):
    """First open, highest high, lowest low, last close, total volume, of whole groups only."""
    timeframe = Timeframe.parse(rule)
    origin = H1.index(START) + first
    times = np.array([H1.open_time(origin + p) for p in range(count)])
    one = Candles.of(times, table(count).values)
    data = made(BTC=one).resample(rule)
    assert close_to(tables_of(data)[BTC], aggregated(one, timeframe, places))
    assert data.timeframe == str(timeframe)
    assert str(data.index.dtype) == "datetime64[ns, UTC]"
    assert data.index.name == "Open time"


def test_a_young_symbol_does_not_cut_the_others():
    """Each symbol has all its own whole groups, and NaN before."""
    data = made(BTC=table(96), ETH=table(30, 66)).resample("1d")
    assert list(data.close[BTC].notna()) == [True] * 4
    assert list(data.close[ETH].notna()) == [False, False, False, True]


def test_an_hour_without_trades_does_not_hide_the_day():
    """A hole inside a history is an absence the exchange's own candle has too."""
    one = table(72, skip={24, 30, 47})
    assert close_to(
        tables_of(made(BTC=one).resample("1d"))[BTC],
        aggregated(one, Timeframe.parse("1d"), range(3)),
    )


def test_groups_beside_a_long_hole_are_left_out_when_it_cuts_them():
    """Nothing tells whether the days at the edges of missing days are whole."""
    one = table(24 * 6, skip=set(range(30, 100)))
    assert list(tables_of(made(BTC=one).resample("1d"))[BTC].open_time) == [START, START + 5 * DAY]


def test_what_was_made_of_shorter_candles_says_so():
    """Whoever gets the object can tell, by symbol, and so can whoever loads it."""
    data = made(BTC=table(30, 2), ETH=table(2)).resample("4h")
    noted = {BTC: [{"from": "1h", "start_ms": START + 4 * HOUR, "end_ms": START + 32 * HOUR}]}
    assert Data.loads(data.dumps()).wrapper._metadata["derived"] == noted


def test_an_unfinished_hour_makes_no_day():
    """The forming candle stands in the object, and the group that holds it is not whole."""
    data = made(BTC=table(8), ETH=table(8, seed=1))
    data.wrapper._metadata["forming"] = {BTC: START + 7 * HOUR}
    four = data.resample("4h")
    assert {s: len(t) for s, t in tables_of(four).items()} == {BTC: 1, ETH: 2}
    assert "forming" not in four.wrapper._metadata
    assert "forming" in data.wrapper._metadata


def test_resampling_no_candles_gives_none():
    """An empty object stays one."""
    data = made(BTC=Candles.empty(), ETH=Candles.empty()).resample("1d")
    assert data.symbols == [BTC, ETH]
    assert len(data.index) == 0


@pytest.mark.parametrize(
    ("own", "rule"),
    [
        ("4h", "6h"),
        ("4h", "1h"),
        ("1w", "1M"),
        ("7d", "1w"),
        ("5h", "1d"),
        ("2d", "1M"),
        ("1M", "1w"),
    ],
)
def test_a_timeframe_not_made_of_whole_candles_is_refused(own, rule):
    """4h into 6h would give half the opens wrong; weeks do not make months."""
    timeframe = Timeframe.parse(own)
    data = made(timeframe=timeframe, BTC=table(5, timeframe=timeframe))
    with pytest.raises(OptionError, match=f"{rule} candles are not made of whole {own}"):
        data.resample(rule)


def test_months_make_quarters_and_minutes_are_minutes():
    """`3M` of months works; `1m` is a minute and never a month."""
    month = Timeframe.parse("1M")
    data = made(timeframe=month, BTC=table(7, timeframe=month)).resample("3M")
    assert list(data.index) == [
        pd.Timestamp("2024-01-01", tz="UTC"),
        pd.Timestamp("2024-04-01", tz="UTC"),
    ]
    with pytest.raises(OptionError, match="1m candles"):
        made(BTC=table(5)).resample("1m")
    with pytest.raises(UnknownTimeframeError):
        made(BTC=table(5)).resample("fortnight")


def test_other_columns_are_summed_or_refused():
    """Volumes and counts add up; what is neither price nor sum has no rule."""
    frame = frame_of(table(8)).assign(**{"Quote volume": 2.0, "Number of trades": 1})
    data = Data.from_data({BTC: frame}).resample("4h")
    assert list(data.get("quote volume")) == [8.0, 8.0]
    assert list(data.get("Number of trades")) == [4, 4]
    with pytest.raises(OptionError, match="RSI"):
        Data.from_data({BTC: frame.assign(RSI=1.0)}).resample("4h")


def test_one_column_can_be_resampled():
    """Closes alone stay closes alone, in the zone and unit they had."""
    closes = Data.from_data({BTC: frame_of(table(9))["Close"]}, tz_convert="Asia/Tokyo")
    four = closes.resample("4h").get()
    assert list(four) == [table(9).values[3, 3], table(9).values[7, 3]]
    assert four.index[0].utcoffset() == timedelta(hours=9)
    assert four.index.unit == closes.index.unit


@pytest.mark.parametrize(
    ("own", "expected"),
    [("1h", "1h"), ("15m", "15m"), ("1d", "1d"), ("1w", "1w"), ("1M", "1M"), ("90s", "90s")],
)
def test_the_timeframe_of_a_foreign_object_is_seen_in_its_index(own, expected):
    """Objects that were not asked for here can be resampled too, holes or not."""
    timeframe = Timeframe.parse(own)
    data = Data.from_data({BTC: frame_of(table(9, timeframe=timeframe, skip={3}))})
    assert data.timeframe == expected


def test_data_without_a_timeframe_cannot_be_resampled():
    """One row, or no times, or steps below a second, tell nothing."""
    fast = frame_of(table(3)).set_axis(pd.date_range("2024", periods=3, freq="250ms", tz="UTC"))
    assert Data.from_data({BTC: fast}).timeframe is None
    one = Data.from_data({BTC: frame_of(table(1))})
    assert one.timeframe is None
    with pytest.raises(OptionError, match="timeframe"):
        one.resample("1d")
    assert Data.from_data({BTC: np.ones((3, 2))}).timeframe is None


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["candles.pickle.blosc", "candles.pickle", "candles"])
def test_a_saved_object_comes_back_whole(tmp_path, name):
    """Tables, index, notes and what was asked; and no draft is left beside the file."""
    data = made(BTC=table(5), ETH=table(3, 2), fetch_kwargs={"exchange_id": "sandbox"})
    data.save(tmp_path / name)
    back = Data.load(tmp_path / name)
    assert_same(back, data)
    assert back == data
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_any_python_reads_the_file(tmp_path):
    """An ordinary `pickle.loads` of the decompressed file is a Data object."""
    data = made(BTC=table(5))
    data.save(tmp_path / "x.pickle.blosc")
    assert pickle.loads(blosc2.decompress((tmp_path / "x.pickle.blosc").read_bytes())) == data


def test_padding_takes_no_room_in_a_file():
    """Symbols keep their own times; one with few candles costs few bytes."""
    many = {f"S{n}/USDT": table(1, n * 50, seed=n) for n in range(20)}
    assert len(build(many, timeframe=H1).dumps()) < 40_000  # of padding alone: 800,000


def test_a_dataset_file_with_a_footer_is_read(tmp_path):
    """What the store writes after the chunk does not matter here."""
    payload = plain.dataset_payload(
        {BTC: Series(table(5))}, {"a": 1}, exchange="sandbox", market_type="spot", timeframe="1h"
    )
    (tmp_path / "sandbox_spot_1h.pickle.blosc").write_bytes(plain.pack(payload) + b"footer")
    data = Data.load(tmp_path / "sandbox_spot_1h.pickle.blosc")
    assert tables_of(data) == {BTC: table(5)}
    assert data.wrapper._metadata == {"a": 1}
    assert data.fetch_kwargs == {"timeframe": "1h", "exchange_id": "sandbox", "market_type": "spot"}
    assert_same(rebuild(payload), data)


floats = npst.arrays(np.float64, (4, 5), elements=st.floats(width=64))


@given(st.lists(floats, min_size=1, max_size=3), st.booleans())
@settings(max_examples=80, deadline=None)
def test_any_floats_come_back_bit_for_bit(tables, single):
    """NaN in part, infinities, negative zero and the bits of a NaN included."""
    index = pd.DatetimeIndex(table(4).open_time * 1_000_000, tz="UTC", name="Open time")
    frames = {
        f"S{n}": pd.DataFrame(t, index=index, columns=list(COLUMNS)) for n, t in enumerate(tables)
    }
    data = Data.from_data(frames, single_key=single and len(tables) == 1)
    back = Data.loads(data.dumps())
    assert back.single_key == data.single_key
    for symbol, frame in data.data.items():
        bits = [
            np.ascontiguousarray(f.to_numpy()).view(np.int64) for f in (frame, back.data[symbol])
        ]
        assert np.array_equal(*bits)
        pd.testing.assert_frame_equal(back.data[symbol], frame)


def kinds():
    times = frame_of(table(4)).index
    return pd.DataFrame(
        {
            "Close": np.arange(4.0),
            "Trades": np.arange(4),
            "Final": [True, False, True, True],
            "Close time": times,
            "Span": pd.to_timedelta([1, 2, 3, 4], unit="h"),
            "Half": np.arange(4, dtype=np.float32),
            "Name": ["a", "b", "c", "d"],
            "Odd": pd.Series([1, "x", None, 2.5], dtype=object).to_numpy(),
        },
        index=times,
    )


def levels():
    columns = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", None])
    return pd.DataFrame([[1.0, 2.0]], columns=columns)


def named(value):
    return pd.Series([value, 2.0], name="x")


OPTIONS = {
    "start": datetime(2024, 1, 1, tzinfo=UTC),
    "end": pd.Timestamp("2024-01-02 00:00:00.000000001"),
    "span": timedelta(days=1),
    "shape": (5, 3),
    "per": vectorbt.data.base.symbol_dict({"a": [1, 2]}),
    "array": np.arange(6).reshape(2, 3),
    "offset": pd.offsets.Hour(2),
    "zone": UTC,
    "step": pd.Timedelta(hours=1),
}

ODD = {
    "kinds": lambda: Data.from_data({BTC: kinds(), ETH: kinds()}),
    "arrays": lambda: Data.from_data({0: np.arange(6.0).reshape(3, 2), 1: np.ones((3, 2))}),
    "series": lambda: Data.from_data({("a", 1): named(1.0), "b": named(3.0)}),
    "nameless": lambda: Data.from_data({"a": pd.Series([1, 2])}),
    "labels": lambda: Data.from_data({"a": pd.DataFrame({1: [1.0]}, index=["row"])}),
    "zone": lambda: Data.from_data({"a": frame_of(table(3))}, tz_convert="Asia/Tokyo"),
    "naive": lambda: naive(BTC),
    "city": lambda: in_zone("Europe/Berlin"),
    "pytz": lambda: in_zone(pytz.timezone("Asia/Tokyo")),
    "whole": lambda: Data.from_data({BTC: frame_of(table(3)).round().astype("int64")}),
    "offset": lambda: Data.from_data({"a": frame_of(table(3))}, tz_convert=5.5),
    "unsorted": lambda: Data.from_data({"a": frame_of(table(3)).iloc[::-1]}),
    "levels": lambda: Data.from_data({"a": levels()}),
    "grouped": lambda: made(BTC=table(3)).regroup(np.array([0, 0, 1, 1, 1])),
    "stepped": lambda: Data.from_data({"a": frame_of(table(3))}, wrapper_kwargs={"freq": "1h"}),
    "options": lambda: Data.from_data({"a": frame_of(table(2))}, download_kwargs=OPTIONS),
}


def in_zone(zone):
    data = made(BTC=table(3))
    index = data.index.tz_convert(zone)
    frames = {symbol: frame.set_axis(index) for symbol, frame in data.data.items()}
    return data.replace(data=frames, wrapper=data.wrapper.replace(index=index))


def naive(symbol):
    with_zone = made(BTC=table(3))
    frame = with_zone.get(symbol=BTC).tz_localize(None)
    return with_zone.replace(
        data={symbol: frame}, wrapper=with_zone.wrapper.replace(index=frame.index)
    )


@pytest.mark.parametrize("name", ODD)
def test_any_object_of_data_comes_back(name):
    """Whatever the columns, types, labels and indexes: equal afterwards, down to the types."""
    data = ODD[name]()
    back = Data.loads(data.dumps())
    assert back == data
    for symbol, frame in data.data.items():
        same = pd.testing.assert_series_equal if frame.ndim == 1 else pd.testing.assert_frame_equal
        same(back.data[symbol], frame)
    assert Data.loads(back.dumps()) == data


def test_a_user_class_comes_back_as_itself():
    """The file names no class; the class that loads gives its own."""

    class Special(Data):
        def __init__(self, *args, flavour="plain", **kwargs):
            super().__init__(*args, flavour=flavour, **kwargs)
            self.flavour = flavour

    data = Special._of(made(BTC=table(3)), flavour="sweet")
    back = Special.loads(data.dumps())
    assert (type(back), back.flavour) == (Special, "sweet")
    assert back == data


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.replace(download_kwargs={"client": object()}),
        lambda d: d.replace(download_kwargs={"__type__": 1}),
        lambda d: Data.from_data({"a": frame_of(table(2)).assign(c=pd.Categorical(["x", "y"]))}),
        lambda d: Data.from_data({"a": pd.DataFrame({"x": [{1}]})}),
        lambda d: Data.from_data({pd.Timestamp(0): frame_of(table(2))}).replace(
            download_kwargs={pd.Timestamp(0): 1}
        ),
    ],
    ids=["client", "reserved", "categories", "sets", "times-as-names"],
)
def test_what_cannot_be_saved_is_said_before_anything_is_written(tmp_path, spoil):
    """An object that would not come back is not written at all."""
    with pytest.raises(DatasetWriteError, match="cannot be saved"):
        spoil(made(BTC=table(3))).save(tmp_path / "x.pickle")
    assert list(tmp_path.iterdir()) == []


def test_numpy_numbers_are_written_as_pythons():
    """A note made of a computed number is read back as that number."""
    data = made(BTC=table(2))
    data.wrapper._metadata.update(half=np.float32(0.5), many=np.int64(7), sure=np.bool_(True))
    notes = Data.loads(data.dumps()).wrapper._metadata
    assert (notes["half"], notes["many"], notes["sure"]) == (0.5, 7, True)
    assert {type(notes[name]) for name in ("half", "many", "sure")} == {float, int, bool}


def test_keys_to_accounts_are_not_written():
    """Files are passed around; credentials do not travel in them, other settings do."""
    config = {
        "apiKey": "KEY-1", "secret": "KEY-2", "timeout": 5, "httpsProxy": "http://me:KEY-3@host:1",
        "options": {"password": "KEY-4", "adjust": True}, "headers": [{"token": "KEY-5"}],
    }  # fmt: skip
    asked = {"exchange_id": "x", "exchange_config": config, "data_dir": "/home/me"}
    data = made(BTC=table(2), fetch_kwargs=asked)
    content = data.dumps()
    assert b"KEY-" not in content
    assert b"/home/me" not in content
    assert Data.loads(content).fetch_kwargs["exchange_config"] == {
        "timeout": 5, "options": {"adjust": True}, "headers": [{}],
    }  # fmt: skip
    assert data.fetch_kwargs["exchange_config"] == config


@pytest.mark.parametrize("suffix", [".gz", ".zip", ".zst"])
def test_compressions_that_are_not_offered_are_refused(tmp_path, suffix):
    """A file is never something else than its name says."""
    with pytest.raises(OptionError, match=suffix):
        made(BTC=table(2)).save(tmp_path / f"x.pickle{suffix}")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    """The file is replaced whole or not at all."""
    path = tmp_path / "x.pickle.blosc"
    made(BTC=table(3)).save(path)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(DatasetWriteError, match="disk full"):
        made(BTC=table(5)).save(path)
    assert tables_of(Data.load(path)) == {BTC: table(3)}
    assert [p.name for p in tmp_path.iterdir()] == ["x.pickle.blosc"]


def test_a_hostile_file_runs_nothing(tmp_path):
    """VectorBT's own `load` would run this; ours refuses it, compressed or not."""

    class Attack:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'canary')!r}, 'w')",))

    raw = pickle.dumps(Attack())
    for name, content in {"a.pickle": raw, "b.pickle.blosc": bytes(blosc2.compress2(raw))}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorruptDatasetError, match=name):
            Data.load(tmp_path / name)
    assert not (tmp_path / "canary").exists()


def test_a_missing_file_is_a_missing_file(tmp_path):
    """Not an empty object, not a corrupt one."""
    with pytest.raises(FileNotFoundError):
        Data.load(tmp_path / "none.pickle.blosc")


@pytest.mark.parametrize("name", ["kinds", "options", "naive"])
def test_any_flipped_byte_of_a_saved_object_is_noticed(name):
    """A checksum over everything: no damage gives another object, or another error."""
    data = ODD[name]()
    content = data.dumps()
    step = max(1, len(content) // 400)
    for at in range(0, len(content), step):
        broken = bytearray(content)
        broken[at] ^= 0x15
        try:
            back = Data.loads(bytes(broken))
        except CorruptDatasetError:
            continue
        assert back == data  # the byte was pickle's own, such as a frame's length


def forged(data, **changes):
    """A payload with a wrong view and the right checksum."""
    from backtester.data.vbt_adapter import saved

    payload = plain.parse(data.dumps())
    payload["view"].update(changes)
    payload["view"]["crc32"] = saved._fingerprint(payload)
    return payload


@pytest.mark.parametrize(
    "changes",
    [
        {"index": 5},
        {"index": {"__type__": "nothing"}},
        {"index": {"__type__": "index", "kind": "range", "range": [0, 10**18, 1], "names": [None]}},
        {
            "index": {
                "__type__": "index",
                "kind": "times",
                "unit": "Y",
                "zone": None,
                "freq": None,
                "dtype": "<i8",
                "data": b"12345678" * 2,
                "names": [None],
            }
        },
        {
            "columns": {
                "__type__": "index",
                "kind": "labels",
                "dtype": "object",
                "items": [1],
                "names": [None],
            }
        },
        {"ndim": 3},
        {"ndim": 1},
        {"symbols": ["A/USDT"]},
        {"symbols": []},
        {"symbols": None},
        {"frames": []},
        {"frames": [{"name": None, "columns": []}]},
        {
            "frames": [
                {
                    "name": None,
                    "columns": [
                        {
                            "__type__": "index",
                            "kind": "numbers",
                            "dtype": "|O8",
                            "data": b"12345678",
                            "names": [None],
                        }
                    ],
                }
            ]
        },
        {"wrapper": {"nonsense": 1}},
        {"wrapper": {"freq": {"__type__": "frequency", "name": "__import__('os')"}}},
        {"options": {"wrapper": 1}},
        {"options": {"tz_localize": {"__type__": "zone", "zone": "../../etc/passwd"}}},
        {"options": {"x": {"__type__": "step", "ns": 10**30}}},
        {
            "options": {
                "x": {"__type__": "array", "dtype": "<f8", "data": b"", "shape": (10**9, 10**9)}
            }
        },
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_forged_view_is_refused(changes):
    """A right checksum proves no good intentions."""
    with pytest.raises(CorruptDatasetError):
        rebuild(forged(made(BTC=table(2)), **changes))


@pytest.mark.parametrize("timeframe", [None, "soon"])
def test_a_dataset_without_a_timeframe_is_refused(timeframe):
    """What cannot be built says so with the file's name."""
    payload = plain.dataset_payload(
        {BTC: Series(table(2))}, {}, exchange="x", market_type="spot", timeframe=timeframe
    )
    with pytest.raises(CorruptDatasetError, match="some file"):
        rebuild(payload, "some file")


def test_an_empty_dataset_is_empty_rather_than_corrupt():
    """A dataset of no symbols cannot be an object, but nothing is wrong with it."""
    payload = plain.dataset_payload({}, {}, exchange="x", market_type="spot", timeframe="1h")
    with pytest.raises(NoSymbolsError):
        rebuild(payload)


# ---------------------------------------------------------------------- as open source


def source(base):
    """One user class on either base: symbols are numbers, data are made up on the spot."""

    class Source(base):
        @classmethod
        def download_symbol(cls, symbol, rows=5, columns=("a", "b"), start="2024-01-01", keep=None):
            index = pd.date_range(start, periods=rows, freq="D")
            values = np.arange(rows * max(len(columns), 1)).reshape(rows, -1) + 100.0 * symbol
            made = pd.DataFrame(values, index=index, columns=list(columns))
            made = made if len(columns) > 1 else made.iloc[:, 0]
            return made if keep is None else made[keep]

        def update_symbol(self, symbol, rows=2, **kwargs):
            asked = self.select_symbol_kwargs(symbol, self.download_kwargs)
            asked.update(start=self.data[symbol].index[-1].tz_localize(None), rows=rows, **kwargs)
            return self.download_symbol(symbol, **asked) + 0.5

    return Source


OPERATIONS = {
    "download": lambda c: c.download([0, 1]).data,
    "one": lambda c: c.download(0).data,
    "update": lambda c: c.download([0, 1]).update().data,
    "update more": lambda c: c.download([0, 1]).update(rows=4).data,
    "get": lambda c: c.download([0, 1]).get(),
    "get one": lambda c: c.download(0).get(),
    "get a": lambda c: c.download([0, 1]).get("a"),
    "get one a": lambda c: c.download(0).get("a"),
    "get list": lambda c: c.download([0, 1]).get(["b", "a"]),
    "get one list": lambda c: c.download(0).get(["b", "a"]),
    "get series": lambda c: c.download([0, 1], columns=["a"]).get(),
    "get one series": lambda c: c.download(0, columns=["a"]).get(),
    "concat": lambda c: c.download([0, 1]).concat(),
    "concat one": lambda c: c.download(0).concat(level_name="x"),
    "concat series": lambda c: c.download([0, 1], columns=["a"]).concat(),
    "convert": lambda c: c.download([0, 1], tz_convert="Europe/Berlin").data,
    "localize": lambda c: c.download([0, 1], tz_localize="Asia/Tokyo").data,
    "nan": lambda c: c.download([0, 1], keep=keep(), missing_index="nan").data,
    "drop": lambda c: c.download([0, 1], keep=keep(), missing_index="drop").data,
    "columns": lambda c: c.download([0, 1], columns=some_columns(), missing_columns="nan").data,
    "index": lambda c: c.download([0, 1]).iloc[1:3]["a"].data,
    "align": lambda c: c.align_index({0: pd.Series([1.0, 2.0]), 1: pd.Series([1.0])}),
    "select": lambda c: c.select_symbol_kwargs(1, {"keep": keep(), "x": 2}),
    "stats": lambda c: c.download([0, 1]).stats(column="a"),
    "stats all": lambda c: c.download([0, 1]).stats(agg_func=None),
    "stats grouped": lambda c: c.download([0, 1]).stats(group_by=True),
    "arrays": lambda c: c.from_data(
        {0: np.ones((3, 2)), 1: np.zeros((3, 2))}, download_kwargs={}
    ).get(),
    "properties": lambda c: [
        getattr(c.download([0, 1], rows=3), name)
        for name in (
            "symbols",
            "tz_localize",
            "tz_convert",
            "missing_index",
            "missing_columns",
            "download_kwargs",
        )
    ],
}


def keep():
    return vectorbt.data.base.symbol_dict({0: [False] + [True] * 4, 1: [True] * 4 + [False]})


def some_columns():
    return vectorbt.data.base.symbol_dict({0: ("a", "b"), 1: ("b", "c")})


def equal(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, pd.DataFrame):
        pd.testing.assert_frame_equal(left, right)
    elif isinstance(left, pd.Series):
        pd.testing.assert_series_equal(left, right)
    else:
        assert left == right
    return type(left) is type(right)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.filterwarnings("ignore:Symbols have mismatching")  # VectorBT says so, and aligns
def test_a_users_class_works_on_this_base_as_on_vectorbts(operation):
    """Every public method of VectorBT's Data gives the same here."""
    expected = OPERATIONS[operation](source(vectorbt.Data))
    assert equal(OPERATIONS[operation](source(Data)), expected)


def test_the_same_aliases_pull_a_users_class():
    """`pull` of a class with its own `download_symbol` downloads by it."""
    mine = source(Data)
    assert equal(mine.pull([0, 1]).data, mine.download([0, 1]).data)
    assert mine.fetch([0, 1]).merge(mine.pull(2)).symbols == [0, 1, 2]
    assert isinstance(mine.pull([0]).get("a"), pd.DataFrame)
    later = mine.pull(0).update(end=None)
    assert len(later.index) == 6


def test_vectorbts_updater_updates_our_objects(pipeline):
    """The scheduled updater of VectorBT needs nothing but `update`."""
    updater = vbt.DataUpdater(made(fetch_kwargs={"exchange_id": "sandbox"}, BTC=table(5)))
    updater.update()
    assert tables_of(updater.data) == {BTC: table(10)}


def test_from_data_needs_no_download_kwargs_and_leaves_frames_alone():
    """VectorBT's demands `download_kwargs` and sets `freq` on the caller's indexes."""
    frame = frame_of(table(3))
    data = Data.from_data({BTC: frame})
    assert frame.index.freq is None
    assert data.index.freq == pd.offsets.Hour()
    assert data.get().equals(frame)


def test_plot_draws_the_closes_unless_told_otherwise():
    """Without a column VectorBT could not plot candles at all."""
    data = made(BTC=table(3), ETH=table(3, seed=1))
    assert [trace.name for trace in data.plot().data] == [BTC, ETH]
    assert list(data.plot(column="open").data[1].y) == list(data.open[ETH])
    assert data.plot(base=1).data[0].y[0] == 1
    assert list(made(single=True, BTC=table(3)).plot().data[0].y) == list(table(3).values[:, 3])


# ---------------------------------------------------------------------- the namespace


def test_the_namespace_is_vectorbt_with_our_classes():
    """Everything of VectorBT is there; Data and CCXTData are ours."""
    assert vbt.Data is vbt.CCXTData is Data
    assert issubclass(vbt.PF, vbt.Portfolio)
    assert issubclass(vbt.Portfolio, vectorbt.Portfolio)
    assert vbt.settings is vectorbt.settings
    assert {"Data", "PF", "talib", "IndicatorFactory"} <= set(dir(vbt))
    with pytest.raises(AttributeError):
        vbt.nothing  # noqa: B018  # looking it up is the test


def test_the_specs_indicator_line_works():
    """`vbt.talib('RSI').run(close[...])` gives an object with `.real`."""
    pytest.importorskip("talib")
    close = made(BTC=table(40), ETH=table(40, seed=1)).get("close")
    rsi = vbt.talib("RSI").run(close[BTC])
    assert 0 < rsi.real.iloc[-1] < 100


@pytest.mark.parametrize("count", [1, 2])
def test_the_specs_portfolio_lines_work(count):
    """A Data object with scalar signals; `value` without and with brackets."""
    data = made(
        **{"BTC": table(40), "ETH": table(30, 10, seed=1)} if count == 2 else {"BTC": table(40)}
    )
    portfolio = vbt.PF.from_signals(data, entries=True, exits=False)
    expected = sum(
        100 * closes.iloc[-1] / closes.dropna().iloc[0] for _, closes in data.close.items()
    )
    assert portfolio.value.iloc[-1].sum() == pytest.approx(expected)
    assert portfolio.value().iloc[-1].sum() == pytest.approx(expected)
    assert portfolio.value.equals(
        vectorbt.Portfolio.from_signals(data.close, True, False, freq="1h").value()
    )


def test_value_of_one_bare_symbol_is_a_series():
    """And its last entry can still be summed, as the spec does."""
    portfolio = vbt.PF.from_holding(made(single=True, BTC=table(40)))
    assert isinstance(portfolio.value, pd.Series)
    assert type(pickle.loads(pickle.dumps(portfolio.value))) is pd.Series
    assert portfolio.value.iloc[-1].sum() == pytest.approx(portfolio.final_value())


def test_value_is_pandas_and_a_method_at_once():
    """What is done with it is ordinary pandas; what VectorBT does with it still works."""
    portfolio = vbt.PF.from_signals(
        made(BTC=table(40), ETH=table(40, seed=1)), True, False, group_by=True, cash_sharing=True
    )
    value = portfolio.value
    assert type(value / 100) is pd.Series
    assert type(pickle.loads(pickle.dumps(value))) is pd.Series
    assert portfolio.value(group_by=False).shape == (40, 2)
    assert len(pd.concat([value, value], axis=1).columns) == 2
    assert portfolio.stats()["End Value"] == pytest.approx(value.iloc[-1])
    assert portfolio.get_drawdowns().count() >= 0
    assert portfolio.resolve_attr("value", cond_kwargs={"group_by": False}).shape == (40, 2)
    assert portfolio.plot_value().data


@pytest.mark.parametrize(
    "make",
    [
        lambda d: vbt.PF.from_holding(d),
        lambda d: vbt.Portfolio.from_holding(d),
        lambda d: vbt.PF.from_signals(close=d, entries=True, exits=False),
        lambda d: vbt.PF.from_orders(d, 1.0),
        lambda d: vbt.PF.from_random_signals(d, n=2, seed=1),
    ],
    ids=["holding", "plain holding", "signals", "orders", "random"],
)
def test_every_simulation_takes_a_data_object(make):
    """Ours and open source's, with the step of the index taken from it."""
    data = made(BTC=table(40), ETH=table(40, seed=1))
    portfolio = make(data)
    assert portfolio.wrapper.freq == pd.Timedelta(hours=1)
    assert [np.ravel(name)[-1] for name in portfolio.wrapper.columns] == [BTC, ETH]
    foreign = vectorbt.Data.from_data(dict(data.data), download_kwargs={})
    assert make(foreign).final_value().equals(portfolio.final_value())


def test_a_portfolio_comes_back_from_its_own_bytes():
    """Ours is VectorBT's, saved and loaded as ever."""
    portfolio = vbt.Portfolio.from_signals(made(BTC=table(40)), True, False)
    back = vbt.Portfolio.loads(portfolio.dumps())
    assert type(back) is vbt.Portfolio
    assert back.total_return().equals(portfolio.total_return())
    assert portfolio.value().iloc[-1].sum() == portfolio.final_value().sum()


def test_a_step_given_by_the_caller_wins():
    """And closes as arrays are VectorBT's own business."""
    data = made(BTC=table(10))
    assert vbt.PF.from_holding(data, freq="2h").wrapper.freq == pd.Timedelta(hours=2)
    assert vbt.PF.from_holding(data.close).wrapper.freq == pd.Timedelta(hours=1)
    assert vbt.PF.from_holding(data["Close"]).value.shape == (10, 1)


# ---------------------------------------------------------------------- which VectorBT


class FakePro:
    """What is known of VectorBT PRO: `Data.from_data`, and a wrapper to note things on."""

    class Data:
        def __init__(self, data):
            self.data = data
            self.wrapper = SimpleNamespace()

        @classmethod
        def from_data(cls, data):
            return cls(data)


def test_with_vectorbt_pro_its_own_objects_are_made(monkeypatch):
    """The namespace is PRO itself, and candles come as its Data, notes included."""
    monkeypatch.setattr(engine, "_pro", lambda: FakePro)
    assert engine.namespace() is FakePro
    data = made(BTC=table(3), ETH=table(3, 1))
    assert type(data) is FakePro.Data
    assert data.wrapper._metadata == {"volume_data": {BTC: 5e8}}
    assert tables_of(data) == {BTC: table(3), ETH: table(3, 1)}
    monkeypatch.undo()
    content = made(BTC=table(3)).dumps()
    monkeypatch.setattr(engine, "_pro", lambda: FakePro)
    assert tables_of(rebuild(plain.parse(content))) == {BTC: table(3)}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import backtester", ("vectorbt", "numba", "pandas", "ccxt")),
        ("from backtester.data import vbt_adapter", ("vectorbt", "numba", "pandas")),
        ("from backtester.data.vbt_adapter import tables_of, build", ("vectorbt", "numba")),
    ],
)
def test_vectorbt_is_imported_only_when_it_is_wanted(statement, absent):
    """It takes seconds; `from backtester import vbt` and a built object are what it waits for."""
    code = f"import sys; {statement}; print([m for m in {absent!r} if m in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_names_that_are_not_there_are_attribute_errors():
    """Lazy modules fail like others."""
    import backtester
    from backtester.data import vbt_adapter

    with pytest.raises(AttributeError, match="nothing"):
        backtester.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="nothing"):
        vbt_adapter.nothing  # noqa: B018


def test_two_markets_are_not_merged_under_one_name():
    """Spot and swap candles that were asked for by one name are refused, not interleaved."""
    spot = made(fetch_kwargs={"exchange_id": "a", "market_type": "spot"}, BTC=table(3))
    swap = made(fetch_kwargs={"exchange_id": "a", "market_type": "swap"}, BTC=table(3, 2))
    with pytest.raises(OptionError, match=r"a spot in one and of a swap in another"):
        Data.merge(spot, swap)
    assert spot.merge(spot).symbols == [BTC]
