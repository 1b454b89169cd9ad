"""Where Redis is: one server (``redis://``, ``rediss://``) or the nodes of a cluster (``redis+cluster://``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

_CLUSTER = "+cluster"
_SCHEMES = ("redis", "rediss")
_FORM = "redis+cluster://[user:password@]host:port,host:port,… (rediss+cluster:// for TLS)"
_DEFAULT_PORT = 6379
# A name, an IPv4 address, or an IPv6 address in brackets.
_NODE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#\s]+)(?::(?P<port>\d{1,5}))?")


class Node(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """What is known of a cluster before it was asked.

    Attributes
    ----------
    nodes
        Some of its nodes, any of which tells the others.
    """

    nodes: tuple[Node, ...]
    _scheme: str
    _login: str
    _options: str

    def url(self, node: Node) -> str:
        """The address of one node, as clients of one Redis take it."""
        return f"{self._scheme}://{self._login}{node}/0{self._options}"


def cluster_address(url: str) -> ClusterAddress | None:
    """The cluster that an address names; None if it names one Redis.

    Raises
    ------
    ValueError
        It names several servers and not a cluster, or a cluster in a form that is none. Passwords are not in the
        message.

    Examples
    --------
    >>> cluster_address("redis+cluster://one:7000,two").nodes
    (Node(host='one', port=7000), Node(host='two', port=6379))
    >>> cluster_address("redis://localhost:6379/0") is None
    True
    """
    scheme, _, rest = url.partition("://")
    kind = scheme.removesuffix(_CLUSTER)
    place, question, query = rest.partition("?")
    login, at, place = place.rpartition("@")
    place, _, database = place.partition("/")
    if kind == scheme:
        if kind in _SCHEMES and "," in place:
            raise ValueError(f"several servers are a cluster: {_FORM}")
        return None
    if kind not in _SCHEMES:
        raise ValueError(f"no scheme {scheme!r}: {_FORM}")
    if database not in ("", "0"):
        raise ValueError(f"a cluster has no database but 0, not {database!r}: {_FORM}")
    return ClusterAddress(tuple(_node(one) for one in place.split(",")), kind, f"{login}{at}", f"{question}{query}")


def without_login(url: str) -> str:
    """The address without user and password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _node(text: str) -> Node:
    found = _NODE.fullmatch(text.strip())
    port = int(found["port"] or _DEFAULT_PORT) if found else 0
    if found is None or not 0 < port < 65_536:
        raise ValueError(f"{text!r} is no host:port: {_FORM}")
    return Node(found["host"].strip("[]"), port)
