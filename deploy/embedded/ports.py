"""Free ports on 127.0.0.1."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections import deque

# Below the range from which Linux takes ports of outgoing connections (32768 and up): between the choice of a port
# here and the server's bind no client's connection can take it.
FREE_RANGE = range(20_000, 32_000)
TRIES = 200
# So many of the ports that were chosen last are kept for their servers, which need seconds to listen.
CLAIMS_KEPT = 256

_claims: deque[int] = deque()


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
    """A free port that is none of ``taken`` (chosen for others, which do not listen yet).

    Nobody on this machine who chooses a port here is given the same one while this process lives (on Linux).
    """
    for _ in range(TRIES):
        port = random.choice(FREE_RANGE)
        if port not in taken and is_free(port) and _claimed(port):
            return port
    raise OSError(f"no free port on 127.0.0.1 in {TRIES} tries between {FREE_RANGE.start} and {FREE_RANGE.stop}")


def free_ports_apart(distance: int, taken: frozenset[int] = frozenset()) -> int:
    """A free port that is none of ``taken``, for a server that listens at the one ``distance`` above as well."""
    for _ in range(TRIES):
        port = random.choice(range(FREE_RANGE.start, FREE_RANGE.stop - distance))
        both = port, port + distance
        if not taken & {*both} and all(map(is_free, both)) and all(map(_claimed, both)):
            return port
    raise OSError(f"no two free ports on 127.0.0.1 that are {distance} apart in {TRIES} tries")


def preferred_or_free(preferred: int, taken: frozenset[int] = frozenset()) -> int:
    """The preferred port if it is free, else another; 0 prefers none."""
    if preferred and preferred not in taken and is_free(preferred):
        return preferred
    return free_port(taken)


def _claimed(port: int) -> bool:
    """Whether the port is now ours: two who choose at the same time would both find it free.

    A claim is an abstract socket, which leaves no file and goes with its process, however that ends.
    """
    if sys.platform != "linux":
        return True
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0millrace-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim.detach())
    if len(_claims) > CLAIMS_KEPT:
        os.close(_claims.popleft())
    return True
