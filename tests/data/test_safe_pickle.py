import collections
import datetime
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.data.safe_pickle import Inert, load_pickle, loads
from isthmus.errors import DataError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.asfortranarray(np.arange(12, dtype=np.int16).reshape(3, 4)),
    np.array([1.5, -2], dtype=">f8"),
    np.array([True, False]),
    np.zeros((0, 3), np.uint8),
    np.array(7, dtype=np.int64),
    np.array(["bed", "sofa"]),
    np.array([b"ab", b"c"]),
    np.arange(24, dtype=np.float64).reshape(2, 3, 4).transpose(2, 0, 1),
]


class Box:
    def __init__(self, centre: np.ndarray) -> None:
        self.centre = centre


@pytest.mark.parametrize("number", PROTOCOLS)
def test_arrays_come_back_as_they_were(number: int) -> None:
    back = loads(pickle.dumps(ARRAYS, number), "x")
    for array, found in zip(ARRAYS, back, strict=True):
        assert found.dtype == array.dtype.newbyteorder("=") and found.shape == array.shape and found.flags.writeable
        np.testing.assert_array_equal(found, array)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(values, st.sampled_from(PROTOCOLS))
def test_plain_values_come_back_as_they_were(value: Any, number: int) -> None:
    if number < 3 and "bytes" in repr(type(value)):
        return
    back = loads(pickle.dumps(value, number), "x")
    assert back == value and type(back) is type(value)


@pytest.mark.parametrize("number", PROTOCOLS)
def test_numpys_scalars_become_pythons(number: int) -> None:
    back = loads(pickle.dumps([np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("bus")], number), "x")
    assert back == [1.5, -3, True, "bus"]
    assert [type(value) for value in back] == [float, int, bool, str]


def test_pickles_of_numpy_1_are_read() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for number in PROTOCOLS:
        renamed = pickle.dumps(array, number).replace(b"numpy._core.", b"numpy.core.")
        if number >= 4:
            # Names are counted from protocol 4 on.
            renamed = pickle.dumps(array, number)
        np.testing.assert_array_equal(loads(renamed, "x"), array)


def test_shared_and_circular_values_stay_so() -> None:
    array = np.arange(3.0)
    inner = {"a": array}
    circle: list[Any] = [inner, inner, array]
    circle.append(circle)
    back = loads(pickle.dumps(circle), "x")
    assert back[0] is back[1] and back[3] is back and back[0]["a"] is back[2]


