"""Gates that a trained version has to pass before it may be a challenger, as tags of the version.

========================== ======================================================================================
tag                        value
========================== ======================================================================================
millrace.gates             passed, or failed with the names of the gates and why: what decides
millrace.gate.NAME         passed or failed, with the reason
millrace.gate.NAME.FIGURE  each number that it was decided by, its bound included
========================== ======================================================================================

``millrace.reason`` says why it was trained. The tags are there from the version's first moment. A version without
``millrace.gates`` was not trained: the first one has fixed weights and nothing to be compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

GATES_TAG = "millrace.gates"
GATE_PREFIX = "millrace.gate."
REASON_TAG = "millrace.reason"
PASSED, FAILED = "passed", "failed"

# MLflow refuses longer values.
_VALUE_MAX_CHARS = 4_000


@dataclass(frozen=True, slots=True)
class Gate:
    """What one gate says.

    Attributes
    ----------
    name
        In tags: letters and underscores.
    reason
        For people, with the bound that it was held to.
    figures
        The numbers that it was decided by.
    """

    name: str
    passed: bool
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)


def gate_tags(gates: Sequence[Gate]) -> dict[str, str]:
    """Gates as tags of a version."""
    failed = [f"{gate.name} ({gate.reason})" for gate in gates if not gate.passed]
    tags = {GATES_TAG: f"{FAILED}: {', '.join(failed)}"[:_VALUE_MAX_CHARS] if failed else PASSED}
    for gate in gates:
        name = GATE_PREFIX + gate.name
        tags[name] = f"{PASSED if gate.passed else FAILED}: {gate.reason}"[:_VALUE_MAX_CHARS]
        tags |= {f"{name}.{figure}": f"{value:.6g}" for figure, value in gate.figures.items()}
    return tags


def against_serving(tags: Mapping[str, str]) -> str:
    """Why a version with these tags must not serve, not even a part of the traffic; empty if it may."""
    verdict = tags.get(GATES_TAG, PASSED)
    return "" if verdict == PASSED else f"gates {verdict}"


def gates_of(tags: Mapping[str, str]) -> list[Gate]:
    """The gates in a version's tags, as ``gate_tags`` wrote them."""
    found, numbers = [], figures(tags)
    for tag, value in tags.items():
        name = tag.removeprefix(GATE_PREFIX)
        if tag != name and "." not in name:
            verdict, _, reason = value.partition(": ")
            mine = f"{name}."
            own = {each.removeprefix(mine): number for each, number in numbers.items() if each.startswith(mine)}
            found.append(Gate(name, verdict == PASSED, reason, own))
    return found


def figures(tags: Mapping[str, str]) -> dict[str, float]:
    """The numbers in a version's tags, as ``NAME.FIGURE`` -> value; what is no number is left out."""
    found = {}
    for tag, value in tags.items():
        if tag.startswith(GATE_PREFIX) and "." in tag.removeprefix(GATE_PREFIX):
            try:
                found[tag.removeprefix(GATE_PREFIX)] = float(value)
            except ValueError:
                continue
    return found
