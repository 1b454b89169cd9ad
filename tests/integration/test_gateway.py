"""The gateway on the real stack: what it takes reaches the topics, what it shows comes from them."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from millrace.events.build import now_ms
from millrace.settings import DAY_MS, RedisSettings, Settings
from millrace.stream.codec import encode
from millrace.topics import (
    DRIFT_DETECTOR_CHANGELOG,
    DRIFT_SIGNALS,
    INTERACTIONS,
    ITEMS,
    MODEL_EVENTS,
    OUTCOMES,
)
from millrace.v1.detector_pb2 import DetectorState, WatchedLook, WatchedRest
from millrace.v1.drift_pb2 import DriftChannel, DriftEvidence, DriftSignal
from millrace.v1.interaction_pb2 import InteractionType
from millrace.v1.item_pb2 import Item
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from millrace.v1.outcome_pb2 import Outcome
from tests.conftest import StartProcess
from tests.described import keep_their_description
from tests.gateway_stack import Running, StartStack
from tests.gateway_support import Answer, Gateway
from tests.learning_support import outcomes
from tests.processes import PATIENCE_S, in_time
from tests.stream_support import read_all, send
from workers.retrain_orchestrator.training_erasures import Erasures, forgotten

ARMS = [
    {"name": "frozen", "share": 0.5, "control": True, "settings": {"parameters": "registered"}},
    {"name": "live", "share": 0.5},
]


@pytest.fixture(scope="module")
def running(gateway_stack: StartStack) -> Iterator[Running]:
    # By itself the learner would learn in an hour.
    with gateway_stack(learner={"ONLINE_LEARNING_INTERVAL_MS": "3600000"}) as found:
        yield found


def known(running: Running, user_id: str) -> Answer:
    """The user's features, once there are some that nothing is missing from."""
    found: list[Answer] = []

    def whole() -> bool:
        found.append(running.gateway.ask("GET", f"/api/v1/users/{user_id}/features"))
        return found[-1].status == 200 and found[-1].json["staleness_ms"] == 0

    in_time(whole)
    return found[-1]


def test_an_event_is_on_the_log_when_it_is_answered_and_counts_once(running: Running) -> None:
    event = {"user_id": "ann", "item_id": "shoe", "type": "purchase", "value": 59.9, "device": "phone"}
    for _ in range(2):
        answer = running.gateway.ask("POST", "/api/v1/event", event, Idempotency_Key="order-7")
        assert (answer.status, answer.json) == (202, {"accepted": 1, "ids": ["order-7"], "failed": []})
    first, second = running.interactions("ann")
    assert (first.event_id, first.value, first.context.device) == ("order-7", 59.9, "phone")
    assert second.event_id == "order-7"

    features = known(running, "ann").json
    assert features["counts"] == {"purchase": 1}
    assert features["recent"][0]["item_id"] == "shoe"


def test_of_ten_thousand_events_three_are_bad(running: Running) -> None:
    batch: list[object] = [{"user_id": "many", "item_id": f"i-{number % 50}"} for number in range(10_000)]
    batch[17], batch[5_000], batch[9_999] = {"user_id": "many"}, "click", {"user_id": "many", "item_id": "i", "k": 1}
    answer = running.gateway.ask("POST", "/api/v1/event", batch, Idempotency_Key="b")
    assert answer.status == 207
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["accepted"] == 9_997
    assert [(one["index"], one["field"], one["status"]) for one in answer.json["failed"]] == [
        (17, "item_id", 422),
        (5_000, "body", 422),
        (9_999, "k", 422),
    ]
    ids = [None if place in (17, 5_000, 9_999) else f"b.{place}" for place in range(10_000)]
    assert answer.json["ids"] == ids
    assert [one.event_id for one in running.interactions("many")] == [one for one in ids if one]


