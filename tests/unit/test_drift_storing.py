"""The reference of a model version as a file: it comes back as it was, or is refused with the reason."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from millrace.drift.block import Baseline, Block
from millrace.drift.hours import Hours
from millrace.drift.reference import AnyReference, Reference
from millrace.drift.storing import Labels, ModelReference, UnusableReference

IMPOSSIBLE = {"ratio": 1, "rate": 2, "error": 1, "dispersion": 1, "hours": []}


def reference() -> ModelReference:
    rng = np.random.default_rng(3)
    days = np.repeat([0, 1], 100)
    values: tuple[AnyReference, ...] = (
        Reference.of_numbers("age", np.append(rng.normal(size=199), np.nan), days),
        Reference.of_names("device", ["phone", None] * 100, days),
        Reference.of_numbers("never there", np.full(5, np.nan)),
    )
    clicks = Labels(Baseline.of([Block(1_000, 50.0, 1_000.0)] * 3), Hours((0.5, 1.5) * 12))
    return ModelReference(values, {"click-through": clicks, "calibration": Labels(Baseline(1.0, 0.05, 0.01, 2.5))})


def test_a_reference_comes_back_as_it_was() -> None:
    before = reference()
    content = before.to_bytes()
    after = ModelReference.from_bytes(content)
    assert before.to_bytes() == content == after.to_bytes()
    assert [each.name for each in after.values] == ["age", "device", "never there"]
    for one, two in zip(before.values, after.values, strict=True):
        assert (one.blocks == two.blocks).all()
        assert (one.missing == two.missing).all()
    assert after.values[0].counts.missing == 1
    assert after.values[1].cells == before.values[1].cells
    assert after.labels == before.labels


def test_a_version_without_a_reference_has_an_empty_one() -> None:
    assert ModelReference.from_bytes(ModelReference().to_bytes()) == ModelReference()


def test_a_damaged_file_is_refused_with_the_reason() -> None:
    content = reference().to_bytes()
    for wrong in (b"", b"no zip", content[: len(content) // 2]):
        with pytest.raises(UnusableReference, match="damaged"):
            ModelReference.from_bytes(wrong)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({"format": 9}, "format 9"),
        ({"format": 1, "values": []}, "damaged: KeyError"),
        ({"format": 1, "values": [], "labels": []}, "damaged: AttributeError"),
        ({"format": 1, "values": [{"name": "x", "names": None}], "labels": {}}, "damaged: KeyError"),
        (
            {
                "format": 1,
                "values": [],
                "labels": {"a": {"ratio": 1, "rate": 2, "error": 1, "dispersion": 1, "hours": []}},
            },
            "rate above 0 and below 1",
        ),
    ],
)
def test_a_foreign_file_is_refused_with_the_reason(words: dict[str, object], problem: str) -> None:
    file = io.BytesIO()
    np.savez(file, words=np.frombuffer(json.dumps(words).encode(), dtype=np.uint8))
    with pytest.raises(UnusableReference, match=problem):
        ModelReference.from_bytes(file.getvalue())


def test_a_pickle_is_never_loaded() -> None:
    file = io.BytesIO()
    np.savez(file, words=np.array([{"format": 1}], dtype=object))
    with pytest.raises(UnusableReference, match="damaged: ValueError"):
        ModelReference.from_bytes(file.getvalue())
