"""The opcode machine: plain values come out as they went in, calls as descriptions of calls."""

import gc
import os
import pickle
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtester.data.errors import CorruptDatasetError
from backtester.data.storage.pickles import Call, Machine, Name, UnreadableError, reading


class Graph(Machine):
    names = frozenset({"os.getcwd", "os.path.join", "datetime.date"})


class Tree(Graph):
    tree = True


class Short(Graph):
    most_steps = 1000


def body(content: bytes) -> bytes:
    """A pickle of what these opcodes leave."""
    return b"\x80\x04" + content + b"."


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


GETCWD = name("os", "getcwd")


def refused(raw: bytes, reason: str | None = None, machine: type[Machine] = Graph) -> None:
    with pytest.raises(UnreadableError, match=reason):
        machine(raw).run()


# ---------------------------------------------------------------------- values

plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**2000), 2**2000)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.characters(categories=["Cs"])
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.lists(inner, max_size=5).map(tuple)
        | st.sets(st.integers() | st.text(max_size=3), max_size=4)
        | st.dictionaries(
            st.text(max_size=5) | st.integers() | st.tuples(st.text(), st.none()), inner, max_size=4
        )
    ),
    max_leaves=30,
)


@given(plain_values, st.sampled_from([4, 5]), st.sampled_from([Graph, Tree]))
@settings(max_examples=300, deadline=None)
def test_what_python_pickles_is_read(value: Any, protocol: int, machine: type[Machine]) -> None:
    """Plain values come back equal and of the same types, as `pickle.loads` gives them."""
    raw = pickle.dumps(value, protocol)
    assert repr(machine(raw).run()) == repr(pickle.loads(raw))


def test_long_containers_are_read() -> None:
    """Pickle puts items down a thousand at a time; all of them arrive."""
    for value in (list(range(2500)), {str(i): i for i in range(2500)}, set(range(2500))):
        assert Tree(pickle.dumps(value, 4)).run() == value
    assert Tree(pickle.dumps(b"x" * 300, 4)).run() == b"x" * 300
    assert Tree(pickle.dumps("x" * 300, 4)).run() == "x" * 300


def test_bytes_are_slices_of_what_is_read() -> None:
    """Bytes give copies, a memoryview gives views of itself."""
    raw = pickle.dumps([b"ab", b"c" * 300], 4)
    assert Graph(raw).run() == [b"ab", b"c" * 300]
    views = Graph(memoryview(raw)).run()
    assert [type(view) for view in views] == [memoryview] * 2
    assert all(view.obj is raw for view in views)
    assert views == [b"ab", b"c" * 300]


def test_the_same_thing_twice_is_one_thing() -> None:
    """A graph keeps what it shares, even with itself."""
    shared: list[Any] = []
    shared.append(shared)
    read = Graph(pickle.dumps([shared, shared], 4)).run()
    assert read[0] is read[1]
    assert read[0][0] is read[0]


@pytest.mark.parametrize("shared", [[1], {"a": 1}, (1, 2), {1}], ids=repr)
def test_a_tree_shares_no_containers(shared: Any) -> None:
    """In a tree the same container twice is an error; the same value is not."""
    refused(pickle.dumps([shared, shared], 4), "twice", Tree)
    word = "a word"
    assert Tree(pickle.dumps([word, word], 4)).run() == [word, word]
    assert Graph(pickle.dumps([shared, shared], 4)).run() == [shared, shared]


def test_a_tree_shares_no_names() -> None:
    """Nor can a name or a call be used twice in it."""
    refused(body(GETCWD + b"\x94h\x00\x86"), "twice", Tree)
    refused(body(GETCWD + b")R\x94h\x00\x86"), "twice", Tree)


# ---------------------------------------------------------------------- calls


def described(value: Any) -> Any:
    """Give a description in a form that can be compared."""
    if isinstance(value, Call):
        return ("call", value.name, described(value.args), described(value.state))
    if isinstance(value, tuple):
        return tuple(map(described, value))
    return value


def test_a_call_is_written_down() -> None:
    """Function, arguments and state stand in the result, and nothing was called."""
    raw = body(GETCWD + text("x") + b"\x85R" + b"K\x07b")
    assert described(Graph(raw).run()) == ("call", "os.getcwd", ("x",), 7)
    new = body(name("datetime", "date") + b"K\x01K\x02\x86\x81")
    assert described(Graph(new).run()) == ("call", "datetime.date", (1, 2), None)
    assert Graph(body(GETCWD)).run() == Name("os.getcwd")


def test_real_reductions_are_written_down() -> None:
    """What pickle writes for a real object is described the same way."""

    class Reduced:
        def __reduce__(self) -> Any:
            return os.path.join, ("a", "b"), {"c": 1}

    raw = pickle.dumps(Reduced(), 4).replace(b"\x8c\tposixpath", b"\x8c\x07os.path")
    raw = b"\x80\x04" + raw[11:]  # its frame is two bytes shorter now
    assert described(Graph(raw).run()) == ("call", "os.path.join", ("a", "b"), {"c": 1})


