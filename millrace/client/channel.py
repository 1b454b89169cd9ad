"""How clients call the recommender: retries, balancing, and what its errors mean."""

from __future__ import annotations

import json

import grpc

from millrace.client.errors import RecommenderUnavailable
from millrace.errors import InvalidField, MillraceError

_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "millrace.v1.RecommendationService"}],
            # UNAVAILABLE: the process is restarting or gone; nothing was shown to anyone, so that asking again
            # is safe. An overloaded service answers RESOURCE_EXHAUSTED, which more calls would only make worse.
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
OPTIONS = (("grpc.enable_retries", 1), ("grpc.service_config", json.dumps(_SERVICE_CONFIG)))


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
