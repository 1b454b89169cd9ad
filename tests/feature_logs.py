"""Logs of made-up events for laws of the features, and how the laws are tried."""

from __future__ import annotations

from typing import cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from millrace.settings import HOUR_MS
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from tests.feature_ledger import FORGET, PURCHASE, RATING, Logged
from tests.feature_support import T0

USERS = ("u", "user with spaces", "{u}", "ü\N{SNOWMAN}}{")
ITEMS = ("a", "b", "}{", "{a}b", "item with spaces", "naïve", "x" * 256)

PROPERTY = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def logs(draw: st.DrawFn, partitions: int = 3) -> list[Logged]:
    """Logs of a few dozen events: each user in one partition, some event ids used again, times not in order."""
    log: list[Logged] = []
    offsets = [0] * partitions
    for _ in range(draw(st.integers(1, 60))):
        user = draw(st.sampled_from((0, 0, 0, 0, 0, 1, 2, 3)))  # one is busy: bounds are per user
        kind = draw(st.sampled_from((1, 2, 2, 2, 2, 2, 2, 2, 3, 4, 5, 6, 7, 8, FORGET)))
        event = Interaction(
            event_id=f"e{draw(st.integers(0, 80))}",
            user_id=USERS[user],
            item_id="" if kind == FORGET else draw(st.sampled_from(ITEMS[:2] * 5 + ITEMS)),
            type=cast("InteractionType.ValueType", kind),
            occurred_at_ms=T0 + draw(st.integers(0, 3 * HOUR_MS)),
            session_id=draw(st.sampled_from(("", "", "s1", "s2"))),
            custom_type="save" if kind == 8 else "",
        )
        if kind in (PURCHASE, RATING):
            event.value = draw(st.floats(0, 1e6))
        partition = user % partitions
        # Offsets have gaps: transactions and compaction leave them.
        offsets[partition] += draw(st.integers(1, 3))
        log.append(Logged(partition, offsets[partition], event))
    return log
