"""Kafka, Redis and MLflow together: up, down, status; kept in a folder, or ephemeral."""

from __future__ import annotations

import fcntl
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deploy.embedded.jars import Say, classpath, silent
from deploy.embedded.kafka import Kafka
from deploy.embedded.member import Member, log_path, wait_ready
from deploy.embedded.mlflow import Mlflow
from deploy.embedded.ports import preferred_or_free
from deploy.embedded.redis import Redis
from deploy.embedded.status import MemberStatus, status_of
from deploy.embedded.supervision import DEAD_STATES, Program, Supervisor
from millrace.settings import StackSettings, home

ALL_MEMBERS = ("kafka", "redis", "mlflow")
VARIABLES: Mapping[str, str] = {
    "kafka": "KAFKA_BOOTSTRAP_SERVERS",
    "redis": "REDIS_URL",
    "mlflow": "MLFLOW_TRACKING_URI",
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the members listen, in the form that clients take; empty for a member that was not asked for."""

    kafka: str = ""
    redis: str = ""
    mlflow: str = ""

    def environment(self) -> dict[str, str]:
        """The variables that point every process of Millrace at this stack."""
        return {VARIABLES[name]: getattr(self, name) for name in ALL_MEMBERS if getattr(self, name)}


class Stack:
    """The members in a folder; their ports stand in ``stack.json`` there, so that any process finds them.

    Parameters
    ----------
    folder
        Configuration, data and logs of the members.
    settings
        Preferred ports, versions and sizes.
    members
        Which of them.
    env_file
        Where to write their addresses as environment variables while the stack is up (``millrace.settings`` reads
        ``stack.env`` in the project's folder).
    """

    def __init__(
        self,
        folder: Path,
        settings: StackSettings,
        members: Collection[str] = ALL_MEMBERS,
        env_file: Path | None = None,
    ) -> None:
        self.folder = folder
        self._settings = settings
        self._names = [name for name in ALL_MEMBERS if name in members]
        self._env_file = env_file
        self._supervisor = Supervisor(folder)

    @property
    def running(self) -> bool:
        """Whether the stack was brought up and its supervisor lives (a member may be dead all the same)."""
        return self._ports_file.exists() and self._supervisor.running

    def up(self, say: Say = silent, *, attached: bool = False) -> Addresses:
        """Start what does not run yet, and return when every member serves.

        Parameters
        ----------
        attached
            The stack ends with this process, however that ends; otherwise it stays until ``down``.

        Raises
        ------
        InfrastructureError
            A member does not come up; its name and the end of its log are in the message. What this call has
            started is stopped.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if self.running:
                for name in self._names:
                    self._supervisor.start_again(name)
                return self._until_ready(say)
            try:
                self._start(say, attached=attached)
                return self._until_ready(say)
            except BaseException:
                self._stop()
                raise

    def down(self) -> bool:
        """Stop everything; idempotent. Returns whether anything ran."""
        if not self.folder.exists():
            return False
        with self._alone():
            return self._stop()

    def announce(self, variables: Mapping[str, str]) -> None:
        """Write the file of environment variables."""
        if self._env_file is not None:
            _write_whole(self._env_file, "".join(f"{name}={value}\n" for name, value in variables.items()))

    def status(self) -> list[MemberStatus]:
        """How each member does; empty if the stack was not brought up, or was brought down."""
        try:
            members = self._members()
        except FileNotFoundError:
            return []
        processes = self._supervisor.processes()
        return [status_of(member, processes.get(member.name)) for member in members]

    def _start(self, say: Say, *, attached: bool) -> None:
        jars = classpath(self._settings.kafka_version, say) if "kafka" in self._names else ()
        # Members whose supervisor was killed still hold their ports and files.
        self._supervisor.stop()
        _write_whole(self._ports_file, json.dumps(self._choose_ports()))
        programs = []
        for member in self._members(jars):
            say(f"preparing {member.name}")
            member.folder.mkdir(exist_ok=True)
            member.prepare()
            programs.append(
                Program(member.name, member.command(), member.folder, log_path(member), member.environment())
            )
        self._supervisor.start(programs, attached=attached)

    def _until_ready(self, say: Say) -> Addresses:
        members = self._members()
        for member in members:
            say(f"waiting for {member.name} on port {member.port}")
            wait_ready(member, alive=partial(self._may_come_up, member.name))
        addresses = Addresses(**{member.name: member.address for member in members})
        self.announce(addresses.environment())
        return addresses

    def _may_come_up(self, name: str) -> bool:
        process = self._supervisor.processes().get(name)
        return process is not None and process.state not in DEAD_STATES

    def _stop(self) -> bool:
        stopped = self._supervisor.stop()
        self._ports_file.unlink(missing_ok=True)
        if self._env_file is not None:
            # With nothing behind them, the addresses would only lead clients astray.
            self._env_file.unlink(missing_ok=True)
        return stopped

    def _choose_ports(self) -> dict[str, int]:
        preferred = {
            "kafka": self._settings.kafka_port,
            "kafka_controller": 0,
            "redis": self._settings.redis_port,
            "mlflow": self._settings.mlflow_port,
        }
        ports: dict[str, int] = {}
        for name, port in preferred.items():
            ports[name] = preferred_or_free(port, frozenset(ports.values()))
        return ports

    def _members(self, jars: Sequence[Path] = ()) -> list[Member]:
        """The members at their ports; the jars are needed only to start Kafka."""
        ports: dict[str, int] = json.loads(self._ports_file.read_text())
        heap_mb = self._settings.kafka_heap_mb
        folder = self.folder
        every: list[Member] = [
            Kafka(folder / "kafka", ports["kafka"], ports["kafka_controller"], jars, heap_mb),
            Redis(folder / "redis", ports["redis"], self._settings.redis),
            Mlflow(folder / "mlflow", ports["mlflow"]),
        ]
        return [member for member in every if member.name in self._names]

    @property
    def _ports_file(self) -> Path:
        return self.folder / "stack.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time brings this stack up or down; another waits for it."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all: others read it at any moment."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def persistent(settings: StackSettings) -> Stack:
    """The stack of the project's folder."""
    return Stack(home() / "stack", settings, env_file=home() / "stack.env")


@contextmanager
def ephemeral(
    settings: StackSettings | None = None, members: Collection[str] = ALL_MEMBERS, say: Say = silent
) -> Iterator[Addresses]:
    """A stack of its own on free ports in a temporary folder, for the length of a ``with`` block.

    Nothing is left of it, even if this process is killed (then only the folder stays).
    """
    settings = (settings or StackSettings()).model_copy(update={"kafka_port": 0, "redis_port": 0, "mlflow_port": 0})
    with tempfile.TemporaryDirectory(prefix="millrace-stack-") as folder:
        stack = Stack(Path(folder), settings, members)
        try:
            yield stack.up(say, attached=True)
        finally:
            stack.down()
