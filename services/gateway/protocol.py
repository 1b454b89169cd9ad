"""Bounds the head of a request, which uvicorn's fast protocol does not."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_MAX_BYTES = 64 * 1024
"""As much as uvicorn's other protocol takes (h11's default)."""
_ANSWER = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose request has a longer head; by a piece of the network at most."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._in_head = True
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Take a piece; what is no head yet, after all of it, is still to come."""
        before = self._in_head
        super().data_received(data)
        if before and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
                self.transport.write(_ANSWER)
                self.transport.close()

    def on_headers_complete(self) -> None:
        """The body comes next."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Another request may come."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()
