"""Free ports on 127.0.0.1."""

from __future__ import annotations

import random
import socket

# Below the range from which Linux takes ports of outgoing connections (32768 and up): between the choice of a port
# here and the server's bind no client's connection can take it.
FREE_RANGE = range(20_000, 32_000)
TRIES = 200


def is_free(port: int) -> bool:
    """Whether a server may listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set this too: connections of an earlier server in TIME_WAIT do not stand in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(taken: frozenset[int] = frozenset()) -> int:
    """A free port that is none of ``taken`` (chosen for others, which do not listen yet)."""
    for _ in range(TRIES):
        port = random.choice(FREE_RANGE)
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port on 127.0.0.1 in {TRIES} tries between {FREE_RANGE.start} and {FREE_RANGE.stop}")


def preferred_or_free(preferred: int, taken: frozenset[int] = frozenset()) -> int:
    """The preferred port if it is free, else another; 0 prefers none."""
    if preferred and preferred not in taken and is_free(preferred):
        return preferred
    return free_port(taken)