def test_items_reach_their_topic(running: Running) -> None:
    one = {"item_id": "hat", "title": "<b>Hat</b>", "price": 10, "tags": ["red"]}
    assert running.gateway.ask("POST", "/api/v1/items", one).json["ids"] == ["hat"]
    both = running.gateway.ask("POST", "/api/v1/items", [{"item_id": "sock"}, {"item_id": "sock", "price": -1}])
    assert (both.status, both.json["failed"][0]["field"]) == (207, "price")
    found = [Item.FromString(message.value() or b"") for message in read_all(running.kafka, ITEMS.name)]
    assert Item(item_id="hat", title="<b>Hat</b>", price=10, tags=["red"]) in found
    assert Item(item_id="sock") in found


def test_it_recommends(running: Running) -> None:
    running.gateway.ask("POST", "/api/v1/event", [{"user_id": f"u{n}", "item_id": f"i-{n % 5}"} for n in range(20)])
    known(running, "u19")
    asked = {
        "user_id": "u1",
        "k": 3,
        "exclude": ["i-1"],
        "request_id": "mine",
        "context": {"device": "tv"},
        "explain": True,
    }

    in_time(lambda: len(running.gateway.ask("POST", "/api/v1/recommend", asked).json["items"]) == 3)
    answer = running.gateway.ask("POST", "/api/v1/recommend", asked).json
    assert answer["request_id"] == "mine"
    assert answer["known"]["topic"] == INTERACTIONS.name
    assert all(len(item["features"]) == len(answer["feature_names"]) for item in answer["items"])
    assert "i-1" not in [item["item_id"] for item in answer["items"]]
    told = running.gateway.ask("GET", "/api/v1/recommend?user_id=nobody%20yet&k=2&exclude=i-1&exclude=i-2&device=tv")
    assert (told.status, told.json["fallback"], told.json["known"]) == (200, "unknown_user", None)
    assert not {"i-1", "i-2"} & {item["item_id"] for item in told.json["items"]}


def test_features_say_how_stale_they_are(running: Running) -> None:
    running.gateway.ask("POST", "/api/v1/event", {"user_id": "old one", "item_id": "shoe"})
    path = "/api/v1/users/old%20one/features"
    before = known(running, "old%20one").json
    os.kill(running.updater.pid, signal.SIGSTOP)
    try:
        running.gateway.ask("POST", "/api/v1/event", {"user_id": "old one", "item_id": "hat"})
        in_time(lambda: running.gateway.ask("GET", path).json["staleness_ms"])
        assert running.gateway.ask("GET", path).json["counts"] == before["counts"]
    finally:
        os.kill(running.updater.pid, signal.SIGCONT)
    assert known(running, "old%20one").json["counts"] == {"click": 2}


def test_a_person_is_forgotten(running: Running) -> None:
    running.gateway.ask("POST", "/api/v1/event", {"user_id": "gone/soon", "item_id": "shoe"})
    known(running, "gone%2Fsoon")
    before_ms = now_ms()
    answer = running.gateway.ask("DELETE", "/api/v1/users/gone%2Fsoon")
    assert (answer.status, answer.json["user_id"]) == (202, "gone/soon")
    ends = answer.json["logs_end_ms"]
    assert set(ends) == {
        *("interactions", "interactions.dlq", "impressions", "impressions.dlq"),
        *("outcomes", "outcomes.dlq"),
    }
    assert 28 * DAY_MS < ends["outcomes"] - before_ms < 32 * DAY_MS
    assert 7 * DAY_MS < ends["interactions"] - before_ms < 9 * DAY_MS
    [*_, event] = running.interactions("gone/soon")
    assert (event.event_id, event.type) == (answer.json["event_id"], InteractionType.INTERACTION_TYPE_FORGET)
    in_time(lambda: running.gateway.ask("GET", "/api/v1/users/gone%2Fsoon/features").status == 404)
    assert running.gateway.ask("DELETE", "/api/v1/users/%00").json["field"] == "user_id"

    # What a training job goes by.
    values = Settings()
    values.redis = RedisSettings(url=running.env["REDIS_URL"])
    with Erasures(values) as erasures:
        erased = erasures.of(["gone/soon", "nobody", "ann"])
    assert list(erased) == ["gone/soon"]
    assert before_ms <= erased["gone/soon"] <= now_ms()
    outcome = Outcome(user_id="gone/soon", decided_at_ms=before_ms)
    assert forgotten(outcome, now_ms() + 1_000, erased), "joined a moment after the erasure, from before it"
    outcome.impression.served_at_ms = now_ms() + 1_000
    assert not forgotten(outcome, now_ms() + 1_000, erased)


