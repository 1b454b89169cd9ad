"""A MLflow flavour for river: ``save_model``, ``log_model``, ``load_model``, as MLflow's own flavours have them.

No pickle anywhere: ``river_portable`` says what is stored, and which classes are. What is loaded learns on as if it
had never been stored. It is independent of the rest of Millrace; ``pip install 'millrace[river-flavor]'`` brings what
it imports; ``docs/river-flavor.md`` shows it in use.

The pyfunc takes a frame (or a dict, or a list of dicts) with a column for each feature, one row an example. A missing
value is a feature that the example does not have, as river means it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import yaml
from mlflow import pyfunc
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.models.signature import _infer_signature_from_input_example
from mlflow.models.utils import _save_example
from mlflow.tracking.artifact_utils import _download_artifact_from_uri
from mlflow.utils.environment import (
    _CONDA_ENV_FILE_NAME,
    _CONSTRAINTS_FILE_NAME,
    _PYTHON_ENV_FILE_NAME,
    _REQUIREMENTS_FILE_NAME,
    _mlflow_conda_env,
    _process_conda_env,
    _process_pip_requirements,
    _PythonEnv,
    _validate_env_arguments,
)
from mlflow.utils.model_utils import (
    _add_code_from_conf_to_system_path,
    _get_flavor_configuration,
    _validate_and_copy_code_paths,
)

from millrace.registry import river_portable

FLAVOR_NAME = "river"
DATA = "river"
"""Folder inside a saved model that holds the numbers and words."""

PREDICTIONS = ("predict_one", "predict_proba_one", "transform_one", "score_one")
"""What a pyfunc may answer with: methods of river's estimators."""
_PREDICT_FN = "predict_fn"


def get_default_pip_requirements() -> list[str]:
    """Requirements of a stored model where the caller gives none: not inferred, which would take 4 s."""
    try:
        ours = f"millrace[river-flavor]=={version('millrace')}"
    except PackageNotFoundError:
        ours = "millrace[river-flavor]"
    return [ours, f"river=={version('river')}"]


def get_default_conda_env() -> Any:
    """The same as a conda environment."""
    return _mlflow_conda_env(additional_pip_deps=get_default_pip_requirements())


def save_model(
    river_model: Any,
    path: str | Path,
    conda_env: Any = None,
    code_paths: list[str] | None = None,
    mlflow_model: Model | None = None,
    signature: Any = None,
    input_example: Any = None,
    pip_requirements: list[str] | str | None = None,
    extra_pip_requirements: list[str] | str | None = None,
    pyfunc_predict_fn: str = "predict_one",
    metadata: dict[str, Any] | None = None,
) -> None:
    """Store a model in a folder that does not exist yet, or is empty.

    Parameters
    ----------
    river_model
        An estimator or a pipeline, learned or not.
    signature
        Of the pyfunc; None: inferred from ``input_example`` if there is one; False: none.
    pyfunc_predict_fn
        One of ``PREDICTIONS``: what the pyfunc calls for each row. A model without that method has no pyfunc.
    conda_env, code_paths, mlflow_model, input_example, pip_requirements, extra_pip_requirements, metadata
        As in MLflow's own flavours.

    Raises
    ------
    NotPortable
        The model has a part that cannot be stored without pickle; the message names it. Nothing is written.
    MlflowException
        The folder holds something already, or arguments contradict each other.
    """
    _validate_env_arguments(conda_env, pip_requirements, extra_pip_requirements)
    _check_prediction(pyfunc_predict_fn)
    folder = Path(path).resolve()
    river_portable.check(river_model)
    _prepare(folder)
    code = _validate_and_copy_code_paths(code_paths, str(folder))
    digest = river_portable.save(river_model, folder / DATA)
    described = mlflow_model or Model()
    example = _save_example(described, input_example, str(folder))
    predicts = hasattr(river_model, pyfunc_predict_fn)
    if signature is None and example is not None and predicts:
        signature = _infer_signature_from_input_example(example, Predictor(river_model, pyfunc_predict_fn))
    if signature:
        described.signature = signature
    if metadata is not None:
        described.metadata = metadata
    if predicts:
        pyfunc.add_to_model(
            described,
            loader_module=__name__,
            data=DATA,
            conda_env=_CONDA_ENV_FILE_NAME,
            python_env=_PYTHON_ENV_FILE_NAME,
            code=code,
            model_config={_PREDICT_FN: pyfunc_predict_fn},
        )
    described.add_flavor(FLAVOR_NAME, river_version=version("river"), data=DATA, sha256=digest, code=code)
    described.save(str(folder / MLMODEL_FILE_NAME))
    _save_environment(folder, conda_env, pip_requirements, extra_pip_requirements)


