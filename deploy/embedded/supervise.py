"""``python -m deploy.embedded.supervise CONF [PARENT]``: supervisord, detached or bound to the life of a parent.

Without PARENT it becomes a daemon. With the parent's process id it stays in the foreground and stops everything
when the parent is gone, even if that was killed with -9: Linux sends it a SIGTERM then.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(parent: int) -> None:
    """Have Linux send this process a SIGTERM when its parent dies; exit at once when it is dead already."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(0)


def main() -> None:
    """Run supervisord with the configuration file."""
    from supervisor.supervisord import main as supervisord

    arguments = ["-c", sys.argv[1]]
    if len(sys.argv) > 2:
        end_with_parent(int(sys.argv[2]))
        arguments.append("--nodaemon")
    supervisord(arguments)


if __name__ == "__main__":
    main()
