"""Reads users' features from Redis."""

from __future__ import annotations

from typing import cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from millrace.errors import InfrastructureError
from millrace.features.user_state import USER_FIELDS, UserState, decode_user, user_key
from millrace.settings import RedisSettings


class FeatureReader:
    """Reads users' states; connects when first asked."""

    def __init__(self, redis: RedisSettings) -> None:
        timeout_s = redis.timeout_ms / 1_000
        self._redis: Redis = Redis.from_url(
            redis.url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )

    async def read(self, user_id: str) -> UserState | None:
        """The user's state; None if nothing is known of the user. Raises InfrastructureError."""
        try:
            values = await self._redis.hmget(user_key(user_id), USER_FIELDS)
        except (RedisError, OSError) as error:
            raise InfrastructureError("redis", str(error)) from error
        return decode_user(cast("list[bytes | None]", values))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
