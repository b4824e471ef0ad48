"""Pickles of arrays of plain numbers and plain containers, read without running what they name.

A pickle names functions and calls them. Here the handful of names that a pickled NumPy array needs
stand for small stand-ins of our own that only accept what such an array holds; every other name is
refused. Nothing of NumPy's own unpickling sees the file's content.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt

DTYPES = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f4", "f8", "b1"}


class ForbiddenPickle(pickle.UnpicklingError):
    """A pickle that names something besides arrays and plain containers."""


class _Stub:
    """A stand-in that a pickle can neither write attributes to nor otherwise change."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise ForbiddenPickle("sets the state of something that is no array")


class _NdarrayType(_Stub):
    __slots__ = ()


class _Dtype:
    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise ForbiddenPickle("holds an array of something besides plain numbers")
        self.code = order + self.code


class _Array:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: npt.NDArray[Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _Dtype)):
            raise ForbiddenPickle("holds an array in a form that is not known")
        _, shape, dtype, fortran, raw = state
        data = raw.encode("latin-1") if isinstance(raw, str) else raw
        if not isinstance(data, bytes):
            raise ForbiddenPickle("holds an array of something besides plain numbers")
        flat = np.frombuffer(data, dtype=np.dtype(dtype.code))
        self.value = flat.reshape(shape, order="F" if fortran else "C")


class _MakeDtype(_Stub):
    __slots__ = ()

    def __call__(self, code: object, *_: object) -> _Dtype:
        if not isinstance(code, str) or code not in DTYPES:
            raise ForbiddenPickle(f"holds an array of {code!r}, not of plain numbers")
        return _Dtype(code)


class _MakeArray(_Stub):
    __slots__ = ()

    def __call__(self, kind: object, *_: object) -> _Array:
        if not isinstance(kind, _NdarrayType):
            raise ForbiddenPickle("holds an array of an unknown class")
        return _Array()


class _Encode(_Stub):
    """How Python 3 writes bytes into an old-protocol pickle."""

    __slots__ = ()

    def __call__(self, text: object, encoding: object = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise ForbiddenPickle("encodes something besides bytes")
        return text.encode("latin-1")


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _MakeArray,
    ("numpy._core.multiarray", "_reconstruct"): _MakeArray,
    ("numpy", "ndarray"): _NdarrayType,
    ("numpy", "dtype"): _MakeDtype,
    ("_codecs", "encode"): _Encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise ForbiddenPickle(f"names {module}.{name}; only arrays and containers are allowed")
        return _KNOWN[module, name]()


def loads(data: bytes) -> Any:
    """Return what a pickle of arrays and plain containers holds; Python 2's strings become str.

    Raises:
        pickle.UnpicklingError: for a damaged pickle, and `ForbiddenPickle` for one that names
            anything else; nothing of it is run.
    """
    try:
        return _finished(_Unpickler(io.BytesIO(data), encoding="latin-1").load())
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise pickle.UnpicklingError(f"damaged pickle ({type(error).__name__}: {error})") from error


def _finished(value: Any) -> Any:
    """Replace stand-ins by arrays, in nested containers."""
    if isinstance(value, _Array) and value.value is not None:
        return value.value
    if isinstance(value, dict):
        return {_finished(k): _finished(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_finished(v) for v in value)
    if isinstance(value, (str, bytes, int, float, bool, type(None))):
        return value
    raise ForbiddenPickle(f"holds a {type(value).__name__.strip('_')}")
