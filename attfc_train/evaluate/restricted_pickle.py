"""Reads a pickle of bytes, numbers and arrays of them without ever running what the file asks for.

Verification sets are distributed as pickles, and a pickle is a program. Here it may only push plain values and name the few
globals that NumPy and Python 2 need. Each of these becomes an inert stand-in that checks and stores its arguments, so not even
a NumPy array is built on the file's word. Opcodes are checked before anything runs, and nothing is copied, so a small file
cannot fill the memory. Nor can one take long: opcodes beside the data are limited.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any, Final, Literal

_ALLOWED_OPCODES: Final = {
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
}
"""Everything that lists of bytes, numbers and arrays need in protocols 0 to 5: no dicts, classes, persistent ids."""

_MAX_OPCODES: Final = 2**23
"""An array takes 35 in the oldest protocol, so these are enough for 200,000 of them."""
_FREE_OPCODES: Final = 2**18
_BYTES_PER_OPCODE: Final = 32
"""Beyond the first `_FREE_OPCODES`, a file has one opcode for so many bytes: an encoded image brings about a hundred."""
_MAX_NAMES: Final = 1000
_MAX_DIMENSIONS: Final = 4
_KINDS: Final = {"b1", "O", "O4", "O8", *(f"{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8))}

Raw = bytes | bytearray


class PlainArray:
    """A stand-in for a NumPy array: its kind (``u1``, ``b1``, ``<i8``, ... or ``O``), and its raw memory or list of objects."""

    __slots__ = ("data", "kind")

    def __init__(self) -> None:
        self.kind: str = ""
        self.data: Raw | list[object] = b""

    def fill(self, kind: object, shape: object, data: object) -> PlainArray:
        """Store the content after checking that shape and bytes agree, and return this array."""
        if not isinstance(kind, _Dtype) or not isinstance(data, Raw | list) or not isinstance(shape, tuple):
            raise UnpicklingError("it holds an array without dtype, shape or data")
        if isinstance(data, list) != (kind.name == "O"):
            raise UnpicklingError("it holds an array of objects without a list of them")
        # Each side, not only the product: (-1, -5) would pass for 5 bytes. To isinstance a bool is an int, to type it is not.
        if len(shape) > _MAX_DIMENSIONS or not all(type(side) is int and 0 <= side <= len(data) for side in shape):
            raise UnpicklingError("it holds an array of an odd shape")
        if math.prod(shape) * kind.size != len(data):
            raise UnpicklingError(f"it holds an array of shape {shape} with {len(data)} bytes")
        self.kind = kind.name
        self.data = data
        return self

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise UnpicklingError("it holds an array in an odd state")
        # As ndarray.__reduce__ gives it: (version, shape, dtype, is_fortran, data). An encoded image has one side that is not
        # 1, so the order of the memory makes no difference.
        _, shape, kind, _, data = state
        self.fill(kind, shape, data)


class _Dtype:
    """A stand-in for ``numpy.dtype``: integers of 1 to 8 bytes, bool, or object."""

    __slots__ = ("_order", "_plain")

    def __init__(self, name: object, *_: object) -> None:
        text = _text(name).lstrip("|<>=")
        if text not in _KINDS:
            raise UnpicklingError(f"it holds an array of something else than bytes, integers and booleans: {text[:20]!a}")
        self._plain = text
        self._order = ">" if _text(name).startswith(">") else "<"

    @property
    def name(self) -> str:
        """``u1``, ``b1``, ``i1``, ``O``, or with the order of the bytes: ``<i8``."""
        plain = "O" if self._plain.startswith("O") else self._plain
        return plain if self.size == 1 else self._order + plain

    @property
    def size(self) -> int:
        """Bytes of a number; 1 for an object, of which a list is kept."""
        return 1 if self._plain.startswith("O") else int(self._plain[1:])

    def __setstate__(self, state: object) -> None:
        """Take the order of the bytes; the rest is about structures, which are not read."""
        # As dtype.__reduce__ gives it: (version, order, ...)
        if not isinstance(state, tuple) or len(state) < 2:
            raise UnpicklingError("it holds an array of an odd type")
        if _text(state[1]) == ">":
            self._order = ">"


def _text(name: object) -> str:
    """Return text as Python 2 or 3 wrote it."""
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    if not isinstance(text, str):
        raise UnpicklingError("it holds an array of something else than bytes, integers and booleans")
    return text


class _Global:
    """A stand-in for a name in the file: it can be called, and nothing else can be done with it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __call__(self, *arguments: object) -> object:
        return self._call(*arguments)

    def __setstate__(self, _: object) -> None:
        raise UnpicklingError("it changes a function")