@pytest.mark.parametrize("user_id", ["nobody", "..%2F..%2Fetc%2Fpasswd", "%2E%2E", "a%2Fb", "%F0%9F%91%9F"])
def test_nothing_is_known_of_who_never_came(running: Running, user_id: str) -> None:
    answer = running.gateway.ask("GET", f"/api/v1/users/{user_id}/features")
    assert (answer.status, answer.json["type"]) == (404, "urn:problem-type:millrace:not-found")


def test_the_learner_learns_when_it_is_told(running: Running) -> None:
    send(running.kafka, OUTCOMES, [(outcome.user_id, *encode(outcome)) for outcome in outcomes(10, slots=5)])
    trigger = "/api/v1/mlops/online-learning/trigger"
    sent = running.gateway.ask("POST", trigger, {"reason": "a test"}, Idempotency_Key="t-1")
    assert (sent.status, sent.json) == (202, {"command_id": "t-1", "settled": False})
    answer = running.settled(f"{trigger}?wait_ms=5000", "t-1")
    assert answer.status == 200
    assert answer.json["settled"] is True
    assert {(one.command_id, one.reason, one.issued_by) for one in running.commands() if one.command_id == "t-1"} >= {
        ("t-1", "a test", "gateway")
    }

    def status() -> Any:
        return running.gateway.ask("GET", "/api/v1/mlops/online-learning/status").json

    # Outcomes may come behind the first command: the next one finds the rest.
    in_time(lambda: running.gateway.ask("POST", f"{trigger}?wait_ms=5000").json.get("examples") == 50)
    now = status()
    assert now["last_update"]["examples"] == 50
    assert now["buffer"]["slots_max"] == 1_000
    assert running.gateway.ask("GET", "/api/v1/mlops/online-learning/status?model=nobody").status == 404


def test_an_experiment_lives(running: Running) -> None:
    path = "/api/v1/mlops/experiments"
    body = {"experiment_id": "a b/c", "traffic": 0.2, "arms": ARMS, "reason": "why"}
    defined = running.settled(path, "define-1", body)
    assert (defined.status, defined.json["state"]) == (201, "EXPERIMENT_STATE_DRAFT")
    assert defined.json["definition"]["model_name"] == "ranker"
    one = f"{path}/a%20b%2Fc"
    started = running.settled(f"{one}/start", "start-1")
    assert (started.status, started.json["state"]) == (200, "EXPERIMENT_STATE_RUNNING")
    sent = len(running.commands())
    again = running.gateway.ask("POST", f"{one}/start", Idempotency_Key="start-1")
    assert (again.status, again.json["started_at_ms"]) == (200, started.json["started_at_ms"])
    assert len(running.commands()) == sent, "what was settled is not sent again"
    assert running.gateway.ask("GET", one).json["definition"] == started.json["definition"]
    assert [one["definition"]["experiment_id"] for one in running.gateway.ask("GET", path).json["experiments"]] == [
        "a b/c"
    ]
    stopped = running.settled(f"{one}/stop", "stop-1", {"reason": "enough"})
    assert (stopped.status, stopped.json["state"]) == (200, "EXPERIMENT_STATE_STOPPED")
    refused = running.settled(f"{one}/start", "start-2")
    assert (refused.status, refused.json["type"]) == (409, "urn:problem-type:millrace:refused")
    assert "was started before" in refused.json["detail"]
    assert running.gateway.ask("POST", f"{path}/other/start").status == 404


