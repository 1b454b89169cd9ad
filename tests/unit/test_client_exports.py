"""The public names of the client, and that its documentation uses what is there."""

from __future__ import annotations

import inspect
import re

import millrace.client
from millrace.client import AsyncEventProducer, AsyncRecommenderClient, EventProducer, RecommenderClient


def test_exported_names_are_right() -> None:
    public = {
        name
        for name, value in vars(millrace.client).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert sorted(public) == millrace.client.__all__ == sorted(millrace.client.__all__)


def test_every_export_says_what_it_is() -> None:
    assert [name for name in millrace.client.__all__ if not inspect.getdoc(getattr(millrace.client, name))] == []


def _methods(kind: type) -> dict[str, list[str]]:
    return {
        name: list(inspect.signature(method).parameters)
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") or name == "__init__"
    }


def test_the_asyncio_forms_have_the_same_methods() -> None:
    assert _methods(EventProducer) == _methods(AsyncEventProducer)
    assert _methods(RecommenderClient) == _methods(AsyncRecommenderClient)


def test_the_example_is_ten_lines_of_python_that_compile() -> None:
    """The README shows these lines."""
    example = re.search(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", inspect.getdoc(millrace.client) or "")
    assert example is not None
    lines = [line[4:] for line in example[1].splitlines() if line.strip()]
    assert len(lines) <= 10
    compile("\n".join(lines), "example", "exec")
