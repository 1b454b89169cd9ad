"""The registry layer and the cache, on a real MLflow server."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from millrace.errors import InfrastructureError, MillraceError
from millrace.learning.state import STATE_FILE, fresh
from millrace.ranking.first import first_ranker
from millrace.ranking.model import RankingModel, UnusableModel
from millrace.registry.cache import ModelCache
from millrace.registry.checkpoint_runs import CHECKPOINT_TAG, CheckpointRuns
from millrace.registry.registry import SCHEMA_TAG, Registry
from millrace.registry.river_portable import NotPortable
from millrace.registry.view import CHALLENGER, CHAMPION, RegistryView
from millrace.settings import MlflowSettings
from tests.processes import PATIENCE_S

# What mlflow.pyfunc says of itself when it is imported.
PYFUNC_SAYS = "ignore:.*Any type hint is inferred as AnyType"


@pytest.fixture(scope="module")
def mlflow(mlflow_uri: str) -> MlflowSettings:
    return MlflowSettings(tracking_uri=mlflow_uri, timeout_ms=round(PATIENCE_S * 1_000))


def test_cache_fetches_in_another_process_and_shows_only_complete_versions(
    mlflow: MlflowSettings, tmp_path: Path
) -> None:
    """Runs before the tests that use the registry in this process: mlflow must not come in through the cache."""
    script = (
        "from millrace.ranking.first import first_ranker; from millrace.registry.registry import Registry;"
        "from millrace.settings import MlflowSettings;"
        f"Registry(MlflowSettings(tracking_uri={mlflow.tracking_uri!r})).log_version('cached', first_ranker(), 's', '')"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE_S)
    before = "mlflow" in sys.modules
    cache = ModelCache(tmp_path / "cached", mlflow)
    seen: list[bool] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            folder = cache.path("1")
            if folder is not None:
                seen.append((folder / "model.json").exists() and (folder / "weights.npz").exists())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        folder = cache.ensure("1")
    finally:
        done.set()
        watcher.join()
    assert ("mlflow" in sys.modules) == before
    assert all(seen)
    loaded = RankingModel.load(folder)
    np.testing.assert_array_equal(loaded.weights, first_ranker().weights)
    assert sorted(path.name for path in folder.iterdir()) == ["MLmodel", "model.json", "weights.npz"]
    assert cache.versions() == ["1"]

    with pytest.raises(InfrastructureError, match=r"the registry holds no version 9 of model 'cached'"):
        cache.ensure("9")


def test_two_processes_may_fetch_the_same_version(mlflow: MlflowSettings, tmp_path: Path) -> None:
    Registry(mlflow).log_version("shared", first_ranker(), "step", "for two")
    caches = [ModelCache(tmp_path / "shared", mlflow) for _ in range(2)]
    threads = [threading.Thread(target=cache.ensure, args=("1",)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [folder.name for folder in (tmp_path / "shared").iterdir()] == ["1"]
    RankingModel.load(tmp_path / "shared" / "1")


def test_versions_tags_and_aliases(mlflow: MlflowSettings) -> None:
    registry, model = Registry(mlflow), first_ranker()
    assert registry.view("tagged") == RegistryView()
    made = registry.log_version("tagged", model, "step-1", "the first")
    registry.log_version("tagged", model, "step-2", "the second")
    registry.set_alias("tagged", CHAMPION, "2")
    registry.set_alias("tagged", CHAMPION, "1")
    registry.set_alias("tagged", CHALLENGER, "2")
    registry.delete_alias("tagged", CHALLENGER)
    view = registry.view("tagged")
    assert [version.version for version in view.versions] == ["1", "2"]
    assert view.aliases == {CHAMPION: "1"}
    assert view.made_by("step-1") == made
    assert view.made_by("step-3") is None
    assert made.tags[SCHEMA_TAG] == model.feature_schema
    assert len(bytes.fromhex(made.sha256)) == 32


def test_what_comes_back_is_what_went_in(mlflow: MlflowSettings, tmp_path: Path) -> None:
    registry, model = Registry(mlflow), first_ranker()
    version = registry.log_version("round-trip", model, "step", "there and back")
    registry.download("round-trip", version.version, tmp_path)
    copy = RankingModel.load(tmp_path)
    for name in ("means", "variances", "weights"):
        np.testing.assert_array_equal(getattr(copy, name), getattr(model, name))


def test_unknown_versions_are_an_answer_and_an_absent_server_a_failure(mlflow: MlflowSettings, tmp_path: Path) -> None:
    with pytest.raises(MillraceError, match="holds no version 7 of model 'nobody'"):
        Registry(mlflow).download("nobody", "7", tmp_path)
    away = Registry(MlflowSettings(tracking_uri="http://127.0.0.1:1", timeout_ms=1_000))
    with pytest.raises(InfrastructureError, match=r"mlflow: cannot list versions at http://127\.0\.0\.1:1"):
        away.view("nobody")


def test_checkpoints_come_back_to_the_bit_and_old_ones_go(mlflow: MlflowSettings, tmp_path: Path) -> None:
    registry = Registry(mlflow)
    runs, stored = CheckpointRuns(registry, "checkpointed"), []
    file = tmp_path / STATE_FILE
    for sequence in range(1, 6):
        content = replace(fresh(first_ranker(), "1", "reign", 3), sequence=sequence, learned={0: sequence}).to_bytes()
        file.write_bytes(content)
        stored.append(runs.store(file, {"examples": 5.0 * sequence}))
        (tmp_path / str(sequence)).mkdir()
        runs.fetch(stored[-1].run_id, tmp_path / str(sequence))
        assert (tmp_path / str(sequence) / STATE_FILE).read_bytes() == content
    # The learner that stores the fourth knows of the first and third; that there is a fifth it does not know.
    assert sorted(runs.prune(stored[3], ["1.3.1", "1.3.3"])) == ["1.3.2"]
    kept = registry.client.search_runs([registry.client.get_experiment_by_name("checkpointed").experiment_id])
    assert sorted(run.data.tags[CHECKPOINT_TAG] for run in kept) == ["1.3.1", "1.3.3", "1.3.4", "1.3.5"]
    with pytest.raises(InfrastructureError, match="cannot fetch the checkpoint of run"):
        runs.fetch(stored[1].run_id, tmp_path)
    with pytest.raises(MillraceError, match="the registry holds no run 00ff"):
        runs.fetch("00ff", tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UnusableModel, match="learner state is damaged"):
        runs.store(file, {})


@pytest.mark.filterwarnings(PYFUNC_SAYS, "ignore:Operation with range is deprecated")
def test_a_river_model_learns_on_and_predicts_as_the_one_at_hand(
    mlflow: MlflowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logged, registered, loaded both ways. No pickle on the way: its functions fail when they are called."""
    import mlflow as fluent
    from river import compose, linear_model, optim, preprocessing

    from millrace.registry import river_flavor

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.tracking_uri)
    for name in ("dump", "dumps", "load", "loads"):
        monkeypatch.setattr(pickle, name, lambda *_, **__: pytest.fail("pickle was used"))
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optim.AdaGrad(0.1))
    rows = [{"hour": float(hour), "weekend": float(hour % 7 > 4)} for hour in range(40)]
    for row in rows:
        model.learn_one(row, row["hour"] % 24 > 9)
    fluent.set_experiment("river")
    with fluent.start_run():
        info = river_flavor.log_model(
            model,
            name="clicks",
            registered_model_name="clicks",
            input_example=pd.DataFrame(rows[:3]),
            pyfunc_predict_fn="predict_proba_one",
            metadata={"of": "a test"},
        )
    assert info.flavors[river_flavor.FLAVOR_NAME]["river_version"]
    assert info.signature.inputs.input_names() == ["hour", "weekend"]
    assert info.signature.outputs.input_names() == ["False", "True"]

    served = fluent.pyfunc.load_model("models:/clicks/1")
    assert served.metadata.metadata == {"of": "a test"}
    expected = [model.predict_proba_one(row)[True] for row in rows]
    answers = served.predict(pd.DataFrame(rows).iloc[::-1])
    assert answers["True"].sort_index().to_list() == expected

    back = river_flavor.load_model(info.model_uri)
    for row in rows:
        model.learn_one(row, row["hour"] % 2 == 0)
        back.learn_one(row, row["hour"] % 2 == 0)
    assert back["LogisticRegression"].weights == model["LogisticRegression"].weights
    assert back["LogisticRegression"].optimizer.g2 == model["LogisticRegression"].optimizer.g2

    with pytest.raises(NotPortable, match="FuncTransformer"):
        river_flavor.log_model(compose.FuncTransformer(dict), name="refused", registered_model_name="refused")
    assert fluent.MlflowClient().search_registered_models("name = 'refused'") == []


@pytest.mark.filterwarnings(PYFUNC_SAYS)
def test_the_ranker_is_a_pyfunc_of_its_logged_features(mlflow: MlflowSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow as fluent
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.tracking_uri)
    model = first_ranker()
    version = Registry(mlflow).log_version("as-pyfunc", model, "step", "the first")
    served = fluent.pyfunc.load_model(f"models:/as-pyfunc/{version.version}")
    rows = np.random.default_rng(3).normal(size=(50, len(model.feature_names))).astype(np.float32)
    frame = pd.DataFrame(rows, columns=list(model.feature_names))
    np.testing.assert_array_equal(served.predict(frame[sorted(frame.columns)]), model.score(rows))
    with pytest.raises(MlflowException, match="missing inputs"):
        served.predict(frame.drop(columns=model.feature_names[0]))
