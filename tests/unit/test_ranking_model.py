"""The ranker: the same model as river's, and a store that refuses what is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA, FloatMatrix
from millrace.ranking.first import first_ranker
from millrace.ranking.model import DESCRIPTION_FILE, WEIGHTS_FILE, RankingModel, UnusableModel
from millrace.ranking.terms import Hinge, Product, Term

TERMS = (Hinge("covisit", -1.0), Product("idle", "idle", 2.0, 3.0), Hinge("user_idle", 0.5))


def random_model(seed: int, terms: tuple[Term, ...] = TERMS) -> RankingModel:
    rng = np.random.default_rng(seed)
    columns = len(FEATURE_NAMES) + len(terms)
    variances = rng.gamma(1.0, 4.0, columns)
    variances[3] = 0.0
    return RankingModel(
        FEATURE_SCHEMA,
        FEATURE_NAMES,
        rng.normal(0, 10, columns),
        variances,
        rng.normal(0, 1, columns),
        -2.5,
        observations=100,
        terms=terms,
    )


def spread_features(model: RankingModel, count: int, seed: int = 3) -> FloatMatrix:
    d = len(model.feature_names)
    noise = np.random.default_rng(seed).normal(size=(count, d))
    return (model.means[:d] + 3 * np.sqrt(model.variances[:d]) * noise).astype(np.float32)


@pytest.mark.parametrize("model", [first_ranker(), random_model(1), random_model(2, terms=())])
def test_scores_equal_rivers(model: RankingModel) -> None:
    features = spread_features(model, 500)
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
    example = dict(zip(FEATURE_NAMES, model.means[: len(FEATURE_NAMES)].tolist(), strict=True))
    before = pipeline.predict_proba_one(example)[True]
    for _ in range(200):
        pipeline.learn_one(example, True)
    assert pipeline.predict_proba_one(example)[True] > before
    scaler = pipeline["StandardScaler"]
    assert set(scaler.counts.values()) == {model.observations + 200}
    assert tuple(scaler.counts) == model.columns


def test_terms_by_hand() -> None:
    terms = (Hinge("x", 1.0), Product("x", "y", 2.0, -1.0))
    model = RankingModel("s", ("x", "y"), np.zeros(4), np.ones(4), np.array([0.1, 0.2, 0.3, 0.4]), 0.5, 1, terms)
    assert model.columns == ("x", "y", "x>1", "x*y")
    features = np.array([[0.0, 3.0], [4.0, 5.0]], dtype=np.float32)
    assert model.expand(features).tolist() == [[0, 3, 0, -2 * 4], [4, 5, 3, 2 * 6]]
    odds = np.array([0.2 * 3 - 0.4 * 8 + 0.5, 0.4 + 1.0 + 0.9 + 0.4 * 12 + 0.5])
    np.testing.assert_allclose(model.score(features), 1 / (1 + np.exp(-odds)), rtol=1e-6)


@pytest.mark.parametrize("term", [Hinge("z", 1.0), Product("x", "z", 0.0, 0.0), Hinge("x", np.nan)])
def test_a_term_of_nothing_known_is_refused(term: Term) -> None:
    with pytest.raises(UnusableModel, match=r"no feature|finite"):
        RankingModel("s", ("x",), np.zeros(2), np.ones(2), np.ones(2), 0.0, 1, (term,))


def test_save_and_load_give_the_same_model(tmp_path: Path) -> None:
    model = random_model(4)
    digest = model.save(tmp_path / "v7")
    loaded = RankingModel.load(tmp_path / "v7")
    for name in ("means", "variances", "weights"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
    assert (loaded.intercept, loaded.observations) == (model.intercept, model.observations)
    assert (loaded.feature_schema, loaded.feature_names) == (FEATURE_SCHEMA, FEATURE_NAMES)
    assert loaded.terms == TERMS
    assert digest == model.save(tmp_path / "again"), "the same model gives the same bytes"


def test_a_model_from_before_there_were_terms_is_understood(tmp_path: Path) -> None:
    model = random_model(5, terms=())
    model.save(tmp_path)
    file = tmp_path / DESCRIPTION_FILE
    description = json.loads(file.read_text()) | {"format": 1}
    del description["terms"]
    file.write_text(json.dumps(description))
    loaded, features = RankingModel.load(tmp_path), spread_features(model, 5)
    assert loaded.terms == ()
    np.testing.assert_array_equal(loaded.score(features), model.score(features))


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
        {"format": 3},
        {"terms": [{"feature": "covisit"}]},
        {"terms": [{"feature": "covisit", "knot": 1.0}]},
        {"terms": 7},
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
    base = model.means[: len(FEATURE_NAMES)].astype(np.float32)
    for name in ("covisit_log", "popularity_long"):
        better = base.copy()
        better[FEATURE_NAMES.index(name)] += 1
        worse_score, better_score = model.score(np.stack([base, better]))
        assert better_score > worse_score, name
