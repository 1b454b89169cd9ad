"""The MLflow flavour for river models, in a folder; tests/integration/test_registry.py has it on a server."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from river import compose, linear_model, optim, preprocessing

from millrace.registry import river_flavor, river_portable
from millrace.registry.river_portable import NotPortable

# What MLflow says of itself: of its types when it is imported, of its use of pandas when it stores an example.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

GUIDE = Path(__file__).parents[2] / "docs" / "river-flavor.md"
ROWS = [{"hour": float(hour), "weekend": float(hour % 7 > 4)} for hour in range(40)]
FRAME = pd.DataFrame(ROWS)


def learned() -> Any:
    model = compose.Pipeline(
        ("scale", preprocessing.StandardScaler()),
        ("rank", linear_model.LogisticRegression(optimizer=optim.AdaGrad(0.1))),
    )
    for row in ROWS:
        model.learn_one(row, row["hour"] % 24 > 9)
    return model


def test_what_stands_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pickle on the way: its functions fail when they are called."""
    model, folder = learned(), tmp_path / "model"
    for name in ("dump", "dumps", "load", "loads"):
        monkeypatch.setattr(pickle, name, lambda *_, **__: pytest.fail("pickle was used"))
    river_flavor.save_model(model, folder, extra_pip_requirements=["numpy"], code_paths=[__file__])
    assert {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"} == {
        "MLmodel",
        "conda.yaml",
        "numbers.npz",
        "python_env.yaml",
        "requirements.txt",
        "river.json",
        Path(__file__).name,
    }
    requirements = (folder / "requirements.txt").read_text().split()
    assert [one.partition("==")[0] for one in requirements] == ["mlflow", "millrace[river-flavor]", "river", "numpy"]
    # A missing value is a feature that the example does not have.
    served = mlflow.pyfunc.load_model(str(folder))
    incomplete = pd.DataFrame([{"hour": 3.0, "weekend": None}])
    assert served.predict(incomplete).tolist() == [model.predict_one({"hour": 3.0})]
    assert served.predict([{"hour": 3.0}]).tolist() == [model.predict_one({"hour": 3.0})]
    assert served.get_raw_model()["rank"].weights == model["rank"].weights
    with pytest.raises(MlflowException, match="there already and not empty"):
        river_flavor.save_model(model, folder)


def test_a_transformer_alone_has_no_pyfunc_unless_it_is_to_transform(tmp_path: Path) -> None:
    scaler = preprocessing.StandardScaler()
    for row in ROWS:
        scaler.learn_one(row)
    river_flavor.save_model(scaler, tmp_path / "alone", pip_requirements=[])
    assert list(Model.load(str(tmp_path / "alone")).flavors) == [river_flavor.FLAVOR_NAME]
    river_flavor.save_model(scaler, tmp_path / "asked", pip_requirements=[], pyfunc_predict_fn="transform_one")
    served = mlflow.pyfunc.load_model(str(tmp_path / "asked"))
    assert served.predict(FRAME).to_dict("records") == [scaler.transform_one(row) for row in ROWS]


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(NotPortable, match="FuncTransformer"):
        river_flavor.save_model(compose.FuncTransformer(dict), tmp_path / "model")
    with pytest.raises(MlflowException, match="pyfunc_predict_fn is 'predict'; allowed: predict_one, "):
        river_flavor.save_model(learned(), tmp_path / "model", pyfunc_predict_fn="predict")
    assert not (tmp_path / "model").exists()
    Model().save(str(tmp_path / "MLmodel"))
    with pytest.raises(MlflowException, match='does not have the "river" flavor'):
        river_flavor.load_model(str(tmp_path))


def test_the_guide_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = GUIDE.read_text(encoding="utf-8").split("```python\n")[1]
    names: dict[str, Any] = {}
    exec(code.partition("```")[0], names)
    signature = Model.load("clicks").signature
    assert (signature.inputs.input_names(), signature.outputs.input_names()) == (["hour"], ["False", "True"])
    assert names["same"]["LogisticRegression"].weights != names["model"]["LogisticRegression"].weights


def test_the_list_in_the_guide_is_the_list() -> None:
    listed = {name for names in river_portable._LISTED.values() for name in names}
    in_words = set(river_portable._OPTIMIZERS) | set(river_portable._LOSSES)
    in_words |= {"InverseScaling", "Optimal", "Min", "Max", "AbsMax"}  # of optimizers and scalers
    text = GUIDE.read_text(encoding="utf-8")
    assert [name for name in sorted(listed - in_words) if name not in text] == []
