"""Asks every path of a gateway what its description allows, and what it does not."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

# Of each path and method, with a valid body and with an invalid one; each takes some 50 ms, most of it to make up.
EXAMPLES = 4
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def keep_their_description(address: str) -> list[str]:
    """Every path with its method; fails the test at an answer that its description does not have.

    That is a 5xx, and a status, content type or body that is not described.
    """
    tried = []
    for found in schemathesis.openapi.from_url(f"{address}/openapi.json").get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        _conforms(operation.as_strategy(GenerationMode.POSITIVE), address)
        # Where anything goes there is nothing that would not.
        with suppress(Unsatisfiable):
            _conforms(operation.as_strategy(GenerationMode.NEGATIVE), address)
        tried.append(operation.label)
    return tried


def _conforms(cases: SearchStrategy[schemathesis.Case[Any]], address: str) -> None:
    """Try some of them."""

    @settings(max_examples=EXAMPLES, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def one(case: schemathesis.Case[Any]) -> None:
        if case.path.startswith("/api/v1/mlops") and case.method == "POST" and isinstance(case.query, dict):
            case.query["wait_ms"] = 0
        case.call_and_validate(base_url=address, checks=CHECKS)

    one()
