"""The feature updater's connection to Redis, and the scripts that run on it.

Redis may lose its last second when it restarts, so the writer must never go on after a lost connection as if
nothing had happened: a later write would move a key's guard past the hole. A connection is made by ``connect`` only,
and once it is lost every call fails until ``connect`` is called again (which the runtime does after it has gone back
to a safe position). A cluster has a connection for each master, and they stand and fall together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from millrace.redis_address import cluster_address
from millrace.redis_cluster import Cluster
from millrace.redis_link import Argument, Call, Command, Pending, Server
from millrace.settings import RedisSettings

__all__ = ["Argument", "Call", "Command", "FeatureStore", "Pending", "Script", "load_script"]


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


class FeatureStore:
    """One Redis, or the masters of a cluster.

    Every method but ``connect`` and ``close`` raises InfrastructureError when Redis fails, and from then on until
    ``connect`` is called again.

    Parameters
    ----------
    settings
        Address and time limit.
    """

    def __init__(self, settings: RedisSettings) -> None:
        address = cluster_address(settings.url)
        self._redis: Server | Cluster = Server(settings) if address is None else Cluster(settings, address)
        self._scripts: list[Script] = []

    def connect(self) -> None:
        """Make the connection anew. Raises InfrastructureError, or MillraceError if the address is of another kind."""
        self._redis.connect()
        for script in self._scripts:
            self.ask_every("SCRIPT", "LOAD", script.source)

    def load(self, script: Script) -> Script:
        """Have the server know this script, now and after each ``connect``.

        A server that forgets it in between (a person's SCRIPT FLUSH does that) fails like any other. To send it again
        together with the calls that were refused, as is often done, would let later calls overtake these.
        """
        self._scripts.append(script)
        if self.connected:
            self.ask_every("SCRIPT", "LOAD", script.source)
        return script

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known; ``verify`` asks."""
        return self._redis.connected

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    def verify(self) -> None:
        """Check that the same Redis still answers (also where a proxy would hide that it was replaced)."""
        self._redis.verify()

    def ask(self, *command: Argument) -> Any:
        """The reply to one command, whose second word is a key."""
        return self.ask_all([command])[0]

    def ask_all(self, commands: Iterable[Command]) -> list[Any]:
        """The replies to commands that are sent without waiting in between (one round trip).

        Those about one key run in this order, but not as a transaction.
        """
        return self._redis.ask_all(commands)

    def ask_every(self, *command: Argument) -> list[Any]:
        """The reply of each server to a command that is about no key."""
        return self._redis.ask_every(*command)

    def scan(self, pattern: str, step: int) -> Iterator[list[bytes]]:
        """The keys of a pattern in pieces, ``step`` keys looked at for each; a key may come twice."""
        return self._redis.scan(pattern, step)

    def run(self, script: Script, calls: Iterable[Call]) -> list[Any]:
        """The replies to runs of a script (one round trip)."""
        return self.receive(self.send(script, calls))

    def send(self, script: Script, calls: Iterable[Call]) -> Pending:
        """Have a script run, without waiting for it.

        Runs that are sent later run later, whatever their keys. What went wrong is raised when the next replies are
        received, or the next runs are sent.
        """
        return self._redis.send(script.sha, calls)

    def receive(self, pending: Pending) -> list[Any]:
        """Wait for the replies to what was sent (and to everything that was sent before it)."""
        return self._redis.receive(pending)
