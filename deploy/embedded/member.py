"""A member of the embedded stack: one server process with a folder, a port and a proof that it is ready."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psutil

from millrace.errors import InfrastructureError

# Environment variables that would change a JVM behind our back: the broker must start the same way on every machine.
FOREIGN_JAVA = ("JAVA_HOME", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")

# MLflow on two busy cores needs 12-17 s (measured), the others two; neighbours may make that ten times as long. One
# that ends instead is noticed at once.
READY_TIMEOUT_S = 180.0
CHECK_INTERVAL_S = 0.05
# A broker closes its logs in 0.3 s, Redis fsyncs its file; whoever needs longer than this hangs.
STOP_TIMEOUT_S = 20.0
LOG_TAIL_LINES = 30


class NotReady(Exception):
    """A member does not serve yet (or no more). The message says what was asked and what came back."""


class Member(Protocol):
    """One server.

    Attributes
    ----------
    name
        ``kafka``, ``redis`` or ``mlflow``.
    folder
        Its configuration and data.
    port
        Where it listens on 127.0.0.1.
    """

    @property
    def name(self) -> str: ...

    @property
    def folder(self) -> Path: ...

    @property
    def port(self) -> int: ...

    @property
    def address(self) -> str:
        """What a client connects to, in the form that its setting takes."""

    def prepare(self) -> None:
        """Write configuration and format storage. Harmless when done before. Raises InfrastructureError."""

    def command(self) -> list[str]:
        """The command line of the server, which stays in the foreground."""

    def environment(self) -> Mapping[str, str]:
        """Environment variables on top of this process's own."""

    def check(self) -> None:
        """Ask the server for something that only a working one answers; raises NotReady otherwise."""


def log_path(member: Member) -> Path:
    """File with everything that the member prints."""
    return member.folder / f"{member.name}.log"


def log_tail(path: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log, for a message to a person."""
    if not path.exists():
        return "(no log)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def clean_environment() -> dict[str, str]:
    """This process's environment without what would reach into the JVM of the broker."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN_JAVA}


def connect(port: int) -> None:
    """Raise NotReady unless something listens on the port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError as error:
        raise NotReady(f"nothing listens on 127.0.0.1:{port} ({error.strerror or error})") from error


def wait_ready(member: Member, alive: Callable[[], bool], timeout_s: float = READY_TIMEOUT_S) -> None:
    """Return when the member serves.

    Raises
    ------
    InfrastructureError
        Its process ended (``alive`` says so) or it does not serve in time; the message holds the end of its log.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            member.check()
            return
        except NotReady as error:
            log = log_path(member)
            if not alive():
                problem = "ended instead of starting"
            elif time.monotonic() > deadline:
                problem = f"is not ready after {timeout_s:.0f} s: {error}"
            else:
                # A server's readiness can only be asked for: it sends no event.
                time.sleep(CHECK_INTERVAL_S)
                continue
            raise InfrastructureError(member.name, f"{problem}; the end of its log {log}:\n{log_tail(log)}") from error


def start(member: Member) -> subprocess.Popen[bytes]:
    """Prepare the member and start its process as the leader of a session (a Ctrl-C in the terminal is not for it)."""
    member.folder.mkdir(parents=True, exist_ok=True)
    member.prepare()
    with log_path(member).open("ab") as log:
        return subprocess.Popen(
            member.command(),
            cwd=member.folder,
            env=clean_environment() | dict(member.environment()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], timeout_s: float = STOP_TIMEOUT_S) -> None:
    """End a process that leads a session, and whoever is left of the session: SIGTERM, and SIGKILL after the time."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for one in _session(process.pid):
        with suppress(psutil.NoSuchProcess):
            one.kill()


def _session(leader: int) -> Iterator[psutil.Process]:
    """Processes of a session; they are found also when their leader was killed before them."""
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == leader:
                yield process


@contextmanager
def running(member: Member, timeout_s: float = READY_TIMEOUT_S) -> Iterator[subprocess.Popen[bytes]]:
    """The member, ready, for the length of a ``with`` block; its folder stays."""
    process = start(member)
    try:
        wait_ready(member, alive=lambda: process.poll() is None, timeout_s=timeout_s)
        yield process
    finally:
        stop(process)
