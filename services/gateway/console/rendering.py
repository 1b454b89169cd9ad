"""Makes pages of templates; every page says what a browser may do with it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.responses import Response

from services.gateway.console.words import label_of, source

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
}
PAGES = (
    ("/", "Now"),
    ("/console/topics", "Topics"),
    ("/console/recommend", "Recommend"),
    ("/console/learning", "Learning"),
    ("/console/experiments", "Experiments"),
    ("/console/models", "Models"),
    ("/console/drift", "Drift"),
    ("/console/dead-letters", "Dead letters"),
)


def when(at_ms: float) -> str:
    """A time for people: UTC, to the second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def hour(at_ms: float) -> str:
    """The time of a day in UTC, to the second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M:%S")


def clock(at_ms: float) -> str:
    """The time of a day in UTC, to the millisecond."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]


def span(ms: float) -> str:
    """How long something takes or took, to two digits or so."""
    for unit_ms, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")):
        if ms >= unit_ms:
            return f"{ms / unit_ms:.3g} {unit}"
    return f"{ms:.3g} ms"


def plain(number: float | None, digits: int = 3) -> str:
    """A number to some digits, grouped by thousands; a dash where there is none."""
    if number is None:
        return "–"
    if abs(number) >= 10 ** (digits - 1):
        return f"{number:,.0f}"
    return f"{number:.{digits}g}"


def percent(share: float | None, digits: int = 2) -> str:
    """A share as a percentage; a dash where there is none."""
    return "–" if share is None else f"{share * 100:.{digits}f} %"


def signed_percent(share: float) -> str:
    """A relative difference, with its sign."""
    return f"{share * 100:+.1f} %".replace("-", "−")


class Renderer:
    """Renders the templates of this package; what they are given is escaped."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("services.gateway.console", "templates"),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters |= {
            "when": when,
            "clock": clock,
            "hour": hour,
            "span": span,
            "plain": plain,
            "percent": percent,
            "signed_percent": signed_percent,
            "column": label_of,
            "source": source,
        }
        self._templates.globals |= {"pages": PAGES}

    def page(self, template: str, here: str, status: int = 200, **values: Any) -> Response:
        """A page (``here``: its place among ``PAGES``)."""
        text = self._templates.get_template(template).render(here=here, **values)
        return Response(text, status, media_type="text/html", headers=HEADERS)

    def fragment(self, template: str, **values: Any) -> str:
        """A part of a page."""
        return self._templates.get_template(template).render(**values)
