"""Pickles of arrays and plain values, read without running anything that is in them.

A pickle is a program: reading one calls whatever it names. Other people's preprocessing is published as pickles
nevertheless. Here a name in a pickle never leads to the thing of that name: the few names that NumPy writes around an
array lead to stand-ins of this module, which take down what they are given and check it, and an array is made of the
bytes at the end. Every other name is refused.

What can be read: ``None``, booleans, whole and floating-point numbers, text, bytes, tuples, lists, dicts, arrays of
booleans, numbers or text, and NumPy's scalars (which become Python's). NumPy 1 and 2 and all pickle protocols.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.errors import DataError

_PLAIN = (type(None), bool, int, float, str, bytes)


class Inert:
    """What is left of an object whose class was named as harmless: no behaviour, only what was stored.

    ``name`` is the class's name with its module, ``state`` what the object held (mostly a dict of its attributes).
    """

    name: str = ""
    state: Any = None

    def __new__(cls, *arguments: Any) -> Inert:
        """Arguments of the class are passed over."""
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        object.__setattr__(self, "state", state)

    def __repr__(self) -> str:
        return f"Inert({self.name!r})"


def load_pickle(path: Path, inert: Collection[str] = ()) -> Any:
    """What a pickle holds.

    Args:
        path: the file.
        inert: classes, as ``"module.Name"``, whose objects are read as :class:`Inert` instead of being refused.

    Raises:
        DataError: the file cannot be read, names a class or function that is not allowed, or has other values than the
            module says.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: expected a pickle, found no file")
    with path.open("rb") as file:
        return _load(file, path, inert)


def loads(content: bytes, where: str | Path, inert: Collection[str] = ()) -> Any:
    """As :func:`load_pickle`, of bytes; ``where`` names them in errors."""
    return _load(io.BytesIO(content), where, inert)


def _load(file: Any, where: str | Path, inert: Collection[str]) -> Any:
    try:
        return _finished(_Unpickler(file, inert).load(), {})
    except _Refused as error:
        raise DataError(f"{where}: {error}") from error
    except Exception as error:
        # A broken pickle fails in any way at all: EOFError, IndexError, KeyError, AttributeError, MemoryError.
        raise DataError(
            f"{where}: expected a whole pickle, found one that cannot be read ({type(error).__name__}: {error})"
        ) from error


class _Refused(Exception):
    """What is wrong with a pickle, without its name."""


class _Call:
    """A stand-in for a function: to be called, and nothing else can be done to it."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused(f"expected nothing to be set on a stand-in, found {name}")

    def __setstate__(self, state: Any) -> None:
        raise _Refused("expected no state for a stand-in, found one")


class _Type:
    """A dtype as it is taken down: code and, by ``__setstate__``, the order of bytes."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "biufUS" or self.dtype.hasobject:
            raise _Refused(f"expected arrays of booleans, numbers or text, found the type {code!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise _Refused(f"expected a plain type of array, found {state!r}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array before its content is known, which comes as state."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, columns_first, content = state
        # Pickles of Python 2 hold bytes as text.
        content = content.encode("latin1") if isinstance(content, str) else content
        self.array = _array(content, kind, shape, "F" if columns_first else "C")


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, inert: Collection[str]) -> None:
        super().__init__(file, encoding="latin1")
        self._inert = inert

    def find_class(self, module: str, name: str) -> Any:
        """Stand-ins for what NumPy writes, and a new class without behaviour for what is inert."""
        # NumPy 2 has moved what NumPy 1 wrote.
        place = (module.replace("numpy._core.", "numpy.core."), name)
        if place in _STAND_INS:
            return _Call(_STAND_INS[place])
        full = f"{module}.{name}"
        if full in self._inert:
            # A class of its own for each load: whatever a pickle does to it is gone with it.
            return type(name, (Inert,), {"name": full})
        raise _Refused(f"expected arrays and plain values only, found {full}, which is not loaded")


def _dtype(code: Any, *_: Any) -> _Type:
    if not isinstance(code, str):
        raise _Refused(f"expected the code of a plain type of array, found {type(code).__name__}")
    return _Type(code)


def _scalar(kind: Any, content: Any) -> Any:
    content = content.encode("latin1") if isinstance(content, str) else content
    return _array(content, kind, (), "C").item()


def _array(content: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    if order not in ("C", "F"):
        raise _Refused(f"expected an array in C or Fortran order, found {order!r}")
    if not isinstance(kind, _Type) or not isinstance(content, bytes | bytearray):
        raise _Refused(f"expected an array's bytes and type, found {type(content).__name__} and {type(kind).__name__}")
    sides = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(not isinstance(side, int) or side < 0 for side in sides):
        raise _Refused(f"expected the shape of an array, found {sides}")
    if math.prod(sides) * kind.dtype.itemsize != len(content):
        raise _Refused(
            f"expected {math.prod(sides) * kind.dtype.itemsize} bytes for {kind.dtype} {sides}, found {len(content)}"
        )
    flat = np.frombuffer(content, kind.dtype) if len(content) else np.zeros(math.prod(sides), kind.dtype)
    # A copy, so that arrays can be written to as those of an ordinary pickle.
    return np.array(flat.reshape(sides, order=order), kind.dtype.newbyteorder("="), order="K")


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    if order == "K" and axes is not None:
        return _array(content, kind, shape, "C").transpose(axes)
    return _array(content, kind, shape, order)


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused(f"expected bytes written as Latin-1 text, found the encoding {encoding!r}")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): lambda *_: None,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    # No bytes at all, in protocols up to 2; with an argument this would be a way to ask for any amount of memory.
    ("__builtin__", "bytes"): lambda: b"",
}


def _finished(value: Any, done: dict[int, Any]) -> Any:
    """The value with arrays for their stand-ins; lists and dicts are changed in place, so that shared ones stay so."""
    if type(value) in _PLAIN:
        return value
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, np.ndarray):
        return value
    if type(value) is _Array:
        if value.array is None:
            raise _Refused("expected an array's content, found none")
        return value.array
    if type(value) is list:
        done[id(value)] = value
        # Lists of numbers are common and long.
        if any(type(item) not in _PLAIN for item in value):
            value[:] = [_finished(item, done) for item in value]
        return value
    if type(value) is dict:
        done[id(value)] = value
        for key in value:
            if type(key) not in _PLAIN and type(key) is not tuple:
                raise _Refused(f"expected keys of plain values, found {type(key).__name__}")
            value[key] = _finished(value[key], done)
        return value
    if type(value) is tuple:
        return tuple(_finished(item, done) for item in value)
    if isinstance(value, Inert):
        done[id(value)] = value
        value.__setstate__(_finished(value.state, done))
        return value
    raise _Refused(f"expected arrays and plain values only, found {type(value).__name__}")
