"""Several serving processes behind one port: the system shares connections out among them (SO_REUSEPORT).

They are spawned before any gRPC server exists: a server does not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import structlog

from millrace.errors import MillraceError
from millrace.settings import Settings
from millrace.stream import logs
from millrace.stream.shutdown import Shutdown

log = structlog.stdlib.get_logger(__name__)


def serve_in_processes(settings: Settings) -> int:
    """Serve in ``recommender.processes`` processes until SIGTERM or SIGINT; returns the exit status.

    When one of them ends by itself the others are drained and the status is 1: the supervisor starts all anew.
    """
    own = settings.recommender
    with _reserved(own.host, own.port) as reservation:
        port = reservation.getsockname()[1]
        spawn = multiprocessing.get_context("spawn")
        children = [
            spawn.Process(target=_serve_one, args=(port, number), name=f"recommender-{number}")
            for number in range(own.processes)
        ]
        for child in children:
            child.start()
        log.info("serving in processes", grpc=f"{own.host}:{port}", pids=[child.pid for child in children])
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            _terminate(children)

        # A child ends itself after drain_timeout_ms; one second more is for its exit.
        with Shutdown(stop, own.drain_timeout_ms / 1000 + 1.0):
            wait([child.sentinel for child in children])
            if not stopped.is_set():
                log.error("a serving process ended by itself; draining the others")
                _terminate(children)
            for child in children:
                child.join()
    return 0 if stopped.is_set() and all(child.exitcode == 0 for child in children) else 1


def _reserved(host: str, port: int) -> socket.socket:
    """A socket that holds the port (a free one for 0) and takes no connections: those go to sockets that listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reservation = socket.socket(family, socket.SOCK_STREAM)
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        reservation.bind((host, port))
    except OSError as error:
        reservation.close()
        raise MillraceError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return reservation


def _terminate(children: Sequence[BaseProcess]) -> None:
    for child in children:
        if child.is_alive():
            child.terminate()


def _serve_one(port: int, number: int) -> None:
    from services.recommender.server import serve

    # Ctrl-C reaches every process of the terminal's group; the parent alone tells when to drain.
    os.setpgid(0, 0)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()
    settings = Settings()
    logs.configure(settings.observability, f"recommender-{number}")
    settings.recommender = settings.recommender.model_copy(update={"port": port})
    metrics_port = settings.observability.metrics_port
    if metrics_port:
        settings.observability = settings.observability.model_copy(update={"metrics_port": metrics_port + number})
    serve(settings, share_port=True)


def _end_with(parent: BaseProcess) -> None:
    """Drain when the parent is gone (killed): nobody else would end this process."""
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
