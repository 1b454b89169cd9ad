"""One connection to Redis on which any number of requests ask at once.

redis-py makes the connection (TLS, authentication, database); then its transport is taken over. Commands are written
as they come and replies are handed out in order.

Redis answers in a tenth of a millisecond; a turn of an event loop that ranks takes longer. So a command is sent at once
and its reply is waited for on the spot, for ``PROMPT_S`` at most; what takes longer comes through the loop as usual.
After a reply that did not come promptly nobody waits on the spot for a while, so that a slow Redis costs the loop a
hundredth of its time and not all of it. (A connection with TLS always goes through the loop.)
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections import deque
from typing import Any

import hiredis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from millrace.errors import InfrastructureError
from millrace.settings import RedisSettings

Reply = list[bytes | None]

# Ten times what Redis takes when it is idle; a script call of the feature updater in front of the command fits in.
PROMPT_S = 0.001
NOT_PROMPT_FOR_S = 100 * PROMPT_S
# More than a user's features, whose packed fields are bounded, ever take.
_READ_BYTES = 64 * 1024
_NO_FILE = -1


class RedisPipe(asyncio.Protocol):
    """Asks Redis; connects when first asked, and again after a failure.

    Parameters
    ----------
    timeout_s
        Longest time to connect, and longest that a command may wait for its reply before the connection is given up:
        whatever came after it waits for the same reason. So a Redis that is slower than it is asked cannot pile up
        commands, though it answers all the time.
    """

    def __init__(self, redis: RedisSettings, timeout_s: float) -> None:
        self._pool = ConnectionPool.from_url(redis.url, retry=Retry(NoBackoff(), 0), protocol=2)
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        # Kept: its writer closes the transport when it is collected.
        self._connection: Any = None
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._parser = hiredis.Reader()
        self._unsent: list[bytes] = []
        # With the time at which each was asked.
        self._waiting: deque[tuple[asyncio.Future[Reply], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._file = _NO_FILE
        self._readable = select.poll()
        self._prompt_from = 0.0

    def ask(self, command: bytes, promptly: bool = True) -> asyncio.Future[Reply]:
        """The reply to a command (packed for the wire); fails with InfrastructureError.

        ``promptly``: whether to wait for it on the spot. Of many commands at once, only the loop's way sends all
        before it waits for the first.
        """
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting.append((answer, self._loop.time()))
        if self._transport is not None:
            if promptly and self._file != _NO_FILE and time.monotonic() >= self._prompt_from:
                self._send(self._transport, command)
                self._receive_promptly(answer)
                if answer.done():
                    return answer
            else:
                self._transport.write(command)
        else:
            self._unsent.append(command)
            if self._connecting is None:
                self._connecting = self._loop.create_task(self._connect())
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_s, self._check)
        return answer

    async def close(self) -> None:
        """Close the connection; what waits fails."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        self._give_up("the service is shutting down")

    def data_received(self, data: bytes) -> None:
        """Hand replies out in the order of the commands."""
        self._parser.feed(data)
        while (reply := self._parser.gets()) is not False:
            answer, _ = self._waiting.popleft()
            if answer.done():  # the request was cancelled or gave up
                continue
            if isinstance(reply, Exception):
                answer.set_exception(InfrastructureError("redis", str(reply)))
            else:
                answer.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side, or the network, ended it."""
        if self._transport is not None:
            self._give_up(f"the connection was lost{f' ({exc})' if exc else ''}")

    def _send(self, transport: asyncio.Transport, command: bytes) -> None:
        """Send now what the socket takes; the transport would send at the end of the loop's turn."""
        sent = 0
        if not transport.get_write_buffer_size():
            try:
                sent = os.write(self._file, command)
            except OSError:
                sent = 0  # full, or broken: the transport waits, or finds out and says so
        if sent < len(command):
            transport.write(command[sent:])

    def _receive_promptly(self, answer: asyncio.Future[Reply]) -> None:
        """Wait for the reply on the spot."""
        give_up = time.monotonic() + PROMPT_S
        while not answer.done():
            left_s = give_up - time.monotonic()
            if left_s <= 0 or not self._readable.poll(left_s * 1000):
                self._prompt_from = time.monotonic() + NOT_PROMPT_FOR_S
                return
            try:
                data = os.read(self._file, _READ_BYTES)
            except OSError:
                return  # the transport meets the same and reports it
            if not data:
                return  # closed: the transport is told so too
            self.data_received(data)

    async def _connect(self) -> None:
        try:
            connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
            async with asyncio.timeout(self._timeout_s):
                await connection.connect()
        except (RedisError, OSError, TimeoutError) as error:
            self._connecting = None
            self._give_up(str(error) or "no connection in time")
            return
        self._connecting = None
        self._connection = connection
        transport: asyncio.Transport = connection._writer.transport
        transport.set_protocol(self)
        self._transport = transport
        if transport.get_extra_info("sslcontext") is None:
            self._file = transport.get_extra_info("socket").fileno()
            self._readable = select.poll()
            self._readable.register(self._file, select.POLLIN)
        self._parser = hiredis.Reader()
        transport.writelines(self._unsent)
        self._unsent.clear()

    def _check(self) -> None:
        """Give the connection up if the oldest command waits for longer than the limit; look again when it will."""
        self._watch = None
        if not self._waiting:
            return
        left_s = self._waiting[0][1] + self._timeout_s - self._loop.time()
        if left_s <= 0:
            self._give_up("no answer in time")
        else:
            self._watch = self._loop.call_later(left_s, self._check)

    def _give_up(self, problem: str) -> None:
        transport, self._transport = self._transport, None
        connection, self._connection = self._connection, None
        self._file = _NO_FILE
        if transport is not None:
            transport.abort()
        if connection is not None:
            connection._close()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self._unsent.clear()
        waiting, self._waiting = self._waiting, deque()
        for answer, _ in waiting:
            if not answer.done():
                answer.set_exception(InfrastructureError("redis", problem))
