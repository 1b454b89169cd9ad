"""The ranker: expand the features, standardise, then logistic regression; the same model as river's pipeline.

Stored portably (numbers in ``weights.npz``, words in ``model.json``), never as a pickle: what the serving process
loads cannot run code. river itself is imported only where a pipeline is asked for.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.errors import MillraceError
from millrace.ranking.features import FloatMatrix, Floats
from millrace.ranking.terms import Expansion, Term, expansion, term_from_words, term_to_words

FORMAT = 2
READABLE = (1, 2)
"""Of what is stored: what is written, and what is understood. Format 1 knew no terms."""
ADAGRAD_RATE, INTERCEPT_RATE = 0.05, 0.01
"""Learning rates of the weights and of the intercept."""
WEIGHTS_FILE, DESCRIPTION_FILE = "weights.npz", "model.json"

Vector = npt.NDArray[np.float64]


class UnusableModel(MillraceError):
    """A stored model is damaged, incomplete or of another format; it is not loaded."""


@dataclass(frozen=True)
class RankingModel:
    """A version of the ranker.

    Attributes
    ----------
    feature_schema
        Name of the schema that ``feature_names`` belongs to.
    feature_names
        Names of the d logged features, in order.
    means, variances
        float64[d + e], of the columns in the examples learned; a column of variance 0 does not count.
    weights
        float64[d + e], of the standardised columns.
    intercept
        In log-odds.
    observations
        Number of examples behind ``means`` and ``variances``: with what weight they go on when learning goes on.
    terms
        The e columns behind those of the features, made of them.
    """

    feature_schema: str
    feature_names: tuple[str, ...]
    means: Vector
    variances: Vector
    weights: Vector
    intercept: float
    observations: int
    terms: tuple[Term, ...] = ()
    # Makes the columns.
    _expansion: Expansion = field(init=False, repr=False, compare=False)
    # Standardisation folded into the weights, so that scoring is one product.
    _slope: Vector = field(init=False, repr=False, compare=False)
    _offset: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "_expansion", expansion(self.feature_names, self.terms))
        except ValueError as error:
            raise UnusableModel(f"model: {error}") from error
        columns = len(self.columns)
        for name in ("means", "variances", "weights"):
            vector = np.array(getattr(self, name), dtype=np.float64)
            if vector.shape != (columns,) or not np.isfinite(vector).all():
                raise UnusableModel(f"model: {name} must be {columns} finite numbers, one for each column")
            vector.setflags(write=False)
            object.__setattr__(self, name, vector)
        if (self.variances < 0).any():
            raise UnusableModel("model: variances must not be negative")
        if not np.isfinite(self.intercept) or self.observations < 0:
            raise UnusableModel("model: the intercept must be finite and the observations not negative")
        deviations = np.sqrt(self.variances)
        slope = np.divide(self.weights, deviations, out=np.zeros(columns), where=deviations > 0)
        object.__setattr__(self, "_slope", slope)
        object.__setattr__(self, "_offset", float(self.intercept - self.means @ slope))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the d + e columns that weights, means and variances belong to."""
        return self._expansion.columns

    def expand(self, features: FloatMatrix | Floats) -> Floats:
        """The columns, float64[n, d + e], of features, float[n, d]."""
        return self._expansion(features)

    def score(self, features: FloatMatrix) -> npt.NDArray[np.float32]:
        """Probabilities of a click, float32[n], of n candidates, float32[n, d] in the order of feature_names.

        Equal to river's ``predict_proba_one`` of the same values within 1e-6.
        """
        return self._expansion.probabilities(features, self._slope, self._offset)

    def to_river(self) -> Any:
        """The same model as a river pipeline, ready to go on learning.

        ``Terms | StandardScaler | LogisticRegression``; the first makes the columns of the features.
        """
        from river import compose, linear_model, optim, preprocessing, utils

        scaler = preprocessing.StandardScaler()
        scaler.counts.update(dict.fromkeys(self.columns, self.observations))
        scaler.means.update(self._by_name(self.means))
        scaler.vars.update(self._by_name(self.variances))
        # AdaGrad suits features that are rarely other than zero (source flags, repeats).
        regression = linear_model.LogisticRegression(
            optimizer=optim.AdaGrad(ADAGRAD_RATE), intercept_init=self.intercept, intercept_lr=INTERCEPT_RATE
        )
        # river takes initial weights through an initialiser only, which cannot tell features apart.
        regression._weights = utils.VectorDict(self._by_name(self.weights))
        return compose.Pipeline(
            ("Terms", compose.FuncTransformer(self._expansion.expand_one)),
            ("StandardScaler", scaler),
            ("LogisticRegression", regression),
        )

    def _by_name(self, vector: Vector) -> Mapping[str, float]:
        return dict(zip(self.columns, vector.tolist(), strict=True))

    def save(self, folder: Path) -> str:
        """Write the model into a folder (made if missing); returns the SHA-256 of the weights, in hex."""
        folder.mkdir(parents=True, exist_ok=True)
        numbers = io.BytesIO()
        np.savez(
            numbers,
            means=self.means,
            variances=self.variances,
            weights=self.weights,
            intercept=np.float64(self.intercept),
            observations=np.int64(self.observations),
        )
        digest = hashlib.sha256(numbers.getvalue()).hexdigest()
        description = {
            "format": FORMAT,
            "kind": "terms | standard-scaler | logistic-regression",
            "feature_schema": self.feature_schema,
            "feature_names": self.feature_names,
            "terms": [term_to_words(term) for term in self.terms],
            "weights_sha256": digest,
        }
        (folder / WEIGHTS_FILE).write_bytes(numbers.getvalue())
        (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        return digest

    @classmethod
    def load(cls, folder: Path) -> RankingModel:
        """Read a model from a folder. Raises UnusableModel, saying what is wrong with which file."""
        try:
            description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
            content = (folder / WEIGHTS_FILE).read_bytes()
            if description["format"] not in READABLE:
                raise UnusableModel(f"model in {folder}: format {description['format']!r}, not one of {READABLE}")
            digest = hashlib.sha256(content).hexdigest()
            if digest != description["weights_sha256"]:
                raise UnusableModel(f"model in {folder}: {WEIGHTS_FILE} is damaged (SHA-256 {digest})")
            with np.load(io.BytesIO(content), allow_pickle=False) as numbers:
                return cls(
                    feature_schema=str(description["feature_schema"]),
                    feature_names=tuple(str(name) for name in description["feature_names"]),
                    means=numbers["means"],
                    variances=numbers["variances"],
                    weights=numbers["weights"],
                    intercept=float(numbers["intercept"]),
                    observations=int(numbers["observations"]),
                    terms=terms_from_words(description.get("terms", ())),
                )
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UnusableModel(f"model in {folder}: {type(error).__name__}: {error}") from error


def terms_from_words(words: Sequence[Mapping[str, Any]]) -> tuple[Term, ...]:
    """Terms as they are stored. Raises KeyError, TypeError or ValueError if they are none."""
    return tuple(term_from_words(one) for one in words)
