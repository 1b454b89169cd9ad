"""The ranker: the same model as river's, and a store that refuses what is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.ranking.model import DESCRIPTION_FILE, WEIGHTS_FILE, RankingModel, UnusableModel, first_ranker


def random_model(seed: int) -> RankingModel:
    rng = np.random.default_rng(seed)
    d = len(FEATURE_NAMES)
    variances = rng.gamma(1.0, 4.0, d)
    variances[3] = 0.0
    return RankingModel(
        FEATURE_SCHEMA, FEATURE_NAMES, rng.normal(0, 10, d), variances, rng.normal(0, 1, d), -2.5, observations=100
    )


@pytest.mark.parametrize("model", [first_ranker(), random_model(1), random_model(2)])
def test_scores_equal_rivers(model: RankingModel) -> None:
    rng = np.random.default_rng(3)
    spread = np.sqrt(model.variances)
    features = (model.means + 3 * spread * rng.normal(size=(500, len(spread)))).astype(np.float32)
    pipeline = model.to_river()
    theirs = [pipeline.predict_proba_one(dict(zip(FEATURE_NAMES, row, strict=True)))[True] for row in features.tolist()]
    np.testing.assert_allclose(model.score(features), theirs, rtol=0, atol=1e-6)


def test_extreme_logits_give_probabilities() -> None:
    model = RankingModel("s", ("x",), np.zeros(1), np.ones(1), np.ones(1), 0.0, 1)
    scores = model.score(np.array([[-1e30], [0.0], [1e30]], dtype=np.float32))
    np.testing.assert_allclose(scores, [0.0, 0.5, 1.0], atol=1e-6)


def test_the_river_pipeline_goes_on_learning_from_here() -> None:
    model = first_ranker()
    pipeline = model.to_river()
    example = dict(zip(FEATURE_NAMES, model.means.tolist(), strict=True))
    before = pipeline.predict_proba_one(example)[True]
    for _ in range(200):
        pipeline.learn_one(example, True)
    assert pipeline.predict_proba_one(example)[True] > before
    scaler = pipeline["StandardScaler"]
    assert scaler.counts[FEATURE_NAMES[0]] == model.observations + 200


def test_save_and_load_give_the_same_model(tmp_path: Path) -> None:
    model = random_model(4)
    digest = model.save(tmp_path / "v7")
    loaded = RankingModel.load(tmp_path / "v7")
    for name in ("means", "variances", "weights"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
    assert (loaded.intercept, loaded.observations) == (model.intercept, model.observations)
    assert (loaded.feature_schema, loaded.feature_names) == (FEATURE_SCHEMA, FEATURE_NAMES)
    assert digest == model.save(tmp_path / "again"), "the same model gives the same bytes"


def test_every_damaged_byte_of_the_weights_is_refused(tmp_path: Path) -> None:
    first_ranker().save(tmp_path)
    file = tmp_path / WEIGHTS_FILE
    content = bytearray(file.read_bytes())
    for place in range(0, len(content), 97):
        content[place] ^= 1
        file.write_bytes(content)
        with pytest.raises(UnusableModel, match="damaged"):
            RankingModel.load(tmp_path)
        content[place] ^= 1


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"feature_names": ["one"]},
        {"weights_sha256": None},
        {"feature_names": None},
    ],
)
def test_a_wrong_description_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    first_ranker().save(tmp_path)
    file = tmp_path / DESCRIPTION_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UnusableModel):
        RankingModel.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_broken_description_is_refused(tmp_path: Path, content: str) -> None:
    first_ranker().save(tmp_path)
    (tmp_path / DESCRIPTION_FILE).write_text(content)
    with pytest.raises(UnusableModel):
        RankingModel.load(tmp_path)


def test_an_absent_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match=DESCRIPTION_FILE):
        RankingModel.load(tmp_path / "none")


@pytest.mark.parametrize("bad", [np.array([np.nan]), np.array([np.inf]), np.zeros(2)])
def test_parameters_must_be_finite_and_one_for_each_feature(bad: np.ndarray) -> None:
    with pytest.raises(UnusableModel, match="means"):
        RankingModel("s", ("x",), bad, np.ones(1), np.ones(1), 0.0, 1)
    with pytest.raises(UnusableModel, match="variances"):
        RankingModel("s", ("x",), np.zeros(1), -np.ones(1), np.ones(1), 0.0, 1)


def test_the_first_ranker_prefers_what_follows_and_what_is_popular() -> None:
    model = first_ranker()
    base = model.means.astype(np.float32)
    for name in ("covisit_log", "popularity_long"):
        better = base.copy()
        better[FEATURE_NAMES.index(name)] += 1
        worse_score, better_score = model.score(np.stack([base, better]))
        assert better_score > worse_score, name
