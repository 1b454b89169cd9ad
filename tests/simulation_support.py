"""Sessions played without a clock or a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from millrace.simulation.sessions import Ask, Page, Pause, Step, session
from millrace.simulation.world import World

Show = Callable[[Ask], Page | None]


def play(world: World, shopper: int, number: int, show: Show, begin: int = 0) -> Iterator[Step]:
    """Every step of a session but for asking; the world's time goes with its pauses."""
    steps = session(world, shopper, number, begin)
    answer: Page | None = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration:
            return
        answer = None
        if isinstance(step, Ask):
            answer = show(step)
            continue
        if isinstance(step, Pause):
            world.advance(world.now_s + step.seconds)
        yield step


def random_pages(world: World, seed: int = 0, k: int = 10) -> Show:
    """A shop that shows any items."""
    from millrace.simulation.chance import Purpose, chance

    rng = chance(seed, Purpose.SHELVES)
    return lambda ask: Page(world.shelves.random(k, rng), "shown")