def test_versions_are_promoted_and_rolled_back_by_command(running: Running) -> None:
    """Of a model of its own, for which nobody has to serve or learn."""
    path = "/api/v1/mlops/models"

    def models() -> Any:
        return running.gateway.ask("GET", f"{path}?model=other").json

    assert running.gateway.ask("GET", f"{path}?model=other").status == 404
    running.tell("REGISTERED", "2", reason="better")
    in_time(lambda: running.gateway.ask("GET", f"{path}?model=other").status == 200)
    assert [one["version"] for one in models()["versions"]] == ["2"]
    assert models()["champion"] is None

    def asked(what: str, key: str, body: object = None) -> Answer:
        return running.gateway.ask("POST", f"{path}/{what}?model=other&wait_ms=0", body, Idempotency_Key=key)

    sent = asked("2/promote", "p-1", {"reason": "a test"})
    assert (sent.status, sent.json) == (202, {"command_id": "p-1", "settled": False})
    [command] = [one for one in running.commands() if one.command_id == "p-1"]
    assert (command.promote.model_name, command.promote.model_version, command.reason) == ("other", "2", "a test")
    running.tell("PROMOTED", "2", "p-1", "a test")
    in_time(lambda: asked("2/promote", "p-1").json.get("version") == "2")
    assert models()["champion"]["version"] == "2"

    assert asked("rollback", "b-1", {"checkpoint_id": "1.2.3"}).status == 202
    [back] = [one for one in running.commands() if one.command_id == "b-1"]
    assert (back.roll_back.model_version, back.roll_back.checkpoint_id) == ("", "1.2.3")
    running.tell("COMMAND_REFUSED", "", "b-1", "no such checkpoint")
    in_time(lambda: asked("rollback", "b-1").status == 409)
    assert asked("rollback", "b-1").json["detail"] == "no such checkpoint"
    assert asked("9/promote", "p-9").status == 404
    assert running.gateway.ask("GET", path).json["champion"]["version"] == "1"


def test_drift_is_what_the_detector_wrote(running: Running) -> None:
    path = "/api/v1/mlops/drift"
    assert running.gateway.ask("GET", path).status == 404
    evidence = DriftEvidence(name="covisit", effect_size=0.2, effect_min=0.05, alarm=True)
    signal = DriftSignal(signal_id="s", model_name="ranker", model_version="1", holds=True, evidence=[evidence])
    signal.channel = DriftChannel.DRIFT_CHANNEL_INPUT
    send(running.kafka, DRIFT_SIGNALS, [("ranker", *encode(signal))])
    rest = WatchedRest(reign_id="r", model_version="1", hours=24, holding=[signal])
    rest.measures.add(name="click_through", outcomes=500, before=0.1, after=0.08, evidence=0.4)
    look = WatchedLook(reign_id="r", findings=[evidence])
    parts = (("look", DetectorState(look=look)), ("rest", DetectorState(rest=rest)))
    send(running.kafka, DRIFT_DETECTOR_CHANGELOG, [(f"ranker/{part}", *encode(state)) for part, state in parts])
    in_time(lambda: running.gateway.ask("GET", path).json.get("version") == "1")
    told = running.gateway.ask("GET", path).json
    assert (told["version"], told["watched"], told["measures"][0]["after"]) == ("1", True, 0.08)
    assert [one["holds"] for one in told["signals"]] == [True]
    assert [one["name"] for one in told["look"]["findings"]] == ["covisit"]
    assert running.gateway.ask("GET", f"{path}?model=nobody").status == 404


