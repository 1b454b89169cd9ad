"""Processes under supervisord: start, look at, stop. Used for the stack's members and for ``millrace run``."""

from __future__ import annotations

import configparser
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil

from deploy.embedded.member import CHECK_INTERVAL_S, STOP_TIMEOUT_S, clean_environment, log_tail
from millrace.errors import InfrastructureError

# It listens within a second on an idle machine; one that ends instead is noticed at once.
START_TIMEOUT_S = 60.0
# supervisord kills a program that does not end within STOP_TIMEOUT_S, and then ends itself within moments.
SHUTDOWN_MARGIN_S = 5.0
# supervisord waits 1 s, 2 s, 3 s... between tries; after the last a program counts as dead ("FATAL").
START_RETRIES = 3
# EXITED is not among them: the next try is on its way.
DEAD_STATES = frozenset({"STOPPED", "FATAL"})
LOG_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Program:
    """A process to keep running.

    Attributes
    ----------
    log
        File for what it prints; turned over at 10 MiB, one older file is kept.
    """

    name: str
    command: Sequence[str]
    directory: Path
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What supervisord says of a program; ``pid`` is 0 when it does not run.

    ``state`` is one of supervisord's: STOPPED, STARTING, RUNNING, BACKOFF (crashed, to be started again), STOPPING,
    EXITED, FATAL (crashed too often).
    """

    name: str
    state: str
    pid: int


def render(programs: Sequence[Program], folder: Path, socket: Path) -> str:
    """supervisord's configuration."""
    sections = [
        f"[unix_http_server]\nfile={_plain(socket)}\nchmod=0700\n",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
        "[supervisord]\n"
        f"logfile={_plain(folder / 'supervisord.log')}\n"
        f"pidfile={_plain(folder / 'supervisord.pid')}\n"
        f"childlogdir={_plain(folder)}\n" + ("user=root\n" if os.getuid() == 0 else ""),
        # Run by root (a container), it would warn that it stays root.
    ]
    for place, program in enumerate(programs):
        environment = ",".join(f'{name}="{_plain(value)}"' for name, value in program.environment.items())
        sections.append(
            f"[program:{program.name}]\n"
            f"command={_plain(shlex.join(program.command))}\n"
            f"directory={_plain(program.directory)}\n"
            f"environment={environment}\n"
            # Started in this order and, one after the other, stopped in the reverse one.
            f"priority={place}\n"
            f"autorestart=true\n"
            f"startretries={START_RETRIES}\n"
            f"stopwaitsecs={STOP_TIMEOUT_S:.0f}\n"
            f"killasgroup=true\n"
            f"redirect_stderr=true\n"
            # supervisord expands this one twice.
            f"stdout_logfile={_plain(_plain(program.log))}\n"
            f"stdout_logfile_maxbytes={LOG_BYTES}\n"
            f"stdout_logfile_backups=1\n"
        )
    return "\n".join(sections)


def _plain(value: object) -> str:
    """The value as it comes out of supervisord's %-expansion."""
    return str(value).replace("%", "%%")


