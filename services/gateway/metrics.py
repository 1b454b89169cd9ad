"""Prometheus metrics of the gateway. Each bound on memory has a gauge for what is held and one for the bound."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# From 0.2 ms to 20 s in steps of 50 %: an answer from memory, and a wait for what comes of a command.
_BUCKETS_S = tuple(0.0002 * 1.5**step for step in range(29))

REQUESTS = Counter(
    "millrace_gateway_requests",
    "Requests by route (empty: none that we have), method and HTTP status.",
    ("route", "method", "status"),
)
REQUEST_SECONDS = Histogram(
    "millrace_gateway_request_seconds",
    "Time from a request's arrival to the end of its answer.",
    ("route", "method"),
    buckets=_BUCKETS_S,
)
UNDER_WAY = Gauge("millrace_gateway_requests_under_way", "Requests that are being answered.")
UNDER_WAY_MAX = Gauge("millrace_gateway_requests_under_way_max", "Most of them; more are refused at once.")
MESSAGES = Counter(
    "millrace_gateway_messages",
    "Events and items taken in: acknowledged by the broker, invalid, or undelivered.",
    ("topic", "result"),
)
PENDING = Gauge("millrace_gateway_messages_pending", "Events and items that wait for the broker.")
PENDING_MAX = Gauge("millrace_gateway_messages_pending_max", "Most of them; more are refused at once.")
COMMANDS = Counter(
    "millrace_gateway_commands", "Commands sent: accepted, refused, or not settled in the time.", ("action", "result")
)
VIEW_LAG_RECORDS = Gauge("millrace_gateway_view_lag_records", "Records of a view's topics not read yet.", ("view",))