class Evil:
    """Leaves a file behind when it is unpickled in the ordinary way."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("number", PROTOCOLS)
@pytest.mark.parametrize("where", ["alone", "in a list", "as a key's value"])
def test_nothing_is_run_and_the_name_is_in_the_error(where: str, number: int, tmp_path: Path) -> None:
    mark = tmp_path / "run"
    evil = Evil(os.mkdir, str(mark))
    value: Any = {"alone": evil, "in a list": [1, evil], "as a key's value": {"a": evil}}[where]
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(value, number))
    with pytest.raises(DataError, match=r"evil\.pkl: expected arrays and plain values only, found \w+\.mkdir"):
        load_pickle(tmp_path / "evil.pkl")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Evil(eval, "1"), r"\.eval"),
        (Evil(getattr, "a", "upper"), r"\.getattr"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (datetime.date(2020, 1, 1), "datetime.date"),
        (Path("a"), "pathlib"),
        ({1, 2}, "set"),
        (complex(1, 2), "complex"),
        (np.array([{}], dtype=object), "the type 'O8'"),
        (np.zeros(2, dtype=[("a", "f4")]), "the type 'V4'"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "the type 'M8'"),
        (np.array([1j]), "the type 'c16'"),
        (Evil(np.load, "x.npy"), r"numpy.*load"),
        (np.random.default_rng(0), "numpy.random"),
        (np.ma.masked_array([1.0]), r"numpy\.ma"),
    ],
)
def test_everything_else_is_refused_by_name(value: Any, name: str) -> None:
    with pytest.raises(DataError, match=name):
        loads(pickle.dumps(value), "x")


def test_functions_of_numpy_that_arrays_name_do_not_run_with_other_arguments() -> None:
    # A string of bytes that would be an array of objects, were NumPy asked.
    reconstruct = np.empty(0).__reduce__()[0]
    for call in (
        Evil(reconstruct, np.ndarray, (10**12,), b"O"),
        Evil(np.dtype, "O"),
        Evil(np.dtype, 3),
        Evil(np.float32(1).__reduce__()[0], "f4", b"1234"),
        Evil(np.float64(1).__reduce__()[0], np.dtype("f8"), b"123"),
        Evil(bytes([1]).__class__, 10),
    ):
        with pytest.raises(DataError, match="x: expected"):
            loads(pickle.dumps(call), "x")


def state(shape: Any, dtype: Any, content: Any) -> Any:
    class Made:
        def __reduce__(self) -> Any:
            return np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, shape, dtype, False, content)

    return Made()


@pytest.mark.parametrize(
    ("shape", "content"), [((3,), bytes(8)), ((-1,), bytes(8)), ((2**40, 2**40), b""), (("a",), bytes(8)), ((2,), [1])]
)
def test_an_array_whose_bytes_do_not_fit_is_an_error(shape: Any, content: Any) -> None:
    assert loads(pickle.dumps(state((2,), np.dtype("f4"), bytes(8))), "x").tolist() == [0, 0]
    with pytest.raises(DataError, match="x: expected"):
        loads(pickle.dumps(state(shape, np.dtype("f4"), content)), "x")


def test_state_cannot_be_set_on_stand_ins() -> None:
    # BUILD on the function itself, with attributes that ordinary unpickling would set.
    program = b"cnumpy\ndtype\n(N}S'__class__'\nI1\nstb."
    with pytest.raises(DataError, match="no state for a stand-in"):
        loads(program, "x")


def test_named_classes_are_inert(tmp_path: Path) -> None:
    name = f"{Box.__module__}.Box"
    value = {"boxes": [Box(np.arange(3.0)), Box(np.zeros(2))], "token": "a"}
    for number in PROTOCOLS[2:]:
        path = tmp_path / "boxes.pkl"
        path.write_bytes(pickle.dumps(value, number))
        with pytest.raises(DataError, match=rf"boxes\.pkl: .*{name}"):
            load_pickle(path)
        back = load_pickle(path, inert=(name,))
        box = back["boxes"][0]
        assert isinstance(box, Inert) and not isinstance(box, Box) and box.name == name and back["token"] == "a"
        np.testing.assert_array_equal(box.state["centre"], np.arange(3.0))
        assert type(box) is type(back["boxes"][1]) and repr(box) == f"Inert({name!r})"


@pytest.mark.parametrize("content", [b"", b"\x80", b"hello", pickle.dumps([1, 2])[:-2], b"\x80\x04\x95", b"I99\n"])
def test_broken_files_are_errors(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.pkl: expected a whole pickle"):
        load_pickle(tmp_path / "a.pkl")


@given(st.data())
def test_no_mutation_of_a_pickle_does_anything_but_load_or_fail(data: st.DataObject) -> None:
    content = bytearray(
        pickle.dumps({"a": np.arange(5), "b": [1, "x", (2.5, None)]}, data.draw(st.sampled_from(PROTOCOLS)))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        loads(bytes(content), "x")
    except DataError as error:
        assert str(error).startswith("x: ")


def test_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: expected a pickle, found no file"):
        load_pickle(tmp_path / "none")


def test_pickles_of_python_2_are_read() -> None:
    # np.array([1, 2], '<i2') as Python 2 wrote it: bytes are short strings.
    program = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02i2K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x04\x01\x00\x02\x00tb."
    )
    found = loads(program, "x")
    assert found.dtype == np.int16 and found.tolist() == [1, 2]
    assert io.BytesIO(program).read() == program
