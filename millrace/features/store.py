"""The feature updater's one connection to Redis, and the scripts that run on it.

Redis may lose its last second when it restarts, so the writer must never go on after a lost connection as if
nothing had happened: a later write would move a key's guard past the hole. redis-py connects again by itself, in its
pool and when it sends; here a connection is made by ``connect`` only, and once it is lost every call fails until
``connect`` is called again (which the runtime does after it has gone back to a safe position).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeAlias

import hiredis
import redis.connection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from millrace.errors import InfrastructureError
from millrace.settings import RedisSettings

# The module has few types of its own; what goes in and out of it is typed here.
redis_py: Any = redis.connection

Argument: TypeAlias = bytes | str | int | float
Command: TypeAlias = tuple[Argument, ...]
Call: TypeAlias = tuple[tuple[bytes, ...], list[bytes]]
"""The keys and the arguments of one run of a script."""

# Commands are sent in pieces of about this size while the next are still being built, so that Redis works
# meanwhile; one piece is some 30 script calls.
SEND_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script with the settings' numbers in front of it (a call then carries data only)."""

    source: str
    sha: str


def load_script(name: str, numbers: Mapping[str, int], package: str = "millrace.features") -> Script:
    """The script ``lua/<name>.lua`` of a package; ``numbers`` become its local variables."""
    text = files(package).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    source = "".join(f"local {variable} = {value}\n" for variable, value in numbers.items()) + text
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class Pending:
    """Replies that are on their way; None until they are received."""

    __slots__ = ("count", "replies")

    def __init__(self) -> None:
        self.count = 0
        self.replies: list[Any] | None = None


class FeatureStore:
    """One connection to Redis that is never made anew behind the caller's back.

    Every method but ``connect`` and ``close`` raises InfrastructureError when Redis fails, and from then on until
    ``connect`` is called again.

    Parameters
    ----------
    settings
        Address and time limit.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._scripts: list[Script] = []
        self._pending: deque[Pending] = deque()
        self._connection: Any = None
        self._run_id = b""

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
        self.ask_all(("SCRIPT", "LOAD", script.source) for script in self._scripts)
        self._run_id = self._read_run_id()

    def load(self, script: Script) -> Script:
        """Have the server know this script, now and after each ``connect``.

        A server that forgets it in between (a person's SCRIPT FLUSH does that) fails like any other. To send it again
        together with the calls that were refused, as is often done, would let later calls overtake these.
        """
        self._scripts.append(script)
        if self.connected:
            self.ask("SCRIPT", "LOAD", script.source)
        return script

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known; ``verify`` asks."""
        return self._connection is not None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None
            self._pending.clear()

    def verify(self) -> None:
        """Check that the same Redis still answers (also where a proxy would hide that it was replaced)."""
        if (run_id := self._read_run_id()) != self._run_id:
            self.close()
            raise InfrastructureError("redis", f"another server answers (run_id {run_id!r}, was {self._run_id!r})")

    def ask(self, *command: Argument) -> Any:
        """The reply to one command."""
        return self.ask_all([command])[0]

    def ask_all(self, commands: Iterable[Command]) -> list[Any]:
        """The replies to commands that are sent without waiting in between (one round trip).

        They run in this order, but not as a transaction.
        """
        return self.receive(self._post(commands))

    def run(self, script: Script, calls: Iterable[Call]) -> list[Any]:
        """The replies to runs of a script (one round trip)."""
        return self.receive(self.send(script, calls))

    def send(self, script: Script, calls: Iterable[Call]) -> Pending:
        """Have a script run, without waiting for it.

        Whatever is sent later runs later. What went wrong is raised when the next replies are received.
        """
        return self._post(("EVALSHA", script.sha, len(keys), *keys, *arguments) for keys, arguments in calls)

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

    def _post(self, commands: Iterable[Command]) -> Pending:
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
            raise InfrastructureError("redis", f"no connection to {self._address()}")
        return self._connection

    def _read_run_id(self) -> bytes:
        info: bytes = self.ask("INFO", "server")
        return next((line[7:].strip() for line in info.splitlines() if line.startswith(b"run_id:")), b"")

    def _failure(self, error: RedisError) -> InfrastructureError:
        problem = f"{type(error).__name__}: {error}" if isinstance(error, ResponseError) else str(error)
        return InfrastructureError("redis", f"{self._address()}: {problem}")

    def _address(self) -> str:
        """Where Redis should be, without user and password."""
        scheme, _, rest = self._settings.url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"


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
