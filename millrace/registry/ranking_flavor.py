"""The ranker for MLflow's own tools: ``mlflow.pyfunc.load_model("models:/ranker@champion")``.

A file ``MLmodel`` beside the weights says how they are loaded, and which features a row has. It is written without
MLflow, whose model code needs pandas, which no process of Millrace does.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from millrace.ranking.model import RankingModel

if TYPE_CHECKING:
    import pandas as pd

MODEL_FILE = "MLmodel"


def describe(folder: Path, model: RankingModel) -> None:
    """Write ``MLmodel`` into the folder that holds the model's files."""
    # `double`: MLflow takes float32 for it, but not float64 for `float`.
    inputs = [{"name": name, "type": "double", "required": True} for name in model.feature_names]
    output = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1]}}
    words = {
        "flavors": {"python_function": {"loader_module": __name__}},
        "signature": {"inputs": json.dumps(inputs), "outputs": json.dumps([output]), "params": None},
        "metadata": {"feature_schema": model.feature_schema},
        "utc_time_created": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}",
    }
    # JSON is YAML.
    (folder / MODEL_FILE).write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")


def _load_pyfunc(path: str) -> Scorer:
    """Called by ``mlflow.pyfunc.load_model``. Raises UnusableModel."""
    return Scorer(RankingModel.load(Path(path)))


class Scorer:
    """What ``mlflow.pyfunc`` calls."""

    def __init__(self, model: RankingModel) -> None:
        self._model = model

    def get_raw_model(self) -> RankingModel:
        """The ranker."""
        return self._model

    def predict(self, model_input: pd.DataFrame, params: Any = None) -> npt.NDArray[np.float32]:
        """Probabilities of a click, float32[n], as the recommender gives them to the same logged features.

        ``model_input``: n rows with a column for each logged feature, in any order.
        """
        del params
        features = model_input[list(self._model.feature_names)].to_numpy(dtype=np.float32)
        return self._model.score(np.ascontiguousarray(features))
