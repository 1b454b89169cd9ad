"""A Redis that is slow and does not hang: a proxy that passes replies on in pieces, with a pause after each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit


class SlowRedis:
    """The proxy. What it is told holds from the next piece on.

    Attributes
    ----------
    url
        As ``REDIS_URL``.
    piece_bytes
        Most of the replies that pass at once.
    pause_s
        Time after each piece; 0: as fast as Redis itself.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self.url = ""
        self.piece_bytes = 64 * 1024
        self.pause_s = 0.0
        self._over = asyncio.Event()

    async def serve(self, up: threading.Event) -> None:
        """Serve until :meth:`end`; sets ``url`` before ``up``."""
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = self._upstream._replace(netloc=f"127.0.0.1:{server.sockets[0].getsockname()[1]}").geturl()
        up.set()
        await self._over.wait()
        server.close()

    def end(self) -> None:
        """End :meth:`serve`, from any thread."""
        self._loop.call_soon_threadsafe(self._over.set)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        # Cancelled at the end, which the streams of Python 3.11 would take for a failure.
        with closing(writer), closing(to_redis), suppress(asyncio.CancelledError):
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pass_on(reader, to_redis, slowly=False))
                ways.create_task(self._pass_on(from_redis, writer, slowly=True))

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, slowly: bool) -> None:
        with suppress(ConnectionError):
            while data := await source.read(self.piece_bytes if slowly else 64 * 1024):
                target.write(data)
                await target.drain()
                if slowly:
                    await asyncio.sleep(self.pause_s)
        # The other way ends with this one.
        target.close()


@contextmanager
def slow_redis(upstream: str) -> Iterator[SlowRedis]:
    """The proxy in front of a Redis (its URL), in a thread of its own, for the length of a ``with`` block."""
    proxy, up = SlowRedis(upstream), threading.Event()
    serving = threading.Thread(target=lambda: asyncio.run(proxy.serve(up)))
    serving.start()
    up.wait()
    try:
        yield proxy
    finally:
        proxy.end()
        serving.join()
