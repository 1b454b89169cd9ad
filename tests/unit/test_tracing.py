"""Trace context without a collector: it travels on as it came, and the SDK is not even imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from millrace.stream.causes import Causes
from millrace.stream.codec import encode
from millrace.stream.tracing import TRACEPARENT, Traces, checked, outgoing, outgoing_metadata, sampled
from millrace.stream.worker import Record
from millrace.topics import IMPRESSIONS, INTERACTIONS, MODEL_UPDATES, OUTCOMES, Topic
from millrace.v1.common_pb2 import Position
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.model_pb2 import ModelUpdate, ParameterUpdate
from millrace.v1.outcome_pb2 import DecidedSlot, Outcome

Traced = Interaction | Impression | Outcome


def context(number: int, flags: str = "01") -> bytes:
    return f"00-{number:032x}-{number:016x}-{flags}".encode()


def record(topic: Topic, message: Traced, given: bytes | None, offset: int = 0) -> Record:
    value, headers = encode(message)
    if given is not None:
        headers.append((TRACEPARENT, given))
    return Record(topic.name, 0, offset, b"u", message, 0, headers, value)


def click(event_id: str) -> Interaction:
    return Interaction(event_id=event_id, user_id="u")


def outcome(*event_ids: str) -> Outcome:
    return Outcome(request_id="r", user_id="u", slots=[DecidedSlot(event_id=one) for one in event_ids])


def update(until: int) -> ModelUpdate:
    learned = [Position(topic=OUTCOMES.name, partition=0, offset=until)]
    return ModelUpdate(update=ParameterUpdate(learned=learned))


def test_an_outcome_belongs_to_its_click_and_without_one_to_its_answer() -> None:
    traces = Traces()
    taken = [
        record(IMPRESSIONS, Impression(request_id="r", user_id="u"), context(1)),
        record(INTERACTIONS, click("a"), context(2)),
        record(INTERACTIONS, click("b"), None),
        record(INTERACTIONS, click("c"), context(3, "00")),
    ]
    with traces.taking("outcome_joiner", taken):
        pass
    assert traces.made(OUTCOMES.name, outcome("a")) == [(TRACEPARENT, context(2))]
    assert traces.made(OUTCOMES.name, outcome()) == [(TRACEPARENT, context(1))]
    # Of the others' clicks nothing is known: the answer is what led to them.
    assert traces.made(OUTCOMES.name, outcome("b", "c")) == [(TRACEPARENT, context(1))]
    assert traces.made(OUTCOMES.name, Outcome(request_id="r", user_id="another")) == []


def test_an_update_ends_the_outcomes_that_it_is_the_first_to_include() -> None:
    traces = Traces()
    with traces.taking("online_learner", [record(OUTCOMES, outcome(), context(n), n) for n in (5, 6, 7)]):
        pass
    assert traces.made(MODEL_UPDATES.name, update(4)) == []
    assert traces.made(MODEL_UPDATES.name, update(6)) == [(TRACEPARENT, context(5))]
    assert traces.made(MODEL_UPDATES.name, update(6)) == []
    assert traces.made(MODEL_UPDATES.name, update(9)) == [(TRACEPARENT, context(7))]


def test_what_is_kept_is_bounded() -> None:
    causes = Causes(kept_max=2)
    for number in range(1, 5):
        causes.keep(record(INTERACTIONS, click(str(number)), None), context(number))
        causes.keep(record(OUTCOMES, outcome(), None, number), context(number))
    assert len(causes) == 4
    assert causes.of(outcome("1", "2", "3", "4")) == [context(3), context(4)]
    assert causes.of(update(4)) == [context(3), context(4)]


@pytest.mark.parametrize(
    "broken",
    [b"", b"00", context(0), context(1, "00"), context(1).upper() + b"A", b"01" + context(1)[2:], context(1) + b"-x"],
)
def test_a_context_that_is_broken_or_not_sampled_is_none(broken: bytes) -> None:
    assert checked(broken) is None
    assert sampled([("schema", b"x"), (TRACEPARENT, broken)]) is None


def test_a_request_is_left_with_its_block() -> None:
    traces = Traces()
    assert outgoing() == []
    with traces.request("Recommend", context(1)) as span:
        assert span is None
        assert outgoing() == [(TRACEPARENT, context(1))]
        assert outgoing_metadata() == ((TRACEPARENT, context(1).decode()),)
    assert outgoing_metadata() is None


def test_a_shop_that_uses_opentelemetry_is_followed() -> None:
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("shop")
    with tracer.start_as_current_span("checkout") as span:
        [(name, value)] = outgoing()
    assert name == TRACEPARENT
    assert value.decode().split("-")[1:3] == [
        f"{span.get_span_context().trace_id:032x}",
        f"{span.get_span_context().span_id:016x}",
    ]
    assert outgoing() == []


def test_nothing_that_makes_spans_is_imported_without_an_endpoint() -> None:
    program = (
        "import sys, workers.feature_updater.worker, services.gateway.front\n"
        "from millrace.settings import TracingSettings\n"
        "from millrace.stream.tracing import TRACES\n"
        "with TRACES.exported(TracingSettings(), 'x'), TRACES.request('y', None): pass\n"
        "print([name for name in ('opentelemetry.sdk.trace', 'opentelemetry.exporter') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert printed.stdout == "[]\n"