def test_no_name_is_looked_up(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known name need not exist; nothing is imported to find out."""
    (tmp_path / "a_trap.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)

    class Trapped(Machine):
        names = frozenset({"a_trap.spring"})

    raw = body(name("a_trap", "spring") + b")R")
    assert described(Trapped(raw).run()) == ("call", "a_trap.spring", (), None)


@pytest.mark.parametrize(
    "content",
    [
        name("os", "system"),
        name("os", "getcwd.__globals__"),
        name("posix", "getcwd"),
        text("os.getcwd") + b"N\x93",
        b"NN\x93",
        b"]]\x93",
    ],
    ids=["another", "an attribute", "elsewhere", "half", "none", "lists"],
)
def test_other_names_are_refused(content: bytes) -> None:
    """Only the names of the class may be mentioned."""
    refused(body(content), "it names")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (text("os.getcwd") + b")R", "is not a name"),
        (b"N)R", "is not a name"),
        (GETCWD + b"]R", "is not a name"),
        (GETCWD + b"NR", "is not a name"),
        (GETCWD + b")R)R", "another call"),
        (GETCWD + b")R)\x81", "another call"),
        (GETCWD + b"}b", "cannot have one"),
        (b"]}b", "cannot have one"),
        (GETCWD + b")R}b}b", "cannot have one"),
    ],
)
def test_odd_calls_are_refused(content: bytes, reason: str) -> None:
    """Only names are called, with a tuple; only calls take a state, and one."""
    refused(body(content), reason)


def test_a_class_may_know_other_callees() -> None:
    """A subclass decides under which name the call of a call is written down."""

    class Curried(Graph):
        def callee(self, what: Name | Call) -> str:
            return "curried" if isinstance(what, Call) else super().callee(what)

    raw = body(GETCWD + b")R" + b"N\x85R")
    assert described(Curried(raw).run()) == ("call", "curried", (None,), None)


# ---------------------------------------------------------------------- damage and malice


class Attack:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_code_runs(tmp_path: Any, protocol: int) -> None:
    """No call of anything else is even written down."""
    canary = tmp_path / "canary"
    for attack in (
        Attack(os.system, f"touch {canary}"),
        Attack(eval, f"open({str(canary)!r}, 'w')"),
        Attack(getattr, "text", "upper"),
    ):
        refused(pickle.dumps([attack], protocol))
    assert not canary.exists()


KNOWN = {op[0] for op in (
    pickle.FRAME, pickle.MARK, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET, pickle.NONE,
    pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT1, pickle.BININT2, pickle.BININT, pickle.LONG1,
    pickle.BINFLOAT, pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.SHORT_BINBYTES,
    pickle.BINBYTES, pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT,
    pickle.SETITEM, pickle.SETITEMS, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.EMPTY_TUPLE,
    pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE, pickle.STACK_GLOBAL, pickle.REDUCE,
    pickle.NEWOBJ, pickle.BUILD, pickle.STOP,
)}  # fmt: skip


@pytest.mark.parametrize("code", sorted(set(range(256)) - KNOWN))
def test_other_opcodes_are_refused(code: int) -> None:
    """What data do not need is not there: other names, other calls, extensions, buffers."""
    for operand in (b"", b"\x00" * 8, b"\xff" * 8, b"os\nsystem\n"):
        refused(body(bytes([code]) + operand), f"opcode 0x{code:02x}")


@pytest.mark.parametrize("code", sorted(KNOWN))
def test_opcodes_that_find_nothing_are_refused_or_harmless(code: int) -> None:
    """No known opcode raises anything else, whatever stands before and behind it."""
    for before in (b"", b"N", b"(", b"NN", b"](", b"}(N", GETCWD, b"\x8f("):
        for operand in (b"", b"\x00" * 8, b"\xff" * 8, b"\x01"):
            try:
                Graph(body(before + bytes([code]) + operand)).run()
            except UnreadableError:
                continue


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "no pickle"),
        (b"\x80", "no pickle"),
        (b"\x80\x02N.", "no pickle"),
        (b"N.", "no pickle"),
        (b"\x80\x04", "cut short"),
        (b"\x80\x04N", "cut short"),
        (body(b""), "pops more"),
        (body(b"u"), "pops more"),
        (body(b"N\x86"), "pops more"),
        (body(b"N(\x85"), "more than one"),
        (body(b"(N\x86"), "pops more"),
        (body(b"N(\x86tN"), "pops more"),
        (body(b"h\x00"), "pops more"),
        (body(b"j\xff\xff\xff\x7f"), "pops more"),
        (body(b"NN"), "more than one"),
        (body(b"N("), "more than one"),
        (body(b"N") + b"N.", "more than one"),
        (body(b"}Na"), "not a list"),
        (body(b"](N"), "more than one"),
        (body(b"]NNs"), "not a dictionary"),
        (body(b"}(Nu"), "not a dictionary"),
        (body(b"](N\x90"), "not a set"),
        (body(b"\x8c\x01\xff"), "UTF-8"),
        (body(b"\x8e" + struct.pack("<Q", 2**62)), "opcode"),
        (body(b"B\xff\xff\xff\xff"), "cut short"),
        (body(b"X\xff\xff\xff\xff"), "cut short"),
        (body(b"\x95" + b"\xff" * 8), "pops more"),
        (body(b"\x8b\xff\xff\xff\x7f"), "opcode"),
    ],
)
def test_damage_is_named(raw: bytes, reason: str) -> None:
    """What is missing, too much or of the wrong kind is said."""
    refused(raw, reason)
    refused(raw, reason, Tree)


def test_a_pickle_cut_anywhere_is_refused() -> None:
    """No part of a pickle is taken for the whole."""
    raw = pickle.dumps({"a": [1, 2.5, "text", (None, True), b"bytes"], "b": {3: 2**70}}, 4)
    for length in range(len(raw)):
        refused(raw[:length])


@given(st.binary(max_size=100))
@settings(max_examples=500, deadline=None)
def test_noise_raises_nothing_else(noise: bytes) -> None:
    """Whatever the bytes, there is a value or an `UnreadableError`."""
    try:
        Graph(b"\x80\x04" + noise).run()
    except UnreadableError:
        return


def test_steps_are_counted() -> None:
    """There are no more opcodes than the class allows."""
    assert Short(body(b"(" + b"N" * 997 + b"t")).run() == (None,) * 997
    refused(body(b"(" + b"N" * 998 + b"t"), "more than 1000 steps", Short)


def depth(value: Any, inner: Callable[[Any], Any]) -> int:
    count = 0
    while value := inner(value):
        count += 1
    return count


def test_depth_does_no_harm() -> None:
    """Tuples, lists and calls nested without end are built, walked and dropped."""
    many = 200_000
    read = Graph(body(b")" + b"\x85" * many)).run()
    assert depth(read, lambda one: one and one[0]) == many - 1
    read = Graph(body(b"]" * many + b"a" * (many - 1))).run()
    assert depth(read, lambda one: one and one[0]) == many - 2
    calls = b"".join(b"\x94h\x00j" + struct.pack("<I", at) + b"\x85R" for at in range(1, many + 1))
    read = Graph(body(b"(" + GETCWD + b"\x94)R" + calls + b"t")).run()[-1]
    assert depth(read, lambda one: one.args and one.args[0]) == many
    del read
    gc.collect()


@pytest.mark.parametrize(
    "key", [b"]", b"}", b"\x8f", b")" + b"\x85" * 500_000, b"]\x85", GETCWD, GETCWD + b")R"],
    ids=["list", "dict", "set", "deep tuple", "list in tuple", "name", "call"],
)  # fmt: skip
def test_keys_hash_at_once(key: bytes) -> None:
    """Keys and members are plain values, or flat tuples of some."""
    refused(body(b"}" + key + b"Ns"), "key")
    refused(body(b"\x8f(" + key + b"\x90"), "key")


def test_views_are_no_keys() -> None:
    """Bytes read as views of the file cannot be keys; copies can."""
    raw = pickle.dumps({b"a": 1}, 4)
    assert Graph(raw).run() == {b"a": 1}
    with pytest.raises(UnreadableError, match="key"):
        Graph(memoryview(raw)).run()


def long(value: int) -> bytes:
    raw = value.to_bytes(20, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


@pytest.mark.parametrize(
    ("start", "each", "end"),
    [(b"}(", b"N", b"u"), (b"}", b"Ns", b""), (b"\x8f(", b"", b"\x90")],
    ids=["items", "single items", "members"],
)
def test_keys_of_one_hash_are_few(start: bytes, each: bytes, end: bytes) -> None:
    """Numbers chosen to share a hash do not make a small file take minutes."""
    keys = [i * (2**61 - 1) for i in range(1, 100_001)]
    assert len({hash(key) for key in keys[:100]}) == 1
    raw = body(start + b"".join(long(key) + each for key in keys) + end)
    before = time.process_time()
    refused(raw, "hash")
    refused(raw, "hash", Tree)
    assert time.process_time() - before < 10


def test_ordinary_keys_are_many() -> None:
    """Large tables of numbers and tuples are no attack."""
    table = {**{i: i for i in range(20_000)}, **{(str(i), i / 7): i for i in range(20_000)}}
    assert Tree(pickle.dumps(table, 4)).run() == table


# ---------------------------------------------------------------------- errors


def test_reading_names_the_file() -> None:
    """What is wrong with a file becomes an error that says which file and why."""

    def broken() -> None:
        with reading("a.file", " as such"):
            raise UnreadableError("broken")

    with pytest.raises(CorruptDatasetError, match=r"^a\.file cannot be read as such: broken$") as e:
        broken()
    assert (e.value.path, e.value.reason) == ("a.file", "broken")
