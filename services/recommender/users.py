"""Reads users' features from Redis: one HMGET for each request."""

from __future__ import annotations

import asyncio
import time

import structlog

from millrace.errors import InfrastructureError
from millrace.features.user_state import USER_FIELDS, UserState, decode_user, user_key
from millrace.redis_address import cluster_address
from millrace.settings import RedisSettings
from services.recommender import metrics
from services.recommender.redis_pipe import RedisPipe, Reply
from services.recommender.redis_pipes import RedisPipes

log = structlog.stdlib.get_logger(__name__)

# While Redis is away every request says so in its answer; the log needs it once in this time.
_LOG_EVERY_S = 10.0

_HMGET = b"*%d\r\n$5\r\nHMGET\r\n" % (len(USER_FIELDS) + 2)
_FIELDS = b"".join(b"$%d\r\n%s\r\n" % (len(name), name.encode()) for name in USER_FIELDS)


class UserReader:
    """Reads users' states.

    Parameters
    ----------
    redis
        Where Redis is.
    timeout_ms
        Longest time of a round trip, and of connecting.
    """

    def __init__(self, redis: RedisSettings, timeout_ms: int) -> None:
        self._timeout_s = timeout_ms / 1000
        address = cluster_address(redis.url)
        self._redis = (
            RedisPipe(redis, self._timeout_s) if address is None else RedisPipes(redis, address, self._timeout_s)
        )
        self._logged_at = float("-inf")

    async def read(self, user_id: str, timeout_s: float, promptly: bool = True) -> UserState | None:
        """The user's state; None if nothing is known of the user. ``promptly``: see ``RedisPipe.ask``.

        Raises
        ------
        InfrastructureError
            Redis does not answer, or not within ``timeout_s``.
        """
        asked_at = time.perf_counter()
        answer = self._ask(user_key(user_id).encode(), promptly)
        try:
            # The pipe has a time limit of its own, so that a shorter one alone needs a timer.
            if timeout_s < self._timeout_s and not answer.done():
                await asyncio.wait((answer,), timeout=timeout_s)
                if not answer.done():
                    raise InfrastructureError("redis", f"no answer within {timeout_s * 1000:.0f} ms")
            values = await answer
        except InfrastructureError as error:
            metrics.FEATURES_FAILURES.inc()
            self._log(error)
            raise
        metrics.FEATURES_READ_SECONDS.observe(time.perf_counter() - asked_at)
        return decode_user(values)

    async def close(self) -> None:
        """Close the connection; reads that still wait fail."""
        await self._redis.close()

    def _ask(self, key: bytes, promptly: bool) -> asyncio.Future[Reply]:
        if isinstance(self._redis, RedisPipes):
            return self._redis.ask(key, _command(key), promptly)
        return self._redis.ask(_command(key), promptly)

    def _log(self, error: InfrastructureError) -> None:
        now = time.monotonic()
        if now - self._logged_at > _LOG_EVERY_S:
            self._logged_at = now
            log.warning("answering without features of users", problem=str(error))


def _command(key: bytes) -> bytes:
    """HMGET of the user's fields, as Redis reads it."""
    return b"%s$%d\r\n%s\r\n%s" % (_HMGET, len(key), key, _FIELDS)
