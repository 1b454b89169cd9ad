"""``millrace dlq``: dead letters, and what becomes of them."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import click

from millrace.cli._completing import complete_buried
from millrace.cli._output import print_table, quiet_logs
from millrace.errors import InvalidField, MillraceError
from millrace.settings import KafkaSettings, settings

if TYPE_CHECKING:
    from millrace.inspection.letters import Choice, Letter
    from millrace.inspection.settling import Action
    from millrace.topics import Topic

STATES = ("open", "replayed", "dropped", "all")

_FILTERS = (
    click.option("--worker", "-w", help="Those that this worker could not handle."),
    click.option("--field", "-f", help="Those in which this field was wrong, as `ls` names it."),
    click.option("--reason", "-r", metavar="TEXT", help="Those whose reason holds this text."),
    click.option("--key", "-k", help="Those with this key."),
    click.option("--since", metavar="TIME", help="Those buried since: 15m, 2h, 3d (ago), or ISO 8601."),
    click.option("--where", metavar="EXPRESSION", help="Those whose message fits, as in `millrace tail --where`."),
    click.option(
        "--state",
        type=click.Choice(STATES),
        default="open",
        show_default=True,
        help="What became of them; not for TOPIC@N.",
    ),
)


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    return reduce(lambda wrapped, option: option(wrapped), reversed(_FILTERS), command)


@click.group()
def command() -> None:
    """Dead letters: records that a worker could not handle, with the reason.

    A letter is TOPIC@N, as `ls` prints it. They are kept for 28 days.
    """
    quiet_logs()


@command.command("ls")
@click.argument("topics", nargs=-1, metavar="[TOPIC]...", shell_complete=complete_buried)
@_filters
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest of each topic.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
def list_letters(topics: tuple[str, ...], limit: int, as_json: bool, **filters: str | None) -> None:
    """List dead letters (of all topics, if none is named), oldest first."""
    rows, left_out = [], 0
    for newest, older in _newest(list(_choices(topics, filters)), limit):
        left_out += older
        for letter in newest:
            if as_json:
                click.echo(json.dumps(letter.as_json()))
            else:
                rows.append(_row(letter))
    if rows:
        print_table(("letter", "buried", "worker", "original", "key", "state", "reason"), rows)
    if left_out:
        click.echo(f"{left_out:,} older ones are not shown (-n)", err=True)


@command.command()
@click.argument("letter", metavar="TOPIC@N")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(letter: str, as_json: bool) -> None:
    """Show one dead letter: where it stood, why it could not be handled, and what it says."""
    from millrace.inspection.plain import plain, readable

    found = _one(letter)
    content: dict[str, Any] = {"value": readable(found.value), "problem": found.problem or None}
    if found.message is not None:
        content = {"message": plain(found.message)}
    if as_json:
        click.echo(json.dumps({**found.as_json(), **content}))
    else:
        _print_letter(found, content)


@command.command()
@click.argument("letters", nargs=-1, required=True, metavar="TOPIC[@N]...", shell_complete=complete_buried)
@_filters
@click.option("--dry-run", is_flag=True, help="Say what would be replayed, and replay nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def replay(letters: tuple[str, ...], dry_run: bool, as_json: bool, **filters: str | None) -> None:
    """Send dead letters again, to the worker that failed and to no other.

    Each is replayed once, however often it is asked for. What fails again is a dead letter again, a new one. Event
    times stay what they are. Exit status 1 if no letter fits.
    """
    _settle("replay", letters, filters, dry_run, as_json)


@command.command()
@click.argument("letters", nargs=-1, required=True, metavar="TOPIC[@N]...", shell_complete=complete_buried)
@_filters
@click.option("--dry-run", is_flag=True, help="Say what would be dropped, and drop nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def drop(letters: tuple[str, ...], dry_run: bool, as_json: bool, **filters: str | None) -> None:
    """Mark dead letters as dropped: nobody has to look at them any more.

    They stand in the topic until its retention is over (`ls --state dropped`), and can still be replayed. Exit status 1
    if no letter fits.
    """
    _settle("drop", letters, filters, dry_run, as_json)


def _settle(
    what: Action, letters: Sequence[str], filters: Mapping[str, str | None], dry_run: bool, as_json: bool
) -> None:
    from millrace.inspection.settling import foreseen, settle

    done = {"replay": "replayed", "drop": "dropped"}[what]
    choices = list(_choices(letters, filters))
    settled = (foreseen if dry_run else settle)(_kafka(), what, choices)
    if as_json:
        for name, counts in settled.items():
            said = {"topic": name, done: counts.done, "settled_before": counts.before, "dry_run": dry_run}
            click.echo(json.dumps(said))
    else:
        for name, counts in settled.items():
            before_text = f", {counts.before:,} settled before" if counts.before else ""
            click.echo(f"{name}: {'would be ' if dry_run else ''}{done} {counts.done:,}{before_text}")
    if not any(counts.done or counts.before for counts in settled.values()):
        click.echo("no dead letter fits", err=True)
        sys.exit(1)


def _choices(named: Sequence[str], filters: Mapping[str, str | None]) -> Iterator[tuple[Topic, Choice]]:
    """What is chosen of each topic that is named; of all, if none is."""
    from millrace.events.build import now_ms
    from millrace.inspection.letters import Choice, parse_letter
    from millrace.inspection.start import parse_time
    from millrace.inspection.where import parse
    from millrace.topics import ALL

    buried = {topic.name: topic for topic in ALL if topic.dead_letters}
    if filters["where"] is not None and not named:
        raise InvalidField("where", "each topic has messages of its own", "with the topic named")
    places: dict[str, set[int] | None] = {}
    for topic, place in (parse_letter(text, buried) for text in named or buried):
        known = places.setdefault(topic.name, set())
        if place is None:
            # The whole topic was named as well.
            places[topic.name] = None
        elif known is not None:
            known.add(place)
    since, where, state = filters["since"], filters["where"], filters["state"]
    for name, some in places.items():
        choice = Choice(
            places=frozenset(some or ()),
            state=None if state == "all" else state,  # type: ignore[arg-type]  # one of STATES
            worker=filters["worker"],
            field=filters["field"],
            reason=filters["reason"],
            key=filters["key"],
            since_ms=None if since is None else parse_time(since, now_ms(), "since"),
            fits=None if where is None else parse(where, buried[name].message),
        )
        yield buried[name], choice


def _newest(choices: Sequence[tuple[Topic, Choice]], limit: int) -> Iterator[tuple[Sequence[Letter], int]]:
    """The newest letters of each topic, oldest first, and how many older ones there are."""
    from concurrent.futures import ThreadPoolExecutor

    def read(chosen: tuple[Topic, Choice]) -> tuple[Sequence[Letter], int]:
        newest: deque[Letter] = deque(maxlen=limit)
        found = 0
        for letter in _read(*chosen):
            newest.append(letter)
            found += 1
        return newest, found - len(newest)

    # Side by side: for most topics it is only waiting for a connection to come and go.
    with ThreadPoolExecutor() as readers:
        yield from readers.map(read, choices)


def _read(topic: Topic, choice: Choice) -> Iterator[Letter]:
    from millrace.inspection.letters import chosen

    return chosen(_kafka(), topic, choice)


def _one(name: str) -> Letter:
    from millrace.inspection.letters import Choice, parse_letter
    from millrace.topics import ALL

    topic, place = parse_letter(name, {topic.name: topic for topic in ALL if topic.dead_letters})
    if place is None:
        raise MillraceError(f"which one? {name}@N, as `millrace dlq ls {name}` prints it")
    for letter in _read(topic, Choice(places=frozenset({place}))):
        return letter
    raise MillraceError(
        f"there is no dead letter {name}: `millrace dlq ls {topic.name} --state all` lists those there are"
    )


def _row(letter: Letter) -> Sequence[object]:
    from millrace.cli._records_view import printable, time_text
    from millrace.inspection.plain import readable

    return (
        letter.name,
        time_text(letter.buried_at_ms),
        letter.worker,
        f"{letter.partition}@{letter.offset}",
        printable(readable(letter.key) or ""),
        letter.state,
        printable(letter.reason),
    )


def _print_letter(letter: Letter, content: Mapping[str, Any]) -> None:
    from millrace.cli._records_view import printable, time_text

    known = letter.as_json()
    facts = {
        "letter": f"{letter.name}, {letter.state}",
        "original": f"{letter.topic.name}[{letter.partition}]@{letter.offset}",
        "appended": time_text(letter.appended_at_ms) if letter.appended_at_ms else "",
        "buried": time_text(letter.buried_at_ms),
        "worker": f"{letter.worker}, given {letter.attempts} times" if letter.attempts > 1 else letter.worker,
        "field": letter.field,
        "reason": letter.reason,
        "replay of": letter.replay_of,
        "key": known["key"] or "",
        "headers": ", ".join(f"{name}={value}" for name, value in known["headers"].items()),
    }
    for name, text in facts.items():
        if text:
            click.echo(f"{name:<10} {printable(text)}")
    click.echo()
    if "message" in content:
        click.echo(json.dumps(content["message"], indent=2))
    else:
        click.echo(printable(content["value"] or "(no value)"))


def _kafka() -> KafkaSettings:
    return settings().kafka