class Supervisor:
    """A supervisord and its programs; everything that it needs is in one folder, so that any process can ask it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, programs: Sequence[Program], *, attached: bool) -> None:
        """Start the programs; attached: they end when the calling thread does, however it ends.

        (Linux binds a child to the thread that started it: call this from one that lives as long as the programs.)

        Raises
        ------
        InfrastructureError
            supervisord itself does not come up.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._configuration.write_text(render(programs, self.folder, new_socket(self.folder)))
        command = [sys.executable, "-m", "deploy.embedded.supervise", str(self._configuration)]
        with (self.folder / "supervisord.out").open("wb") as output:
            child = subprocess.Popen(
                [*command, str(os.getpid())] if attached else command,
                cwd=Path(__file__).parents[2],
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if attached:
            self._child = child
        else:
            child.wait(START_TIMEOUT_S)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.running:
            if child.poll() not in (None, 0) or time.monotonic() > deadline:
                raise InfrastructureError("supervisord", f"did not start:\n{log_tail(self.folder / 'supervisord.out')}")
            time.sleep(CHECK_INTERVAL_S)

    @property
    def running(self) -> bool:
        """Whether supervisord answers."""
        return self._ask("getState") is not None

    def processes(self) -> dict[str, ProcessInfo]:
        """The programs by name; empty when supervisord does not run."""
        answer = self._ask("getAllProcessInfo") or []
        return {one["name"]: ProcessInfo(one["name"], one["statename"], one["pid"]) for one in answer}

    def start_again(self, name: str) -> None:
        """Start a program that is stopped or crashed too often; harmless when it runs."""
        self._ask("startProcess", name, False)

    def stop(self) -> bool:
        """Stop all programs and supervisord itself; nothing runs afterwards. Returns whether anything did before."""
        supervisord = self._supervisord()
        if supervisord is not None:
            self._ask("shutdown")
            _end([supervisord], self._child)
        # If supervisord was killed, its programs went on without it.
        orphans = self._orphans()
        for orphan in orphans:
            with suppress(psutil.NoSuchProcess):
                orphan.terminate()
        _end(orphans)
        return supervisord is not None or bool(orphans)

    @property
    def _configuration(self) -> Path:
        return self.folder / "supervisord.conf"

    def _socket(self) -> Path | None:
        """The socket that supervisord was told to listen on; None if it was never started here."""
        parser = configparser.RawConfigParser()
        parser.read(self._configuration)
        path = parser.get("unix_http_server", "file", fallback=None)
        return None if path is None else Path(path.replace("%%", "%"))

    def _ask(self, method: str, *arguments: object) -> Any:
        """Call supervisord; None when it does not answer (not started, stopping, killed) or knows no such program."""
        from supervisor.xmlrpc import SupervisorTransport

        socket = self._socket()
        if socket is None or not socket.exists():
            return None
        transport = SupervisorTransport(serverurl=f"unix://{socket}")
        with ServerProxy("http://localhost", transport=transport) as proxy:
            try:
                return getattr(proxy.supervisor, method)(*arguments)
            except (OSError, HTTPException, Fault):
                return None

    def _supervisord(self) -> psutil.Process | None:
        """The supervisord that runs our configuration (the pid file alone may be of another boot)."""
        pid = self._last_pid()
        if pid is None:
            return None
        try:
            process = psutil.Process(pid)
            return process if str(self._configuration) in process.cmdline() else None
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return None

    def _last_pid(self) -> int | None:
        """Process id of the supervisord that ran last."""
        try:
            return int((self.folder / "supervisord.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _orphans(self) -> list[psutil.Process]:
        """Processes that our supervisord started."""
        address = f"unix://{self._socket()}"
        session = self._last_pid()
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                # supervisord tells each the address of its socket. Redis writes its title over its environment, and
                # is known by supervisord's session together with its folder.
                if process.environ().get("SUPERVISOR_SERVER_URL") == address or (
                    os.getsid(process.pid) == session and Path(process.cwd()).is_relative_to(self.folder)
                ):
                    found.append(process)
        return found


def _end(processes: Sequence[psutil.Process], child: subprocess.Popen[bytes] | None = None) -> None:
    """Wait for processes that were asked to end, and kill who does not; ``child``: the one among them that is ours."""
    deadline = time.monotonic() + STOP_TIMEOUT_S + SHUTDOWN_MARGIN_S
    if child is not None:
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_TIMEOUT_S + SHUTDOWN_MARGIN_S)
    _, alive = psutil.wait_procs(processes, timeout=max(0.0, deadline - time.monotonic()))
    for one in alive:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(alive, timeout=SHUTDOWN_MARGIN_S)


def new_socket(folder: Path) -> Path:
    """A path for the folder's socket, in a folder of this user only: a socket's path has at most 107 bytes.

    Raises
    ------
    InfrastructureError
        Another user has made that folder.
    """
    ours = Path(tempfile.gettempdir()) / f"millrace-{os.getuid()}"
    ours.mkdir(mode=0o700, exist_ok=True)
    if ours.stat().st_uid != os.getuid():
        raise InfrastructureError("supervisord", f"{ours} belongs to another user; remove it or set TMPDIR")
    return ours / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.sock"
