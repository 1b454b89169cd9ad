"""How clients call the recommender: retries, balancing, and what its errors mean."""

from __future__ import annotations

import json

import grpc

from millrace.client.errors import RecommenderUnavailable
from millrace.errors import InvalidField, MillraceError

_SERVICE = "millrace.v1.RecommendationService"
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    # A process that drains, or knows no items yet, says so and is not asked.
    "healthCheckConfig": {"serviceName": _SERVICE},
    "methodConfig": [
        {
            "name": [{"service": _SERVICE}],
            # UNAVAILABLE: the process is restarting or gone. CANCELLED: it stopped when the request came, before
            # anybody took it up (gRPC's server for asyncio). Nothing was shown to anyone, so that asking again is
            # safe. An overloaded service answers RESOURCE_EXHAUSTED, which more calls would only make worse.
            # 0.8 s in all (gRPC varies each by a fifth): longer than an address waits to be tried again.
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.54s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
}
OPTIONS = (
    ("grpc.enable_retries", 1),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # An address that refuses is tried again so soon: by default gRPC waits up to two minutes, and would know no
    # process when the one that it knows restarts after the others.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 400),
)


def explained(error: grpc.RpcError, target: str, timeout_s: float) -> MillraceError:
    """The error as the caller should see it."""
    code: grpc.StatusCode = error.code()
    details: str = error.details() or ""
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return _invalid(details)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        details = f"no answer within {timeout_s:g} s"
    return RecommenderUnavailable(target, code.name, details)


def _invalid(details: str) -> InvalidField:
    """The service's error is the text of its own ``InvalidField``: take it apart again."""
    field, _, rest = details.partition(": ")
    problem, _, allowed = rest.partition("; allowed: ")
    return InvalidField(field, problem, allowed) if allowed else InvalidField("request", details, "see the contract")
