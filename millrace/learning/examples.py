"""Which slots of an outcome are examples, and what an outcome must be to be learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from millrace.errors import InvalidField
from millrace.events.rules import check_id
from millrace.ranking.features import FloatMatrix
from millrace.v1.outcome_pb2 import Label, Outcome

FEATURE_MAX = 1e6
"""Largest size of a feature. Ours are logarithms, shares and counts of a user's recent items, far below; a larger
one would move means and variances for days."""

_LABELS: dict[int, bool] = {Label.LABEL_POSITIVE: True, Label.LABEL_NEGATIVE: False}
_UNSEEN = Label.LABEL_UNSEEN

Examples: TypeAlias = tuple[FloatMatrix, Sequence[bool]]
"""Features of n examples, float32[n, d] in the order of the schema, and whether the user engaged."""


def read_examples(outcome: Outcome, feature_schema: str, features: int) -> Examples:
    """The examples in an outcome, in order. Slots that were probably not seen are none; a failed answer has no slots.

    Parameters
    ----------
    feature_schema, features
        Name of the schema that is learned, and its number of features.

    Raises
    ------
    InvalidField
        The outcome breaks a rule; none of it is to be learned.
    """
    check_id("request_id", outcome.request_id)
    check_id("user_id", outcome.user_id)
    if outcome.slots and outcome.impression.feature_schema != feature_schema:
        raise InvalidField("impression.feature_schema", repr(outcome.impression.feature_schema), feature_schema)
    rows: list[list[float]] = []
    labels: list[bool] = []
    for place, decided in enumerate(outcome.slots):
        label = _LABELS.get(decided.label)
        if label is None:
            if decided.label == _UNSEEN:
                continue
            raise InvalidField(f"slots[{place}].label", str(decided.label), "POSITIVE, NEGATIVE or UNSEEN")
        row = list(decided.slot.features)
        if len(row) != features:
            raise InvalidField(f"slots[{place}].slot.features", f"{len(row)} numbers", f"{features} numbers")
        rows.append(row)
        labels.append(label)
    found = np.array(rows, dtype=np.float32).reshape(-1, features)
    # NaN fails every comparison.
    if not (np.abs(found) <= FEATURE_MAX).all():
        raise _bad_number(outcome)
    return found, labels


def _bad_number(outcome: Outcome) -> InvalidField:
    for place, decided in enumerate(outcome.slots):
        for column, value in enumerate(decided.slot.features):
            if decided.label != _UNSEEN and not abs(value) <= FEATURE_MAX:
                return InvalidField(
                    f"slots[{place}].slot.features[{column}]", str(value), f"a number of at most {FEATURE_MAX:g}"
                )
    raise AssertionError("a number out of range was there a moment ago")
