"""How ``millrace story`` tells a story to people: answer, what the user did, outcomes, parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from millrace.cli._output import print_table, when
from millrace.settings import HOUR_MS, MINUTE_MS
from millrace.topics import MODEL_UPDATES

Plain = Mapping[str, Any]

# Of some twenty weights an update moves nearly all, most of them hardly.
MOVES_SHOWN = 5

_NOT_LEARNED = {
    "not yet": "learned by nobody yet: is the online learner running?",
    "earlier": f"learned before all that {MODEL_UPDATES.name} still keeps ({MODEL_UPDATES.retention_ms // HOUR_MS} h)",
    "no examples": "nothing to learn: slots that were probably not seen are no examples",
}


def print_story(story: Plain) -> None:
    """Print a story (``millrace.story.plain``)."""
    _print_answer(story)
    _heading("What the user did")
    _print_interactions(story["interactions"])
    _heading("Outcomes")
    _print_outcomes(story)
    if story["learning"]:
        _heading("Parameters")
    for number, lesson in enumerate(story["learning"]):
        if number and story["learning"][number - 1]["moves"]:
            click.echo()
        # Outcomes that came together are learned together: the update is told once.
        earlier = [one for one in story["learning"][:number] if one["update"] and one["update"] == lesson["update"]]
        _print_lesson(lesson, told=bool(earlier))


def _heading(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def _print_answer(story: Plain) -> None:
    answer, known = story["answer"], story["answer"]["known"]
    served = f"{when(answer['served_at_ms'])} in {answer['serve_micros'] / 1_000:.1f} ms"
    if answer["as_of_given"]:
        served += f", a time that the request gave; appended {when(answer['appended_at_ms'])}"
    model = f"{answer['model_name']} version {answer['model_version']}" if answer["model_version"] else "no model"
    if answer["learner_epoch"]:
        model += f", learned up to update {answer['learner_epoch']}.{answer['learner_sequence']}"
    facts = [
        ("request", story["request_id"]),
        ("user", story["user_id"]),
        ("served", served),
        ("status", answer["status"] + ("" if answer["fallback"] == "none" else f", fallback: {answer['fallback']}")),
        ("ranked by", model),
        ("experiment", f"{answer['experiment_id']}, arm {answer['arm']}" if answer["experiment_id"] else ""),
        ("order", "random, so that models can be evaluated" if answer["shuffled"] else ""),
        ("segment", answer["segment"]),
        ("knew the user", f"up to {_position(known)}" if known else "not at all"),
        ("candidates", answer["candidates"]),
        ("record", _position(answer["position"])),
    ]
    for name, value in facts:
        if value:
            click.echo(f"{name:<15} {value}")
    click.echo()
    if story["slots"]:
        print_table(
            ("rank", "item", "score", "sources", "what came of it"),
            [
                (one["rank"] + 1, one["item_id"], f"{one['score']:.4f}", ", ".join(one["sources"]), _came_of(one))
                for one in story["slots"]
            ],
        )


def _came_of(slot: Plain) -> str:
    if slot["by"]:
        return f"{slot['label']}: {slot['by']} after {slot['after_s']:.1f} s"
    return str(slot["label"])


def _print_interactions(interactions: Sequence[Plain]) -> None:
    if not interactions:
        click.echo("nothing that names this answer or decided one of its slots")
        return
    print_table(
        ("after", "type", "item", "event", "record", ""),
        [
            (
                f"{one['after_s']:.1f} s",
                one["custom_type"] or one["type"],
                one["item_id"],
                one["event_id"],
                _position(one["position"]),
                ", ".join(_notes(one)),
            )
            for one in interactions
        ],
    )


def _notes(interaction: Plain) -> list[str]:
    notes = [] if interaction["names_answer"] else ["named no answer"]
    return [*notes, "sent again: counts once"] if interaction["repeated"] else notes


def _print_outcomes(story: Plain) -> None:
    if story["outcomes"]:
        print_table(
            ("decided", "slots", "labels", "origin", "", "record"),
            [
                (
                    when(one["decided_at_ms"]),
                    len(one["ranks"]),
                    ", ".join(f"{count} {label}" for label, count in one["labels"].items()),
                    one["origin"],
                    ", ".join(name for name in ("first", "final") if one[name]),
                    _position(one["position"]),
                )
                for one in story["outcomes"]
            ],
        )
    if missing := _undecided(story):
        click.echo(missing)


def _undecided(story: Plain) -> str:
    standing = story["standing"]
    if standing == "decided":
        return ""
    if standing == "no slots":
        return "no outcome: an answer without items has nothing to decide"
    left = sum(one["label"] == "open" for one in story["slots"])
    what = f"{_slots(left)} still open" if story["outcomes"] else "no outcome yet"
    if standing == "forgotten":
        return f"{what}, and none will come: the user asked to be forgotten"
    window = f"the window of {_span(story['window_ms'])} (MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS as set here)"
    ends = when(story["window_ends_at_ms"])
    if standing == "overdue":
        return f"{what}, though {window} was over at {ends}: is the outcome joiner running?"
    clock = " by the clock of the events" if story["answer"]["as_of_given"] else ""
    return f"{what}: {window} is open until {ends}{clock}"


def _print_lesson(lesson: Plain, told: bool) -> None:
    what, update, place = lesson["learned"], lesson["update"], _position(lesson["outcome"])
    if what == "refused":
        click.echo(f"{place}: refused by the learner, which sent it to its dead letters ({lesson['refusal']})")
    elif what in _NOT_LEARNED:
        click.echo(f"{place}: {_NOT_LEARNED[what]}")
    else:
        slots = "" if lesson["slots"] is None else f", with {_slots(lesson['slots'])} in all"
        click.echo(
            f"{place}: learned {lesson['delay_ms']:,} ms after its append by update {update['epoch']}."
            f"{update['sequence']} of model {update['model_name']} at {when(update['created_at_ms'])}{slots}"
        )
        if not told:
            _print_moves(lesson)


def _print_moves(lesson: Plain) -> None:
    moves = lesson["moves"]
    if moves is None:
        click.echo(f"what it moved is not known: {MODEL_UPDATES.name} keeps no values from before it")
        return
    click.echo(f"it moved {lesson['update']['parameters']} parameters; the weights that it moved most:")
    print_table(
        ("weight of", "before", "after", "change"),
        [
            (one["parameter"], f"{one['before']:.6f}", f"{one['after']:.6f}", f"{one['after'] - one['before']:+.6f}")
            for one in moves[:MOVES_SHOWN]
        ],
    )


def _position(position: Plain) -> str:
    return f"{position['topic']}[{position['partition']}]@{position['offset']}"


def _slots(count: int) -> str:
    return f"{count} slot" if count == 1 else f"{count} slots"


def _span(duration_ms: int) -> str:
    return f"{duration_ms // MINUTE_MS} min" if duration_ms % MINUTE_MS == 0 else f"{duration_ms / 1_000:g} s"
