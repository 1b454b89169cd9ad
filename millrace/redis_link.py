"""A connection to one Redis that is never made anew behind the caller's back.

redis-py connects again by itself, in its pool and when it sends; here a connection is made by ``connect`` only, and
once it is lost every call fails until ``connect`` is called again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import hiredis
import redis.connection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from millrace.errors import InfrastructureError, MillraceError
from millrace.redis_address import without_login
from millrace.settings import RedisSettings

# The module has few types of its own; what goes in and out of it is typed here.
redis_py: Any = redis.connection

Argument: TypeAlias = bytes | str | int | float
Command: TypeAlias = tuple[Argument, ...]
Call: TypeAlias = tuple[tuple[bytes, ...], list[bytes]]
"""The keys of one run of a script, and an argument for each; its reply is a list with an answer for each, or None."""

# Commands are sent in pieces of about this size while the next are still being built, so that Redis works
# meanwhile; one piece is some 30 script calls.
SEND_BYTES = 16 * 1024


class Pending:
    """Replies that are on their way; None until they are received."""

    __slots__ = ("count", "replies")

    def __init__(self) -> None:
        self.count = 0
        self.replies: list[Any] | None = None


class Link:
    """The connection.

    Every method but ``connect`` and ``close`` raises InfrastructureError when Redis fails, and from then on until
    ``connect`` is called again.

    Parameters
    ----------
    settings
        Address and time limit.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._pending: deque[Pending] = deque()
        self._connection: Any = None

    def connect(self) -> None:
        """Make the connection anew. Raises InfrastructureError."""
        self.close()
        arguments = redis_py.parse_url(self._settings.url)
        kind = arguments.pop("connection_class", redis_py.Connection)
        timeout_s = self._settings.timeout_ms / 1000
        connection = kind(
            **{
                "socket_timeout": timeout_s,
                "socket_connect_timeout": timeout_s,
                # RESP 2 has no messages that come unasked, so that replies are just what was asked for.
                "protocol": 2,
                "retry": Retry(NoBackoff(), 0),
                "redis_connect_func": _only_once(),
                **arguments,
            }
        )
        try:
            connection.connect()
        except RedisError as error:
            raise self._failure(error) from error
        self._connection = connection

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None
            self._pending.clear()

    def ask(self, *command: Argument) -> Any:
        """The reply to one command."""
        return self.ask_all([command])[0]

    def ask_all(self, commands: Iterable[Command]) -> list[Any]:
        """The replies to commands that are sent without waiting in between (one round trip)."""
        return self.receive(self.post(commands))

    def info(self, section: str) -> Mapping[str, str]:
        """What Redis says of itself."""
        return parse_info(self.ask("INFO", section))

    def post(self, commands: Iterable[Command]) -> Pending:
        """Send the commands, the first while the last are still being built."""
        connection = self._connected()
        pending, size, pieces = Pending(), 0, []
        with self._closing_on_error():
            for command in commands:
                pieces.append(packed := hiredis.pack_command(command))  # type: ignore[arg-type]  # a 1-tuple, it says
                pending.count += 1
                size += len(packed)
                if size >= SEND_BYTES:
                    connection.send_packed_command([b"".join(pieces)])
                    size, pieces = 0, []
            if pieces:
                connection.send_packed_command([b"".join(pieces)])
        self._pending.append(pending)
        return pending

    def receive(self, pending: Pending) -> list[Any]:
        """Wait for the replies to what was sent (and to everything that was sent before it)."""
        connection = self._connected()
        with self._closing_on_error():
            while pending.replies is None:
                if not self._pending:
                    raise InfrastructureError("redis", "the connection that the replies were to come on was lost")
                first = self._pending[0]
                first.replies = [connection.read_response(disable_decoding=True) for _ in range(first.count)]
                self._pending.popleft()
        return pending.replies

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        """Closes the connection, on which replies may be left that would be taken for later ones."""
        try:
            yield
        except BaseException as error:
            self.close()
            if isinstance(error, RedisError):
                raise self._failure(error) from error
            raise

    def _connected(self) -> Any:
        if self._connection is None:
            raise InfrastructureError("redis", f"no connection to {self.address}")
        return self._connection

    def _failure(self, error: RedisError) -> InfrastructureError:
        problem = f"{type(error).__name__}: {error}" if isinstance(error, ResponseError) else str(error)
        return InfrastructureError("redis", f"{self.address}: {problem}")

    @property
    def address(self) -> str:
        """Where Redis should be, without user and password."""
        return without_login(self._settings.url)


class Server(Link):
    """The one Redis that holds everything."""

    def __init__(self, settings: RedisSettings) -> None:
        super().__init__(settings)
        self._run_id = ""

    def connect(self) -> None:
        """Make the connection anew.

        Raises
        ------
        InfrastructureError
            Redis does not answer.
        MillraceError
            It holds a part of the keys only.
        """
        super().connect()
        server = self.info("server")
        if server.get("redis_mode") == "cluster":
            self.close()
            scheme, _, place = self.address.partition("://")
            raise MillraceError(
                f"{self.address} is a node of a Redis Cluster: REDIS_URL={scheme}+cluster://{place.partition('/')[0]}"
            )
        self._run_id = server.get("run_id", "")

    def verify(self) -> None:
        """Check that the same Redis still answers (also where a proxy would hide that it was replaced)."""
        if (run_id := self.info("server").get("run_id", "")) != self._run_id:
            self.close()
            raise InfrastructureError("redis", f"another server answers (run_id {run_id!r}, was {self._run_id!r})")

    def send(self, sha: str, calls: Iterable[Call]) -> Pending:
        """Have a script run, without waiting for it."""
        return self.post(("EVALSHA", sha, len(keys), *keys, *arguments) for keys, arguments in calls)

    def ask_every(self, *command: Argument) -> list[Any]:
        """The reply to a command that is about no key."""
        return [self.ask(*command)]

    def scan(self, pattern: str, step: int) -> Iterator[list[bytes]]:
        """The keys of a pattern, about ``step`` of all keys looked at in a round trip."""
        return scanned(self, pattern, step)


def scanned(link: Link, pattern: str, step: int) -> Iterator[list[bytes]]:
    """The keys of a pattern on one server; one may come twice."""
    cursor = b"0"
    while True:
        cursor, keys = link.ask("SCAN", cursor, "MATCH", pattern, "COUNT", step)
        yield keys
        if cursor == b"0":
            return


def parse_info(reply: bytes) -> Mapping[str, str]:
    """The fields of a reply to INFO.

    >>> parse_info(b"# Server\\r\\nrun_id:abc\\r\\n")
    {'run_id': 'abc'}
    """
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, separator, value in lines if separator}


def _only_once() -> Any:
    """A hook for a connection's handshake that refuses the second one."""
    used = False

    def handshake(connection: Any) -> None:
        nonlocal used
        if used:
            raise ConnectionLost("the connection was lost")
        used = True
        connection.on_connect()

    return handshake
