"""One trace from a click's request to the update of parameters that it led to, as a collector receives it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from millrace.topics import INTERACTIONS, MODEL_UPDATES, OUTCOMES
from tests.collector import Collector
from tests.gateway_stack import Running, StartStack
from tests.processes import in_time
from tests.stream_support import headers_of, read_all, send


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    found = Collector()
    with found.running():
        yield found


@pytest.fixture(scope="module")
def running(gateway_stack: StartStack, collector: Collector) -> Iterator[Running]:
    """A gateway and the whole loop behind it, of which only requests are traced that say so."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_TRACES_SAMPLER_ARG": "0"}
    with gateway_stack(env, more=["outcome_joiner"]) as found:
        clicks = [{"user_id": f"u{n % 7}", "item_id": f"i-{n % 5}"} for n in range(60)]
        assert found.gateway.ask("POST", "/api/v1/event", clicks).status == 202
        in_time(lambda: len(found.gateway.ask("GET", "/api/v1/recommend?user_id=u1&k=5").json["items"]) == 5)
        yield found


def context(flags: str = "01") -> tuple[str, str, str]:
    """A caller's trace, its span, and both as a header."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-{flags}"


def contexts(running: Running, topic: str) -> list[bytes]:
    """Those of all records of a topic that have one."""
    found = [headers_of(record).get("traceparent") for record in read_all(running.kafka, topic)]
    return [one for one in found if one is not None]


def test_a_click_is_one_trace_up_to_the_parameters_that_it_moved(running: Running, collector: Collector) -> None:
    asked, _, asking = context()
    clicked, caller, clicking = context()
    answer = running.gateway.ask("GET", "/api/v1/recommend?user_id=u1&k=5", Traceparent=asking).json
    click = {"user_id": "u1", "item_id": answer["items"][0]["item_id"], "request_id": answer["request_id"]}
    assert running.gateway.ask("POST", "/api/v1/event", click, Traceparent=clicking).status == 202

    def ends(trace: str, name: str) -> bool:
        return any(one.name == name for one in collector.of(trace))

    in_time(lambda: ends(clicked, "send model-updates") and ends(asked, "send outcomes"))
    in_time(lambda: {one.process for one in collector.of(clicked)} >= {"gateway", "feature_updater"})
    posted = collector.one(clicked, "gateway", "POST /api/v1/event")
    assert posted.parent == caller
    assert posted.attributes["http.response.status_code"] == 202
    assert collector.one(clicked, "feature_updater", "process interactions").parent == posted.span
    joined = collector.one(clicked, "outcome_joiner", "process interactions")
    assert joined.parent == posted.span
    decided = collector.one(clicked, "outcome_joiner", "send outcomes")
    assert decided.parent == joined.span
    learned = collector.one(clicked, "online_learner", "process outcomes")
    assert learned.parent == decided.span
    assert learned.attributes["messaging.consumer.group.name"] == "online_learner"
    updated = collector.one(clicked, "online_learner", "send model-updates")
    assert updated.parent == learned.span
    assert contexts(running, MODEL_UPDATES.name) == [f"00-{clicked}-{updated.span}-01".encode()]
    assert contexts(running, OUTCOMES.name) == [f"00-{clicked}-{decided.span}-01".encode()]

    # The answer's own trace leads to the same outcome, by a link in both directions.
    question = collector.one(asked, "gateway", "GET /api/v1/recommend")
    served = collector.one(asked, "recommender", "Recommend")
    assert served.parent == question.span
    shown = collector.one(asked, "outcome_joiner", "process impressions")
    assert shown.parent == served.span
    also = collector.one(asked, "outcome_joiner", "send outcomes")
    assert also.parent == shown.span
    assert decided.links == {(asked, shown.span)}
    assert also.links == {(clicked, decided.span)}


# Named, as workers that share the tests out have to agree on names: contexts are drawn.
@pytest.mark.parametrize(
    "given",
    ["", context("00")[2], "00-nonsense-01", context()[2].upper(), "00-" + "0" * 32],
    ids=["none", "not sampled", "nonsense", "capitals", "zeros"],
)
def test_what_is_not_sampled_carries_nothing(running: Running, given: str) -> None:
    before = contexts(running, INTERACTIONS.name)
    headers = {"Traceparent": given} if given else {}
    assert running.gateway.ask("POST", "/api/v1/event", {"user_id": "u2", "item_id": "i-1"}, **headers).status == 202
    assert contexts(running, INTERACTIONS.name) == before


def test_a_dead_letter_keeps_its_trace_and_is_a_failed_span(running: Running, collector: Collector) -> None:
    trace, caller, given = context()
    header = ("traceparent", given.encode())
    schema = ("schema", b"millrace.v1.Interaction")
    send(running.kafka, INTERACTIONS, [("u3", b"\xff\xff", [schema, header])])
    in_time(lambda: len(collector.of(trace)) == 3)
    assert {one.process for one in collector.of(trace)} == {"feature_updater", "outcome_joiner", "experiment_tracker"}
    assert all(one.failed and one.parent == caller for one in collector.of(trace))
    letters = [headers_of(letter) for letter in read_all(running.kafka, INTERACTIONS.dlq)]
    assert [letter["traceparent"] for letter in letters if letter["dlq.worker"] == b"feature_updater"] == [header[1]]
