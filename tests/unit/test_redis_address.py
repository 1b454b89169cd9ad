"""Where Redis is: what names a cluster, and what is refused with words that help."""

from __future__ import annotations

import pytest

from millrace.errors import MillraceError
from millrace.redis_address import Node, cluster_address
from millrace.settings import RedisSettings


@pytest.mark.parametrize(
    ("url", "nodes", "first"),
    [
        ("redis+cluster://one:7000,two:7001", [("one", 7000), ("two", 7001)], "redis://one:7000/0"),
        ("redis+cluster://one", [("one", 6379)], "redis://one:6379/0"),
        (
            "rediss+cluster://me:se,cr@et@one:7000,10.0.0.2/0?ssl_ca_certs=ca.pem",
            [("one", 7000), ("10.0.0.2", 6379)],
            "rediss://me:se,cr@et@one:7000/0?ssl_ca_certs=ca.pem",
        ),
        ("redis+cluster://[::1]:7000, two", [("::1", 7000), ("two", 6379)], "redis://[::1]:7000/0"),
    ],
)
def test_a_cluster_is_named_by_some_of_its_nodes(url: str, nodes: list[tuple[str, int]], first: str) -> None:
    address = cluster_address(url)
    assert address is not None
    assert list(address.nodes) == [Node(*node) for node in nodes]
    assert address.url(address.nodes[0]) == first
    assert RedisSettings(url=url).url == url


@pytest.mark.parametrize("url", ["redis://one:7000/3", "rediss://me:se,cret@one", "unix:///run/redis.sock?db=1"])
def test_one_redis_is_named_as_ever(url: str) -> None:
    assert cluster_address(url) is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://one:7000,two:7000", "several servers are a cluster"),
        ("redis+cluster://", "'' is no host:port"),
        ("redis+cluster://one:7000,", "'' is no host:port"),
        ("redis+cluster://one:70000", "'one:70000' is no host:port"),
        ("redis+cluster://one:port", "'one:port' is no host:port"),
        ("redis+cluster://me:secret@one/3", "no database but 0, not '3'"),
        ("valkey+cluster://one", "no scheme 'valkey\\+cluster'"),
    ],
)
def test_what_is_no_address_is_refused(url: str, problem: str) -> None:
    with pytest.raises(MillraceError, match=f"REDIS_URL: .*{problem}.*redis\\+cluster://") as caught:
        RedisSettings(url=url)
    assert "secret" not in str(caught.value)