def log_model(
    river_model: Any,
    artifact_path: str | None = None,
    conda_env: Any = None,
    code_paths: list[str] | None = None,
    registered_model_name: str | None = None,
    signature: Any = None,
    input_example: Any = None,
    await_registration_for: int | None = 300,
    pip_requirements: list[str] | str | None = None,
    extra_pip_requirements: list[str] | str | None = None,
    pyfunc_predict_fn: str = "predict_one",
    metadata: dict[str, Any] | None = None,
    name: str | None = None,
    **kwargs: Any,
) -> Any:
    """Store a model with the current run, and register it under ``registered_model_name`` if that is given.

    Parameters as in :func:`save_model` and ``mlflow.models.Model.log``, which gets ``kwargs``. Returns its ModelInfo,
    whose ``model_uri`` :func:`load_model` takes.

    Raises
    ------
    NotPortable
        As :func:`save_model`; nothing is logged.
    """
    river_portable.check(river_model)
    return Model.log(
        artifact_path=artifact_path,
        name=name,
        flavor=sys.modules[__name__],
        registered_model_name=registered_model_name,
        river_model=river_model,
        conda_env=conda_env,
        code_paths=code_paths,
        signature=signature,
        input_example=input_example,
        await_registration_for=await_registration_for,
        pip_requirements=pip_requirements,
        extra_pip_requirements=extra_pip_requirements,
        pyfunc_predict_fn=pyfunc_predict_fn,
        metadata=metadata,
        **kwargs,
    )


def load_model(model_uri: str, dst_path: str | None = None) -> Any:
    """A model as it was stored, to predict and to learn on.

    Parameters
    ----------
    model_uri
        As MLflow names models: a path, ``runs:/RUN/NAME``, ``models:/NAME/VERSION``, ``models:/NAME@ALIAS``.
    dst_path
        Existing folder to download into.

    Raises
    ------
    UnreadableModel
        It is damaged, or of a river whose classes hold other state.
    MlflowException
        There is none, or it was stored by another flavour.
    """
    folder = _download_artifact_from_uri(artifact_uri=model_uri, output_path=dst_path)
    configuration = _get_flavor_configuration(model_path=folder, flavor_name=FLAVOR_NAME)
    _add_code_from_conf_to_system_path(folder, configuration)
    return river_portable.load(Path(folder) / configuration.get("data", DATA))


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> Predictor:
    """Called by ``mlflow.pyfunc.load_model``."""
    return Predictor(river_portable.load(Path(path)), (model_config or {}).get(_PREDICT_FN, PREDICTIONS[0]))


class Predictor:
    """What ``mlflow.pyfunc`` calls: a row of a frame is an example for river."""

    def __init__(self, model: Any, predict_fn: str) -> None:
        self._model = model
        self._answer = getattr(model, _check_prediction(predict_fn))

    def get_raw_model(self) -> Any:
        """The river model."""
        return self._model

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """A series of predictions; a frame where river answers with a dict (a probability a class, or features)."""
        del params
        answers = [self._answer(example) for example in _examples(model_input)]
        index = model_input.index if isinstance(model_input, pd.DataFrame) else None
        if answers and all(isinstance(answer, dict) for answer in answers):
            return pd.DataFrame(answers, index=index).rename(columns=str)
        return pd.Series(answers, index=index)


def _examples(given: Any) -> Iterable[dict[Any, Any]]:
    if isinstance(given, pd.DataFrame):
        given = given.to_dict(orient="records")
    rows: Sequence[Mapping[Any, Any]] = [given] if isinstance(given, Mapping) else given
    for row in rows:
        yield {name: value for name, value in row.items() if not (pd.api.types.is_scalar(value) and pd.isna(value))}


def _check_prediction(name: str) -> str:
    if name not in PREDICTIONS:
        raise mlflow.MlflowException.invalid_parameter_value(
            f"pyfunc_predict_fn is {name!r}; allowed: {', '.join(PREDICTIONS)}"
        )
    return name


def _prepare(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise mlflow.MlflowException.invalid_parameter_value(f"{folder} is there already and not empty")
    folder.mkdir(parents=True, exist_ok=True)


def _save_environment(folder: Path, conda_env: Any, given: Any, extra: Any) -> None:
    """``conda.yaml``, ``requirements.txt`` and ``python_env.yaml``, by which MLflow builds a place to serve it."""
    if conda_env is None:
        default = get_default_pip_requirements() if given is None else None
        conda, requirements, constraints = _process_pip_requirements(default, given, extra)
    else:
        conda, requirements, constraints = _process_conda_env(conda_env)
    (folder / _CONDA_ENV_FILE_NAME).write_text(yaml.safe_dump(conda, default_flow_style=False), encoding="utf-8")
    if constraints:
        (folder / _CONSTRAINTS_FILE_NAME).write_text("\n".join(constraints), encoding="utf-8")
    (folder / _REQUIREMENTS_FILE_NAME).write_text("\n".join(requirements), encoding="utf-8")
    _PythonEnv.current().to_yaml(str(folder / _PYTHON_ENV_FILE_NAME))