def test_a_retraining_is_asked_for_by_command_and_followed(running: Running) -> None:
    path = "/api/v1/mlops/retrain"
    assert running.gateway.ask("POST", f"{path}?model=nobody").status == 404
    sent = running.gateway.ask("POST", f"{path}?wait_ms=0", {"reason": "new shop"}, Idempotency_Key="retrain-1")
    assert (sent.status, sent.json) == (202, {"command_id": "retrain-1", "settled": False})
    [command] = [one for one in running.commands() if one.command_id == "retrain-1"]
    assert (command.retrain.model_name, command.reason, command.issued_by) == ("ranker", "new shop", "gateway")
    begun = ModelEvent(event_id="r", retraining_id="r", model_name="ranker", command_id="retrain-1", reason="new shop")
    begun.type, begun.at_ms = ModelEventType.MODEL_EVENT_TYPE_RETRAINING_STARTED, 5
    moved = DriftSignal(signal_id="s", model_name="ranker", model_version="1", holds=True)
    moved.channel = DriftChannel.DRIFT_CHANNEL_INPUT
    send(running.kafka, MODEL_EVENTS, [("ranker", *encode(begun))])
    send(running.kafka, DRIFT_SIGNALS, [("ranker", *encode(moved))])

    def status() -> Any:
        return running.gateway.ask("GET", f"{path}/status").json

    in_time(lambda: status()["holding"] and status()["state"] == "collecting")
    assert status()["newest"]["retraining_id"] == "r"
    assert [one["signal_id"] for one in status()["holding"]] == ["s"]
    again = running.gateway.ask("POST", f"{path}?wait_ms=0", Idempotency_Key="retrain-1")
    assert (again.status, again.json["settled"], again.json["retraining_id"]) == (200, True, "r")


def test_metrics_count_by_route(running: Running) -> None:
    running.gateway.ask("GET", "/api/v1/users/x/features")
    running.gateway.ask("GET", "/a/path/that/somebody/made/up")
    text = running.gateway.ask("GET", "/metrics").body.decode()
    assert (
        'millrace_gateway_requests_total{method="GET",route="/api/v1/users/{user_id:path}/features",status="404"}'
        in text
    )
    assert 'millrace_gateway_requests_total{method="",route="",status="404"}' in text
    assert "made" not in text


def test_it_ends_when_what_is_under_way_is_done(running: Running, process: StartProcess) -> None:
    gateway = Gateway(process("services.gateway", env=running.env))
    gateway.child.until(gateway.ready)
    host, _, port = gateway.address.rpartition(":")
    body = json.dumps({"user_id": "late", "item_id": "shoe"}).encode()
    length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    head = f"POST /api/v1/event HTTP/1.1\r\nHost: x\r\n{length}"
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(head.encode() + body[:5])
        in_time(lambda: "millrace_gateway_requests_under_way 2.0" in gateway.ask("GET", "/metrics").body.decode())
        gateway.child.popen.terminate()
        gateway.child.until(lambda: "Shutting down" in gateway.child.output())
        connection.sendall(body[5:])
        assert connection.recv(1_000).startswith(b"HTTP/1.1 202")
    assert gateway.child.wait() == 0, gateway.child.output()
    assert [one.item_id for one in running.interactions("late")] == ["shoe"]


def test_a_head_that_never_ends_is_cut_off(running: Running) -> None:
    host, _, port = running.gateway.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX-Short: 1\r\nX-Long: ")
        # The answer may overtake what is still on its way.
        with suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(b"x" * 10_000)
        with suppress(ConnectionResetError):
            assert connection.recv(1_000).startswith(b"HTTP/1.1 431 ")
    assert running.gateway.ask("GET", "/health", X_Long="x" * 60_000).status == 200


def test_a_port_that_is_taken(running: Running, process: StartProcess) -> None:
    port = running.gateway.address.rpartition(":")[2]
    second = process("services.gateway", env={**running.env, "MILLRACE_GATEWAY_PORT": port})
    assert second.wait() == 1
    assert f"Error: cannot listen on 127.0.0.1:{port}" in second.output()


def test_every_path_keeps_its_description_whatever_is_asked(running: Running) -> None:
    assert len(keep_their_description(f"http://{running.gateway.address}")) == 22
