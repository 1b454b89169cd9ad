"""The ranker: standardise, then logistic regression. Scores with numpy; the same model as river's pipeline.

Stored portably (numbers in ``weights.npz``, words in ``model.json``), never as a pickle: what the serving process
loads cannot run code. river itself is imported only where a pipeline is asked for.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.errors import MillraceError
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA, FloatMatrix

FORMAT = 1
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
        Names of the d columns, in order.
    means, variances
        float64[d], of the features in the examples learned; a feature of variance 0 does not count.
    weights
        float64[d], of the standardised features.
    intercept
        In log-odds.
    observations
        Number of examples behind ``means`` and ``variances``: with what weight they go on when learning goes on.
    """

    feature_schema: str
    feature_names: tuple[str, ...]
    means: Vector
    variances: Vector
    weights: Vector
    intercept: float
    observations: int
    # Standardisation folded into the weights, so that scoring is one product.
    _slope: Vector = field(init=False, repr=False, compare=False)
    _offset: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        d = len(self.feature_names)
        for name in ("means", "variances", "weights"):
            vector = np.array(getattr(self, name), dtype=np.float64)
            if vector.shape != (d,) or not np.isfinite(vector).all():
                raise UnusableModel(f"model: {name} must be {d} finite numbers, one for each feature")
            vector.setflags(write=False)
            object.__setattr__(self, name, vector)
        if (self.variances < 0).any():
            raise UnusableModel("model: variances must not be negative")
        if not np.isfinite(self.intercept) or self.observations < 0:
            raise UnusableModel("model: the intercept must be finite and the observations not negative")
        deviations = np.sqrt(self.variances)
        slope = np.divide(self.weights, deviations, out=np.zeros(d), where=deviations > 0)
        object.__setattr__(self, "_slope", slope)
        object.__setattr__(self, "_offset", float(self.intercept - self.means @ slope))

    def score(self, features: FloatMatrix) -> npt.NDArray[np.float32]:
        """Probabilities of a click, float32[n], of n candidates, float32[n, d] in the order of feature_names.

        Equal to river's ``predict_proba_one`` of the same values within 1e-6.
        """
        odds = features.astype(np.float64) @ -self._slope
        odds -= self._offset
        # Beyond 30 the probability is 0 in float32 (and river says so too); exp cannot overflow.
        np.exp(np.minimum(odds, 30.0, out=odds), out=odds)
        odds += 1.0
        scores: npt.NDArray[np.float32] = (1.0 / odds).astype(np.float32)
        return scores

    def to_river(self) -> Any:
        """The same model as a river pipeline ``StandardScaler | LogisticRegression``, ready to go on learning."""
        from river import linear_model, optim, preprocessing, utils

        scaler = preprocessing.StandardScaler()
        scaler.counts.update(dict.fromkeys(self.feature_names, self.observations))
        scaler.means.update(self._by_name(self.means))
        scaler.vars.update(self._by_name(self.variances))
        # AdaGrad suits features that are rarely other than zero (source flags, repeats).
        regression = linear_model.LogisticRegression(
            optimizer=optim.AdaGrad(ADAGRAD_RATE), intercept_init=self.intercept, intercept_lr=INTERCEPT_RATE
        )
        # river takes initial weights through an initialiser only, which cannot tell features apart.
        regression._weights = utils.VectorDict(self._by_name(self.weights))
        return scaler | regression

    def _by_name(self, vector: Vector) -> Mapping[str, float]:
        return dict(zip(self.feature_names, vector.tolist(), strict=True))

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
            "kind": "standard-scaler | logistic-regression",
            "feature_schema": self.feature_schema,
            "feature_names": self.feature_names,
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
            if description["format"] != FORMAT:
                raise UnusableModel(f"model in {folder}: format {description['format']!r}, not {FORMAT}")
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
                )
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UnusableModel(f"model in {folder}: {type(error).__name__}: {error}") from error


