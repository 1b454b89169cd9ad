"""Loops over arrays as machine code: numba compiles a function when it is first called with some types.

Compiling takes seconds, so that what was compiled is kept on disk, by default beside our sources; ``NUMBA_CACHE_DIR``
names another folder. numba does not notice that a constant or a function of another module has changed: each state of
our sources has a folder of its own.

Compiled functions are for arithmetic. What they are given has been checked: they look at no bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
from numba.core import config

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_HERE = Path(__file__).parent
_SOURCES = ("compiled.py", "settings.py", "learning/*.py", "ranking/*.py")


def _digest() -> str:
    """Stands for everything that compiled functions are made of."""
    digest = blake2b(digest_size=8)
    for pattern in _SOURCES:
        for path in sorted(_HERE.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()


_numba: Any = config
_numba.CACHE_DIR = str(Path(_numba.CACHE_DIR or _HERE / "__pycache__" / "compiled") / _digest())


def compiled(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Compile a function of numbers and arrays. Division by zero gives infinity, as numpy's does.

    It keeps the interpreter's lock: a call takes microseconds, and who lets go of the lock waits for it much longer
    where other threads are busy.
    """
    return cast(Callable[_Parameters, _Result], numba.njit(cache=True, error_model="numpy")(function))


def inlined(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """The same, written out where compiled functions call it: for what a loop does at each step.

    Where a call stays a call, or may become one, numba counts references to every array that it passes: the loop takes
    twice as long, also where the step is not gone through.
    """
    return cast(Callable[_Parameters, _Result], numba.njit(cache=True, error_model="numpy", inline="always")(function))