class _Unpickler(pickle.Unpickler):
    """An unpickler that resolves globals to stand-ins only."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._encodable = len(content)

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return a stand-in; every name that is not on the list is an error."""
        # Protocol 4 resolves a dotted global name attribute by attribute; here it is one name, so nothing is looked up.
        name = f"{module_name}.{global_name}".replace("numpy._core.", "numpy.core.")  # numpy 2 and 1
        if name == "_codecs.encode":
            return _Global(self._encoded)
        if name not in _STAND_INS:
            raise UnpicklingError(f"it names {name[:80]!a}")
        return _Global(_STAND_INS[name])

    def _encoded(self, text: object, codec: object = "") -> bytes:
        """Return bytes as protocol 2 writes those of Python 3; all results together are no longer than the file."""
        if not isinstance(text, str) or codec not in ("latin1", b"latin1"):
            raise UnpicklingError("it encodes text in an unknown way")
        self._encodable -= len(text)
        if self._encodable < 0:
            raise UnpicklingError("it repeats text without end")
        return text.encode("latin-1")


def load_plain(content: bytes) -> object:
    """Return what the pickle holds: nested lists and tuples of bytes, bytearray, str, int, bool, None and `PlainArray`.

    Raises:
        pickle.UnpicklingError: it is damaged or not a pickle, or asks for anything else; the message is one line.
    """
    try:
        _check_opcodes(content)
        return _Unpickler(content).load()
    except UnpicklingError:
        raise
    except Exception as error:  # damaged pickles raise nearly everything
        raise UnpicklingError(f"it is damaged or no pickle ({type(error).__name__})") from error


def _check_opcodes(content: bytes) -> None:
    """Refuse opcodes off the list, too many, and memo places so high that the table for them would fill the memory."""
    # The unpickler's memo is an array as long as its highest place. A pickler numbers the places 0, 1, 2, ..., one per PUT, so
    # a place above the number of opcodes before it is no pickler's.
    most = min(_MAX_OPCODES, _FREE_OPCODES + len(content) // _BYTES_PER_OPCODE)
    num_names = 0
    end = 0
    for count, (opcode, argument, place) in enumerate(pickletools.genops(content)):
        end = 1 + (place or 0)
        if opcode.name not in _ALLOWED_OPCODES:
            raise UnpicklingError(f"it uses the opcode {opcode.name}")
        if "PUT" in opcode.name and isinstance(argument, int) and argument > count:
            raise UnpicklingError("it has an odd memo")
        num_names += opcode.name.endswith("GLOBAL")
        if num_names > _MAX_NAMES:
            raise UnpicklingError(f"it names more than {_MAX_NAMES} things, where a pickler names each once")
        if count > most:
            raise UnpicklingError(f"it has more than {most:,} opcodes in {len(content):,} bytes")
    if end < len(content):  # such as a second pickle, whose pairs nobody would see
        raise UnpicklingError(f"{len(content) - end:,} bytes follow its end")


def _new_array(*_: object) -> PlainArray:
    """Return an empty array that BUILD fills; stands for ``numpy._reconstruct(ndarray, (0,), b'b')``."""
    return PlainArray()


def _from_buffer(data: object, kind: object, shape: object, *_: object) -> PlainArray:
    """Return a filled array; stands for ``numpy._frombuffer``, with which protocol 5 writes arrays."""
    return PlainArray().fill(kind, shape, data)


def _scalar(kind: object, data: object) -> int:
    """Return an integer; stands for a ``numpy.bool_``, ``numpy.int64`` and the like."""
    if not isinstance(kind, _Dtype) or kind.name == "O" or not isinstance(data, bytes) or len(data) != kind.size:
        raise UnpicklingError("it holds an odd scalar")
    order: Literal["big", "little"] = "big" if kind.name.startswith(">") else "little"
    return int.from_bytes(data, order, signed="i" in kind.name)


def _same_bytes(data: object = b"") -> Raw:
    """Return the argument itself; stands for ``bytes`` and ``bytearray``, which make as many bytes as a number says."""
    if not isinstance(data, Raw):
        raise UnpicklingError("it makes bytes of something else")
    return data


def _forbidden(*_: object) -> object:
    """Refuse a call."""
    raise UnpicklingError("it builds an array directly")


_STAND_INS: Final[dict[str, Callable[..., object]]] = {
    "numpy.ndarray": _forbidden,  # named as an argument, never called
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _new_array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "builtins.bytes": _same_bytes,
    "builtins.bytearray": _same_bytes,
    "__builtin__.bytes": _same_bytes,  # Python 2 and protocols below 3
    "__builtin__.bytearray": _same_bytes,
}