# feature -> (mean, variance, weight of the standardised feature). Means and variances are those of candidates in a
# prequential replay of news clicks (globo) and shop clicks (yoochoose, serenade-toy, diginetica), 120,000 events at
# most of each, the four with the same weight; click_through, approval and from_fresh do not vary there: their
# variances are guesses. The weights are a logistic regression on the same replay, rounded and thinned out to what
# helps on news and in shops, with popularity as an unknown user needs it. Whether users want to see an item again is
# the opposite on the two, so that weight is left to be learned. "around" and the circumstances came later, with weights
# of about half of what globo and ml-100k learn.
_FIRST: Mapping[str, tuple[float, float, float]] = {
    "covisit": (0.011, 0.003, 0.0),
    "covisit_last": (0.007, 0.0018, 0.1),
    "covisit_support": (0.15, 0.095, 0.2),
    "covisit_log": (-6.4, 1.7, 0.2),
    "popularity_short": (0.51, 0.7, 0.2),
    "popularity_long": (1.9, 2.5, 0.05),
    "age": (3.7, 3.1, 0.0),
    "idle": (3.5, 4.8, 0.0),
    "seen_ago": (0.07, 0.29, 0.0),
    "seen_count": (0.025, 0.023, 0.0),
    "trend": (0.09, 0.017, 0.0),
    "click_through": (0.05, 0.001, 0.2),
    "approval": (0.5, 0.01, 0.2),
    "seen": (0.03, 0.029, 0.0),
    "from_trending_short": (0.5, 0.25, 0.0),
    "from_trending_long": (0.5, 0.25, 0.0),
    "from_fresh": (0.03, 0.03, 0.0),
    "similar": (0.04, 0.031, 0.0),
    "similar_log": (-5.8, 3.5, 0.3),
    "similar_near_log": (-6.2, 2.2, 0.5),
    "after_log": (-6.3, 1.8, 0.0),
    "before_log": (-6.3, 1.9, 0.2),
    "after_newest_log": (-6.5, 1.2, 0.1),
    "newest": (0.01, 0.01, 0.0),
    "in_sessions": (3.0, 2.7, -0.3),
    "around": (0.06, 0.02, 0.3),
    "around_log": (-4.5, 4.0, 0.3),
    "context_device": (0.0, 0.08, 0.1),
    "context_os": (0.0, 0.09, 0.1),
    "context_country": (0.0, 0.01, 0.0),
    "context_region": (0.0, 0.23, 0.2),
    "context_referrer": (0.0, 0.86, 0.2),
    "context_placement": (0.0, 0.2, 0.1),
    "context_other": (0.0, 0.05, 0.1),
    "user_activity": (1.4, 0.48, 0.0),
    "user_idle": (1.6, 3.0, 0.0),
}
# It moves no item. Near the share of clicked slots in organic examples (one of five), so that the weights need not
# learn it first: with -6 the ranker was worse for its first ten thousand examples.
_FIRST_INTERCEPT = -2.0


def first_ranker() -> RankingModel:
    """The first version: fixed weights, until the stream has taught better ones.

    Next event in the session, full catalogue, every fifth to tenth event that has one before it, after the first fifth
    of the stream (HR@20 / MRR@20), before "around" and circumstances were added. The weights were chosen on these same
    clicks, so that this shows that they are sensible, not how well they generalise:

    ============================== ============= ============= ============= =============
    ranking the same candidates by globo         yoochoose     serenade-toy  diginetica
    ============================== ============= ============= ============= =============
    their own scores               .734 / .246   .677 / .343   .610 / .272   .443 / .155
    this model                     .736 / .288   .678 / .298   .617 / .299   .438 / .143
    ============================== ============= ============= ============= =============
    """
    table = np.array([_FIRST[name] for name in FEATURE_NAMES])
    return RankingModel(
        feature_schema=FEATURE_SCHEMA,
        feature_names=FEATURE_NAMES,
        means=table[:, 0],
        variances=table[:, 1],
        weights=table[:, 2],
        intercept=_FIRST_INTERCEPT,
        observations=1_000,
    )


def popularity_ranker() -> RankingModel:
    """Ranks by the long popularity alone: what an experiment compares a model with. Its scores are no probabilities."""
    first = first_ranker()
    return replace(first, weights=np.array([float(name == "popularity_long") for name in FEATURE_NAMES]))
