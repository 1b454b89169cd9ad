"""What a training run says of itself on its page in MLflow: why, on what, how good, and whether it may serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from millrace.registry.gates import Gate
from millrace.training.intake import Intake
from millrace.training.measure import Measured


def note(
    reason: str,
    champion: str,
    intake: Intake,
    span_ms: tuple[int, int] | None,
    since_ms: int,
    chosen: str,
    measured: Measured,
    names: Mapping[str, str],
    verdicts: Sequence[Gate],
) -> str:
    """Markdown.

    Parameters
    ----------
    champion
        The version that serves; it was measured beside the new one if it has the same features.
    span_ms
        Times at which the first and the last outcome were appended, Unix milliseconds; None if there was none.
    since_ms
        When the world changed, Unix milliseconds; 0 if it did not.
    chosen
        The way to fit that was chosen.
    names
        Contender -> its name for people.
    """
    failed = [gate for gate in verdicts if not gate.passed]
    verdict = "**May serve**" if not failed else "**Never serves**: fails " + ", ".join(gate.name for gate in failed)
    span = f", appended {_time(span_ms[0])} to {_time(span_ms[1])}" if span_ms else ""
    changed = (
        f" The world changed at {_time(since_ms)}: chosen and judged by what was served since." if since_ms else ""
    )
    lines = [
        f"{verdict}. Trained because: {reason}. Champion at the time: version {champion}.",
        "",
        f"{intake.outcomes:,} outcomes with {intake.examples:,} examples and {intake.clicks:,} clicks{span}.{changed} "
        f"Chosen way to fit: {chosen}; `candidates.json` has the others, `input.json` the offsets, which `--input` "
        "reads again.",
        "",
        "| on the newest slots | log loss | calibration error |",
        "|---|---|---|",
        *(
            f"| {names.get(name, name)} | {measured.loss(name):.5f} | {measured.calibration[name].error:.4f} |"
            for name in measured.losses
        ),
        "",
        "| gate | | |",
        "|---|---|---|",
        *(f"| {gate.name} | {'passed' if gate.passed else '**failed**'} | {gate.reason} |" for gate in verdicts),
        "",
        "Pictures are in `plots`: calibration, lift by segment of users, features that moved within the window. "
        "`model/reference.npz` is what the drift detector compares traffic with.",
    ]
    return "\n".join(lines) + "\n"


def _time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1_000, UTC):%Y-%m-%d %H:%M UTC}"
