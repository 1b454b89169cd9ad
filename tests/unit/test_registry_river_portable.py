"""river models as numbers and words: what comes back learns on as if it had never been stored."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from river import compose, linear_model, optim, preprocessing, tree

from millrace.ranking.first import first_ranker
from millrace.registry import river_portable
from millrace.registry.river_portable import NUMBERS_FILE, WORDS_FILE, NotPortable, UnreadableModel

Make = Callable[[], Any]


def examples(count: int, seed: int) -> Iterator[tuple[dict[str, Any], bool]]:
    rng = random.Random(seed)
    for number in range(count):
        yield {"a": rng.gauss(0, 1), "b": rng.gauss(3, 2), "c": "xyz"[number % 3]}, rng.random() < 0.5


def numeric(count: int, seed: int) -> Iterator[tuple[dict[str, Any], bool]]:
    for x, y in examples(count, seed):
        yield {"a": x["a"], "b": x["b"]}, y


def learn(model: Any, stream: Iterator[tuple[dict[str, Any], bool]]) -> None:
    for x, y in stream:
        model.learn_one(x, y)


def state(model: Any) -> tuple[str, list[bytes]]:
    """Everything that a model holds, to the bit."""
    writer = river_portable._Writer()
    words = writer.value(model, "model")
    return json.dumps(words), [array.tobytes() for array in writer.arrays.values()]


def regression(**parameters: Any) -> Make:
    return lambda: linear_model.LinearRegression(**parameters)


def optimized(name: str) -> Make:
    kind = getattr(optim, name)
    return lambda: linear_model.LogisticRegression(optimizer=kind(optim.SGD(0.1)) if name == "Averager" else kind())


CASES: dict[str, Make] = {
    **{name: optimized(name) for name in river_portable._OPTIMIZERS},
    **{name: regression(loss=getattr(optim.losses, name)()) for name in river_portable._LOSSES},
    "l1": regression(l1=0.1),
    "l2 and no steps": regression(l2=0.1, intercept_lr=0.0),
    "Optimal": regression(optimizer=optim.SGD(optim.schedulers.Optimal(optim.losses.Squared()))),
    "InverseScaling": regression(
        intercept_lr=optim.schedulers.InverseScaling(0.1), initializer=optim.initializers.Constant(0.5)
    ),
    "Perceptron": linear_model.Perceptron,
    "ALMAClassifier": linear_model.ALMAClassifier,
    "BayesianLinearRegression": linear_model.BayesianLinearRegression,
}


def pipeline() -> Any:
    return (
        compose.TransformerUnion(
            compose.Select("a", "b") | preprocessing.StandardScaler(),
            compose.Discard("c") | preprocessing.MinMaxScaler() | compose.Prefixer("unit_"),
            compose.Select("c") | preprocessing.OneHotEncoder() | compose.Suffixer("_is"),
            compose.Select("b") | preprocessing.MaxAbsScaler() | compose.Prefixer("share_"),
        )
        | preprocessing.Normalizer()
        | linear_model.LogisticRegression(optimizer=optim.AdaGrad(0.1))
    )


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
@pytest.mark.parametrize("learned", [0, 60])
def test_a_model_learns_on_to_the_bit(make: Make, learned: int, tmp_path: Path) -> None:
    model = make()
    learn(model, numeric(learned, seed=1))
    river_portable.save(model, tmp_path)
    back = river_portable.load(tmp_path)
    assert type(back) is type(model)
    assert state(back) == state(model)
    learn(model, numeric(60, seed=2))
    learn(back, numeric(60, seed=2))
    assert state(back) == state(model)
    for x, _ in numeric(10, seed=3):
        assert back.predict_one(x) == model.predict_one(x)


def test_a_pipeline_learns_on_to_the_bit(tmp_path: Path) -> None:
    model = pipeline()
    learn(model, examples(60, seed=1))
    river_portable.save(model, tmp_path)
    back = river_portable.load(tmp_path)
    assert list(back.steps) == list(model.steps)
    learn(model, examples(60, seed=2))
    learn(back, examples(60, seed=2))
    assert state(back) == state(model)
    assert [back.predict_proba_one(x) for x, _ in examples(20, 3)] == [
        model.predict_proba_one(x) for x, _ in examples(20, 3)
    ]


def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    model = linear_model.LinearRegression(clip_gradient=float("inf"))
    model.intercept = float("nan")
    model._y_name = ("a", {1, 2}, [np.float64(0.1)])
    river_portable.save(model, tmp_path)
    back = river_portable.load(tmp_path)
    assert back.clip_gradient == float("inf")
    assert back.intercept != back.intercept
    assert back._y_name == ("a", {1, 2}, [0.1])
    assert type(back._y_name[2][0]) is np.float64


def shared_optimizer() -> Any:
    optimizer = optim.SGD()
    return compose.Pipeline(
        ("first", linear_model.LogisticRegression(optimizer)), ("second", linear_model.LogisticRegression(optimizer))
    )


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda: first_ranker().to_river(),
            r"Pipeline\['Terms'\]: river\.compose\.func\.FuncTransformer is not portable",
        ),
        (
            tree.HoeffdingTreeClassifier,
            r"^river\.tree\..*HoeffdingTreeClassifier is not portable; .* lists the classes",
        ),
        (
            lambda: preprocessing.StandardScaler(window_size=5),
            r"StandardScaler\.means: a defaultdict of partial is not",
        ),
        (
            lambda: linear_model.LinearRegression(initializer=optim.initializers.Normal()),
            r"LinearRegression\.initializer: river\.optim\.initializers\.Normal is not portable",
        ),
        (shared_optimizer, r"\['second'\]\.optimizer: the same river\.optim\.SGD as .*\['first'\]\.optimizer"),
        (lambda: {"no": "model", "of": object()}, r"dict\['of'\]: builtins\.object is not portable"),
    ],
)
def test_what_is_not_portable_is_refused_by_name(make: Make, problem: str, tmp_path: Path) -> None:
    with pytest.raises(NotPortable, match=problem):
        river_portable.save(make(), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    words = json.loads((folder / WORDS_FILE).read_text())
    change(words)
    (folder / WORDS_FILE).write_text(json.dumps(words))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda words: words.update(format=9), "format 9, not 1"),
        (lambda words: words["model"].update({"class": "os.system"}), "'os.system' is no class that is loaded"),
        (lambda words: words["model"]["state"].pop("l2"), r"of river 9\.9 and of river .* hold different state \(l2\)"),
        (lambda words: words.pop("model"), "KeyError: 'model'"),
        (lambda words: words["model"]["state"].update(l2={"code": "import os"}), "KeyError: 'code'"),
    ],
)
def test_a_document_that_is_wrong_is_refused(
    change: Callable[[dict[str, Any]], None], problem: str, tmp_path: Path
) -> None:
    river_portable.save(linear_model.LinearRegression(), tmp_path)
    rewrite(tmp_path, lambda words: words.update(river_version="9.9"))
    rewrite(tmp_path, change)
    with pytest.raises(UnreadableModel, match=problem):
        river_portable.load(tmp_path)


def test_damaged_and_hostile_numbers_are_refused(tmp_path: Path) -> None:
    model = linear_model.LinearRegression()
    learn(model, numeric(5, seed=1))
    river_portable.save(model, tmp_path)
    numbers = tmp_path / NUMBERS_FILE
    content = numbers.read_bytes()
    numbers.write_bytes(content[:-10])
    with pytest.raises(UnreadableModel, match=r"numbers\.npz is damaged"):
        river_portable.load(tmp_path)

    class Hostile:
        def __reduce__(self) -> Any:
            return pytest.fail, ("a pickle was loaded",)

    np.savez(numbers, a0=np.array([Hostile()], dtype=object), allow_pickle=True)
    import hashlib

    digest = hashlib.sha256(numbers.read_bytes()).hexdigest()
    rewrite(tmp_path, lambda words: words.update(numbers_sha256=digest))
    with pytest.raises(UnreadableModel, match="allow_pickle=False"):
        river_portable.load(tmp_path)


def test_no_pickle_is_made_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = pipeline()
    learn(model, examples(30, seed=1))
    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, lambda *_, **__: pytest.fail("pickle was used"))
    river_portable.save(model, tmp_path)
    assert state(river_portable.load(tmp_path)) == state(model)
    assert sorted(path.name for path in tmp_path.iterdir()) == [NUMBERS_FILE, WORDS_FILE]
