"""redis-py's client of one Redis, or of a cluster."""

from __future__ import annotations

from redis import Redis
from redis.cluster import ClusterNode, RedisCluster

from millrace.redis_address import cluster_address


def redis_client(url: str) -> Redis | RedisCluster:
    """The client of an address as ``REDIS_URL`` takes it; a context manager."""
    address = cluster_address(url)
    if address is None:
        return Redis.from_url(url)
    nodes = [ClusterNode(*node) for node in address.nodes]  # type: ignore[no-untyped-call]
    return RedisCluster.from_url(address.url(address.nodes[0]), startup_nodes=nodes)
