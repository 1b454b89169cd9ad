"""Forms that change something: read only where they come from a page of ours."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request

from services.gateway.problems import FORBIDDEN, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, Problem

FORM = "application/x-www-form-urlencoded"
# A form of ours has a version and a reason.
_FORM_MAX_BYTES = 16 * 1024


def check_origin(request: Request) -> None:
    """Raises Problem unless the browser says that a page of this host sends the request.

    Browsers name the origin of whatever is posted, and no script can have them say another.
    """
    origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if not host or urlsplit(origin).netloc != host or site != "same-origin":
        raise Problem(FORBIDDEN, f"the request comes from {origin or 'no page'!r}, not from a page of {host!r}")


async def read_form(request: Request) -> Mapping[str, str]:
    """The fields of a form of ours. Raises Problem."""
    check_origin(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Problem(UNSUPPORTED_MEDIA_TYPE, f"send {FORM}")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_MAX_BYTES:
            raise Problem(TOO_LARGE, f"more than {_FORM_MAX_BYTES} bytes", max_bytes=_FORM_MAX_BYTES)
    return dict(parse_qsl(body.decode("utf-8", "replace")))
