"""The console on the real stack: pages of what is there, streams of what comes, a click and what follows from it."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from typing import Any
from urllib.parse import urlencode

import pytest

from millrace.inspection.letters import read_letters
from millrace.stream.codec import encode
from millrace.topics import DRIFT_SIGNALS, INTERACTIONS
from millrace.v1.drift_pb2 import DriftChannel, DriftEvidence, DriftSignal
from tests.gateway_stack import Running, StartStack
from tests.gateway_support import TIMEOUT_S, Answer
from tests.processes import in_time
from tests.stream_support import headers_of, read_all, send

HOSTILE = "<script>alert(1)</script>"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"


@pytest.fixture(scope="module")
def running(gateway_stack: StartStack) -> Iterator[Running]:
    """A test plays the drift detector too."""
    env = {"MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS": "1000", "MILLRACE_GATEWAY_COMMAND_WAIT_MS": "100"}
    with gateway_stack(env, more=["outcome_joiner"]) as found:
        title = {"item_id": "i-1", "title": HOSTILE, "category": "hats", "price": 9.5}
        assert found.gateway.ask("POST", "/api/v1/items", title).status == 202
        clicks = [{"user_id": f"u{n % 7}", "item_id": f"i-{n % 5}", "session_id": f"s{n % 7}"} for n in range(60)]
        assert found.gateway.ask("POST", "/api/v1/event", clicks).status == 202
        in_time(lambda: len(found.gateway.ask("GET", "/api/v1/recommend?user_id=u1&k=5").json["items"]) == 5)
        yield found


def page(running: Running, path: str, status: int = 200) -> str:
    answer = running.gateway.ask("GET", path)
    text = answer.body.decode()
    assert answer.status == status, text
    assert "<script>" not in text
    return text


def posted(running: Running, path: str, fields: Mapping[str, str], **headers: str) -> Answer:
    """A form sent from a page of the gateway itself."""
    connection = http.client.HTTPConnection(running.gateway.address, timeout=TIMEOUT_S)
    own = {"Origin": f"http://{running.gateway.address}", "Content-Type": "application/x-www-form-urlencoded"}
    try:
        connection.request("POST", path, urlencode(fields), own | headers)
        got = connection.getresponse()
        return Answer(got.status, dict(got.getheaders()), got.read())
    finally:
        connection.close()


@contextmanager
def stream(running: Running, path: str) -> Iterator[Iterator[tuple[str, Any]]]:
    """The events of a page, as a browser takes them."""
    connection = http.client.HTTPConnection(running.gateway.address, timeout=TIMEOUT_S)
    connection.request("GET", path, headers={"Accept": "text/event-stream"})
    response = connection.getresponse()
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/event-stream")

    def events() -> Iterator[tuple[str, Any]]:
        name = ""
        while line := response.readline():
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)

    try:
        yield events()
    finally:
        connection.close()


def field(text: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', text)
    assert found is not None
    return unescape(found[1])


def test_now_is_a_reading_a_second(running: Running) -> None:
    with stream(running, "/console/now/stream") as events:
        name, history = next(events)
        assert (name, history) == ("history", [])
        fragments: list[Any] = []
        readings: list[Any] = []
        for name, content in events:
            (readings if name == "reading" else fragments).append(content)
            if len(readings) == 2:
                running.gateway.ask("POST", "/api/v1/event", [{"user_id": "now", "item_id": "i-1"}] * 20)
            # A process that is busy may answer the next time.
            well = fragments and fragments[-1]["html"].count("well</span>") >= 5
            if any(one["rates"]["events"] for one in readings) and well:
                break
    text = fragments[-1]["html"]
    assert "Nobody would notice a change of the world" in text, "what it means that the detector is not there"
    assert re.search(r"outcome joiner</strong>\s*<span class=\"muted\">impressions", text)
    # Who opens another page meanwhile finds what was measured.
    with stream(running, "/console/now/stream") as events:
        assert next(events)[1]
    assert "Feature updater" in page(running, "/")


def test_a_tail_follows_what_is_looked_for(running: Running) -> None:
    with stream(
        running, f"/console/topics/interactions/stream?{urlencode({'user': 'tail', 'kind': 'like'})}"
    ) as events:
        sent = [
            {"user_id": "tail", "item_id": "i-1", "type": "like"},
            {"user_id": "tail", "item_id": "i-2", "type": "click"},
            {"user_id": "other", "item_id": "i-3", "type": "like"},
        ]
        running.gateway.ask("POST", "/api/v1/event", sent)
        found = next(content for name, content in events if name == "rows" and content["rows"])
    [row] = found["rows"]
    assert (row["kind"], row["user"], row["items"]) == ("like", "tail", "i-1")
    assert found["matched"] == 1
    assert ESCAPED not in page(running, row["href"])
    assert "INTERACTION_TYPE_LIKE" in page(running, row["href"])


def test_one_can_jump_to_a_time_or_an_offset_and_go_on(running: Running) -> None:
    running.gateway.ask("POST", "/api/v1/event", [{"user_id": "jump", "item_id": f"j-{n}"} for n in range(70)])

    def items(text: str) -> list[str]:
        return re.findall(r">(j-\d+)<", text)

    first = page(running, "/console/topics/interactions?user=jump&at=10+min+ago")
    found = re.search(r'href="([^"]+goes_on[^"]+)"', first)
    assert found is not None
    second = page(running, unescape(found[1]))
    assert items(first) + items(second) == [f"j-{n}" for n in range(70)]
    where = re.search(r"/console/topics/interactions/(\d+)/(\d+)", second)
    assert where is not None
    partition, offset = where.groups()
    there = page(running, f"/console/topics/interactions?partition={partition}&offset={offset}")
    assert items(there)[0] == items(second)[0]
    beyond = page(running, f"/console/topics/interactions?partition={partition}&offset=99999999")
    assert "Nothing here" in beyond
    assert "holds no message" in page(running, f"/console/topics/interactions/{partition}/99999999", 404)


def test_a_click_changes_the_next_answer_and_has_a_story(running: Running) -> None:
    text = page(running, "/console/recommend?user=me")
    assert "Nothing is known of this user" in text
    assert ESCAPED in text
    fields = {name: field(text, name) for name in ("user", "request", "shown")}
    clicked = json.loads(fields["shown"])[1]
    fields |= {"kind": "click", "item": clicked}
    answer = posted(running, "/console/recommend/deed", fields, **{"X-Part": "answer"})
    part = answer.body.decode()
    assert answer.status == 200
    assert "<html" not in part
    assert "which knows it, was ready after" in part
    assert "Ranked by version 1 of ranker" in part
    [event] = running.interactions("me")
    assert (event.item_id, event.request_id) == (clicked, fields["request"])

    # Once learned, the weights are published, and say why each item has its score.
    in_time(lambda: "Why this chance" in page(running, "/console/recommend?user=me"))
    story = f"/console/story?{urlencode({'request': fields['request'], 'user': 'me'})}"
    in_time(lambda: "learned it" in page(running, story))
    told = page(running, story)
    assert f'<b class="id">{clicked}</b>' in told
    assert "seen, not clicked" in told
    assert "→" in told.split("What was learned")[1]
    where = re.search(r"/console/topics/interactions/\d+/\d+", told)
    assert where is not None
    message = page(running, where[0])
    assert "What it changed" in message
    assert 'data-load="/console/story?' in message
    assert "no answer &#39;nobody&#39;" in page(running, "/console/story?request=nobody&user=me", 404)


def test_who_was_answered_lately_is_offered(running: Running) -> None:
    running.gateway.ask("GET", "/api/v1/recommend?user_id=%3Cb%3Elately")
    in_time(lambda: "&lt;b&gt;lately" in page(running, "/console/recommend"))


def test_learning_shows_what_the_model_makes_of_things(running: Running) -> None:
    running.gateway.ask("POST", "/api/v1/mlops/online-learning/trigger?wait_ms=30000")
    with stream(running, "/console/learning/stream") as events:
        found = next(one["html"] for name, one in events if name == "html" and "<tbody>" in one["html"])
    assert "clicks per view" in found
    assert "Newest update" in page(running, "/console/learning")


def test_versions_are_promoted_by_a_page_of_ours_only(running: Running) -> None:
    running.tell("REGISTERED", "2", reason=HOSTILE, model="ranker", figures={"better.gain": 0.012})
    in_time(lambda: ESCAPED in page(running, "/console/models"))
    assert "surely better than the champion" in page(running, "/console/models")
    fields = {"action": "promote", "version": "2", "reason": HOSTILE}
    assert posted(running, "/console/models/act", fields, Origin="http://evil.example").status == 403
    assert [one for one in running.commands() if one.HasField("promote")] == []

    # The orchestrator is not there: the command stands, and the page says so.
    told = posted(running, "/console/models/act", fields).body.decode()
    assert "It is asked for, and not done yet" in told
    [command] = {one.command_id: one for one in running.commands() if one.HasField("promote")}.values()
    assert (command.promote.model_version, command.reason, command.issued_by) == ("2", HOSTILE, "console")
    running.tell("PROMOTED", "2", command.command_id, model="ranker", previous_version="1")
    in_time(lambda: "Champion: version 2" in page(running, "/console/models"))
    assert "Go back to version 1?" in page(running, "/console/models/confirm?action=rollback")
    with stream(running, "/console/models/stream") as events:
        assert "Champion: version 2" in next(events)[1]["html"]


def test_an_experiment_is_shown_as_it_goes(running: Running) -> None:
    arms = [{"name": HOSTILE, "share": 0.5, "control": True}, {"name": "live", "share": 0.5}]
    body = {"experiment_id": "a b/c", "traffic": 1.0, "arms": arms, "description": HOSTILE}
    assert running.settled("/api/v1/mlops/experiments", "d-1", body).status == 201
    assert "not started yet" in page(running, "/console/experiments")
    assert running.settled("/api/v1/mlops/experiments/a%20b%2Fc/start", "s-1").status == 200
    text = page(running, "/console/experiments/a%20b/c")
    assert ESCAPED in text
    with stream(running, "/console/experiments-stream?experiment=a+b%2Fc") as events:
        assert "Running" in next(events)[1]["html"]
    assert running.settled("/api/v1/mlops/experiments/a%20b%2Fc/stop", "e-1").status == 200
    in_time(lambda: "Stopped" in page(running, "/console/experiments/a%20b/c"))


def test_drift_is_shown_against_its_threshold(running: Running) -> None:
    text = page(running, "/console/drift")
    assert "The drift detector does not answer" in text
    assert "No signal in the last four weeks" in text
    evidence = DriftEvidence(name="age", method=HOSTILE, statistic=4, threshold=2)
    channel = DriftChannel.DRIFT_CHANNEL_INPUT
    signals = [
        DriftSignal(signal_id="s", model_name="ranker", channel=channel, at_ms=at, holds=True, evidence=[evidence])
        for at in (1, 2)
    ]
    send(running.kafka, DRIFT_SIGNALS, [("ranker", *encode(signal)) for signal in signals])
    text = page(running, "/console/drift")
    assert ESCAPED in text
    assert "Scores of how long it exists over time" in text


def test_dead_letters_say_why_they_are_dead(running: Running) -> None:
    assert "Every message so far" in page(running, "/console/dead-letters")
    send(running.kafka, INTERACTIONS, [(HOSTILE, b"\xff\xfe", [("schema", b"millrace.v1.Interaction")])])
    in_time(lambda: "not protobuf" in page(running, "/console/dead-letters"))
    text = page(running, "/console/dead-letters")
    assert ESCAPED in text
    where = re.search(r"/console/dead-letters/interactions/\d+/\d+", text)
    assert where is not None
    letter = page(running, where[0])
    assert "ff fe" in letter
    original = re.search(r'href="(/console/topics/interactions/\d+/\d+)"', letter)
    assert original is not None
    assert "It is not what this topic carries" in page(running, original[1])


def test_a_dead_letter_is_replayed_once_by_a_page_of_the_console(running: Running) -> None:
    found = re.search(r'href="(/console/dead-letters/confirm\?[^"]*worker=feature_updater[^"]*)"', letters(running))
    assert found is not None
    again = unescape(found[1])
    asked = page(running, again)
    assert "Replay one message of interactions?" in asked
    fields = {name: field(asked, name) for name in ("topic", "place", "worker", "reason", "until")}
    refused = posted(running, "/console/dead-letters/replay", fields, Origin="http://elsewhere.example")
    assert refused.status == 403
    assert posted(running, "/console/dead-letters/replay", fields).status == 200
    # What is not mended fails again: a letter of its own, of which a form that is sent again knows nothing.
    in_time(lambda: letters(running).count("<td>feature updater</td>") == 2)
    assert b"Nothing was left to replay" in posted(running, "/console/dead-letters/replay", fields).body
    replays = [headers_of(record).get("replay.worker") for record in read_all(running.kafka, INTERACTIONS.name)]
    assert [worker for worker in replays if worker] == [b"feature_updater"]
    [settled] = [one for one in read_letters(running.kafka, INTERACTIONS) if one.state == "replayed"]
    query = urlencode({"topic": "interactions", "place": settled.place})
    assert "Nothing was left to replay" in page(running, f"/console/dead-letters/confirm?{query}")
    for query in ("topic=impressions-of-others", "topic=interactions&place=-1", "topic=item-state"):
        page(running, f"/console/dead-letters/confirm?{query}", 422 if "place" in query else 404)


def letters(running: Running) -> str:
    return page(running, "/console/dead-letters")


def test_pages_that_are_open_do_not_keep_a_gateway_from_ending(running: Running) -> None:
    with stream(running, "/console/now/stream") as events:
        next(events)
        assert running.gateway.child.terminate() == 0
