"""river models as numbers and words: an npz of vectors and a JSON document, never a pickle.

What is loaded cannot run code: only classes of a fixed list are made, and only from plain values. A model comes back
with the state of everything that learns (weights, optimizers, scalers), to the bit, so that learning on gives the
same weights as if it had never been stored.

=========== ===========================================================================================
part        classes of river
=========== ===========================================================================================
compose     Pipeline, TransformerUnion, Select, Discard, Prefixer, Suffixer
preparation StandardScaler, MinMaxScaler, MaxAbsScaler (without a window), Normalizer, OneHotEncoder
models      LinearRegression, LogisticRegression, Perceptron, ALMAClassifier, BayesianLinearRegression
optimizers  all of ``river.optim``, its losses (of one output) and schedulers; initializers Zeros and Constant
=========== ===========================================================================================

Everything else is refused by name when it is stored: functions (``FuncTransformer``), windows, trees, random states.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import json
import math
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.errors import MillraceError

FORMAT = 1
NUMBERS_FILE, WORDS_FILE = "numbers.npz", "river.json"

_LOSSES = (
    "Absolute",
    "BinaryFocalLoss",
    "Cauchy",
    "EpsilonInsensitiveHinge",
    "Hinge",
    "Huber",
    "Log",
    "Poisson",
    "Quantile",
    "Squared",
)
_OPTIMIZERS = (
    "AMSGrad",
    "AdaBound",
    "AdaDelta",
    "AdaGrad",
    "AdaMax",
    "Adam",
    "Averager",
    "FTRLProximal",
    "Momentum",
    "Nadam",
    "NesterovMomentum",
    "Newton",
    "RMSProp",
    "SGD",
)
_LISTED: Mapping[str, tuple[str, ...]] = {
    "river.compose": ("Discard", "Pipeline", "Prefixer", "Select", "Suffixer", "TransformerUnion"),
    "river.linear_model": (
        "ALMAClassifier",
        "BayesianLinearRegression",
        "LinearRegression",
        "LogisticRegression",
        "Perceptron",
    ),
    "river.optim": _OPTIMIZERS,
    "river.optim.initializers": ("Constant", "Zeros"),
    "river.optim.losses": _LOSSES,
    "river.optim.schedulers": ("Constant", "InverseScaling", "Optimal"),
    "river.preprocessing": ("MaxAbsScaler", "MinMaxScaler", "Normalizer", "OneHotEncoder", "StandardScaler"),
    "river.stats": ("AbsMax", "Max", "Min"),
}
# Attribute that holds the parts of what is composed, by name; all else in them follows from these.
_PARTS = {"river.compose.Pipeline": "steps", "river.compose.TransformerUnion": "transformers"}
_FACTORIES: dict[str, Callable[[], Any]] = {"float": float, "int": int, "set": set}
# Objects of these modules learn: two parts that share one would come back with one each, and learn otherwise.
_LEARNING = ("river.linear_model.", "river.optim.", "river.preprocessing.")
# Mappings to numbers alone, the most of a model, become one vector.
_VECTORS: dict[str, type] = {"floats": float, "float64s": np.float64}
# A value that JSON does not have is an object whose only key says what it is.
_FLOAT, _LIST, _TUPLE, _SET, _ARRAY, _CLASS = "float", "list", "tuple", "set", "array", "class"


class NotPortable(MillraceError):
    """A model holds something that cannot be stored without running code when it is loaded."""


class UnreadableModel(MillraceError):
    """A stored model is damaged, incomplete, of another format, or of a river whose classes hold other state."""


def check(model: Any) -> None:
    """Raises NotPortable, with the part and the class that is not listed, if a model cannot be stored."""
    _Writer().value(model, _described(type(model)))


def save(model: Any, folder: Path) -> str:
    """Write a model into a folder (made if missing); returns the SHA-256 of the numbers, in hex.

    Raises
    ------
    NotPortable
        Names the part and the class that is not listed. Nothing is written.
    """
    writer = _Writer()
    words = writer.value(model, _described(type(model)))
    numbers = io.BytesIO()
    np.savez(numbers, allow_pickle=False, **writer.arrays)
    digest = hashlib.sha256(numbers.getvalue()).hexdigest()
    document = {"format": FORMAT, "river_version": version("river"), "numbers_sha256": digest, "model": words}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NUMBERS_FILE).write_bytes(numbers.getvalue())
    (folder / WORDS_FILE).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return digest


def load(folder: Path) -> Any:
    """Read a model from a folder. Raises UnreadableModel, saying what is wrong with it."""
    try:
        document = json.loads((folder / WORDS_FILE).read_text(encoding="utf-8"))
        content = (folder / NUMBERS_FILE).read_bytes()
        if document["format"] != FORMAT:
            raise UnreadableModel(f"model in {folder}: format {document['format']!r}, not {FORMAT}")
        digest = hashlib.sha256(content).hexdigest()
        if digest != document["numbers_sha256"]:
            raise UnreadableModel(f"model in {folder}: {NUMBERS_FILE} is damaged (SHA-256 {digest})")
        with np.load(io.BytesIO(content), allow_pickle=False) as numbers:
            return _Reader(dict(numbers), document["river_version"]).value(document["model"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, zipfile.BadZipFile) as error:
        raise UnreadableModel(f"model in {folder}: {type(error).__name__}: {error}") from error


@cache
def _classes() -> dict[str, type]:
    """Public name -> class, of the river that is installed; an older one may lack some."""
    found: dict[str, type] = {}
    for module, names in _LISTED.items():
        imported = importlib.import_module(module)
        found |= {f"{module}.{name}": getattr(imported, name) for name in names if hasattr(imported, name)}
    return found


def _name_of(kind: type) -> str | None:
    return next((name for name, listed in _classes().items() if listed is kind), None)


def _described(kind: type) -> str:
    return _name_of(kind) or f"{kind.__module__}.{kind.__qualname__}"


class _Writer:
    """Values to words; vectors go to ``arrays``, by the names that the words give them."""

    def __init__(self) -> None:
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        self._seen: dict[int, str] = {}

    def value(self, value: Any, path: str) -> Any:
        """``path`` says where in the model it stands, for refusals."""
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {_FLOAT: repr(value)}
        if kind in (list, tuple):
            return {
                _LIST if kind is list else _TUPLE: [self.value(one, f"{path}[{at}]") for at, one in enumerate(value)]
            }
        if kind is set:
            return {_SET: sorted((self.value(one, path) for one in value), key=repr)}
        if isinstance(value, np.ndarray | np.generic):
            return {_ARRAY: self._array(value, path), "scalar": isinstance(value, np.generic)}
        if isinstance(value, Mapping) or kind.__name__ == "VectorDict":
            return self._mapping(value, path)
        return self._object(value, path)

    def _array(self, value: npt.NDArray[Any] | np.generic, path: str) -> str:
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise NotPortable(f"{path}: an array of Python objects cannot be stored without pickle")
        name = f"a{len(self.arrays)}"
        self.arrays[name] = array
        return name

    def _mapping(self, value: Any, path: str) -> dict[str, Any]:
        kind, keys = type(value), [self.value(key, path) for key in value.keys()]  # noqa: SIM118  (VectorDict)
        words: dict[str, Any] = {"mapping": kind.__name__, "keys": keys}
        if kind.__name__ == "VectorDict":
            _, factory, mask, _ = value.__reduce__()[1]
            if mask is not None:
                raise NotPortable(f"{path}: a VectorDict with a mask is not portable")
            words["default"] = self.value(factory, path)
        elif kind is defaultdict:
            words["factory"] = _factory_name(value.default_factory, path)
        elif kind not in (dict, Counter, OrderedDict):
            raise NotPortable(f"{path}: {kind.__module__}.{kind.__qualname__} is not portable")
        values = list(value.values())
        for kept, number in _VECTORS.items():
            if values and all(type(one) is number for one in values):
                return words | {kept: self._array(np.array(values, dtype=np.float64), path)}
        named = [self.value(one, f"{path}[{key!r}]") for key, one in zip(value.keys(), values, strict=True)]
        return words | {"values": named}

    def _object(self, value: Any, path: str) -> dict[str, Any]:
        kind = type(value)
        name = _name_of(kind)
        if name is None:
            raise NotPortable(
                f"{path}: {_described(kind)} is not portable; "
                "millrace.registry.river_portable lists the classes that are"
            )
        if id(value) in self._seen and name.rpartition(".")[0] + "." in _LEARNING:
            raise NotPortable(f"{path}: the same {name} as {self._seen[id(value)]}; give each its own")
        self._seen[id(value)] = path
        attribute = _PARTS.get(name)
        if attribute:
            parts = getattr(value, attribute).items()
            return {_CLASS: name, "parts": [[part, self.value(one, f"{path}[{part!r}]")] for part, one in parts]}
        return {_CLASS: name, "state": {key: self.value(one, f"{path}.{key}") for key, one in vars(value).items()}}


class _Reader:
    """Words to values."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], river_version: str) -> None:
        self._arrays, self._river_version = arrays, river_version

    def value(self, words: Any) -> Any:
        if not isinstance(words, dict):
            return words
        if _CLASS in words:
            return self._object(words)
        if "mapping" in words:
            return self._mapping(words)
        if _ARRAY in words:
            array = self._arrays[words[_ARRAY]]
            return array[()] if words["scalar"] else array
        ((kind, content),) = words.items()
        if kind == _FLOAT:
            return float(content)
        return {_LIST: list, _TUPLE: tuple, _SET: set}[kind](self.value(one) for one in content)

    def _mapping(self, words: Mapping[str, Any]) -> Any:
        keys = [self.value(key) for key in words["keys"]]
        vector = next((kept for kept in _VECTORS if kept in words), None)
        values: Sequence[Any] = (
            list(map(_VECTORS[vector], self._arrays[words[vector]]))
            if vector
            else [self.value(one) for one in words["values"]]
        )
        content, kind = dict(zip(keys, values, strict=True)), words["mapping"]
        if kind == "VectorDict":
            from river.utils import VectorDict

            return VectorDict(content, self.value(words["default"]))
        if kind == "defaultdict":
            return defaultdict(_factory(words["factory"]), content)
        return {"dict": dict, "Counter": Counter, "OrderedDict": OrderedDict}[kind](content)

    def _object(self, words: Mapping[str, Any]) -> Any:
        name = words[_CLASS]
        kind = _listed(name)
        if name in _PARTS:
            made = kind()
            getattr(made, _PARTS[name]).update((part, self.value(one)) for part, one in words["parts"])
            return made
        state = {key: self.value(one) for key, one in words["state"].items()}
        made = _blank(kind, state)
        if vars(made).keys() != state.keys():
            differing = ", ".join(sorted(vars(made).keys() ^ state.keys()))
            raise UnreadableModel(
                f"{name} of river {self._river_version} and of river {version('river')}, which is installed, hold "
                f"different state ({differing})"
            )
        vars(made).update(state)
        return made


def _blank(kind: type, state: Mapping[str, Any]) -> Any:
    """A new object, made with what it was once made with; its state comes after."""
    positional: tuple[Any, ...] = ()
    named = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            positional = tuple(state[name])
        elif name in state:
            named[name] = state[name]
    return kind(*positional, **named)


def _listed(name: str) -> type:
    kind = _classes().get(name)
    if kind is None:
        raise UnreadableModel(f"{name!r} is no class that is loaded: not listed, or not of the river that is installed")
    return kind


def _factory_name(factory: Any, path: str) -> str:
    name = next((name for name, one in _FACTORIES.items() if one is factory), None)
    name = name or (_name_of(factory) if isinstance(factory, type) else None)
    if name is None:
        described = getattr(factory, "__qualname__", type(factory).__qualname__)
        raise NotPortable(f"{path}: a defaultdict of {described} is not portable (a window, or a function)")
    return name


def _factory(name: str) -> Callable[[], Any]:
    return _FACTORIES[name] if name in _FACTORIES else _listed(name)
