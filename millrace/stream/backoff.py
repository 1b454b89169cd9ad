"""How long to wait before the next try."""

from __future__ import annotations

from tenacity import RetryCallState, Retrying, wait_random_exponential

# The first pause is at most this long: a lost connection is usually back at once.
_FIRST_S = 0.1


class Backoff:
    """Pauses that double from try to try, each a random part of its bound.

    Full jitter: processes that lost the same Redis do not come back to it all at once (M. Brooker, "Exponential
    backoff and jitter", AWS Architecture Blog, 2015).

    Parameters
    ----------
    max_s
        Longest pause, seconds.
    """

    def __init__(self, max_s: float) -> None:
        self._wait = wait_random_exponential(multiplier=_FIRST_S, max=max_s)
        self._state = RetryCallState(Retrying(), None, (), {})
        self.reset()

    @property
    def attempts(self) -> int:
        """Pauses since the last success."""
        return self._state.attempt_number - 1

    def next(self) -> float:
        """The pause before the next try, seconds."""
        pause = float(self._wait(self._state))
        self._state.attempt_number += 1
        return pause

    def reset(self) -> None:
        """A try succeeded."""
        self._state.attempt_number = 1
