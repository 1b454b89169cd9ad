"""Reads users' features and the catalogue from Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from millrace.errors import InfrastructureError
from millrace.features.item_state import catalogue_key
from millrace.features.user_state import USER_FIELDS, UserState, decode_user, user_key
from millrace.redis_address import cluster_address
from millrace.settings import RedisSettings
from millrace.v1.item_pb2 import Item


class FeatureReader:
    """Reads users' states; connects when first asked."""

    def __init__(self, redis: RedisSettings) -> None:
        self._redis = _client(redis)

    async def read(self, user_id: str) -> UserState | None:
        """The user's state; None if nothing is known of the user. Raises InfrastructureError."""
        try:
            values = await self._redis.hmget(user_key(user_id), USER_FIELDS)
        except (RedisError, OSError) as error:
            raise InfrastructureError("redis", str(error)) from error
        return decode_user(cast("list[bytes | None]", values))

    async def items(self, item_ids: Sequence[str]) -> dict[str, Item]:
        """The catalogue entries of items, of those that have one. Raises InfrastructureError."""
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for item_id in item_ids:
                pipeline.hget(catalogue_key(item_id), "item")
            found = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise InfrastructureError("redis", str(error)) from error
        return {item_id: Item.FromString(value) for item_id, value in zip(item_ids, found, strict=True) if value}

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _client(redis: RedisSettings) -> Redis | RedisCluster:
    timeout_s = redis.timeout_ms / 1_000
    limits: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    address = cluster_address(redis.url)
    if address is None:
        return Redis.from_url(redis.url, retry=Retry(NoBackoff(), 0), **limits)
    return RedisCluster.from_url(
        address.url(address.nodes[0]),
        startup_nodes=[ClusterNode(*node) for node in address.nodes],
        require_full_coverage=False,
        # Once more, where the cluster lies otherwise by now.
        retry=Retry(NoBackoff(), 1),
        **limits,
    )
