"""Brings topics to an event loop: what keeps a mirror or a view up to date without locks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from millrace.stream.reader import TopicReader
from millrace.stream.worker import Record


class Feed:
    """A thread that reads topics and has the event loop apply the records, chunk by chunk.

    Parameters
    ----------
    name
        Of the thread.
    reader
        Makes the reader, in the thread.
    chunk
        Most records that are applied before the loop's other tasks get their turn.
    apply
        Takes them, on the event loop.

    Attributes
    ----------
    caught_up
        Set once everything was applied that stood on the broker when the reader found it.
    lag
        Records not read yet.
    """

    def __init__(
        self, name: str, reader: Callable[[], TopicReader], chunk: int, apply: Callable[[Sequence[Record]], None]
    ) -> None:
        self.caught_up = asyncio.Event()
        self.lag = 0
        self._reader = reader
        self._chunk = chunk
        self._apply = apply
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name=name, daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    async def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    def _read(self) -> None:
        with self._reader() as reader:
            while not self._stop.is_set():
                records = reader.poll(max_records=10 * self._chunk, timeout_s=0.1)
                for start in range(0, len(records), self._chunk):
                    self._on_loop(records[start : start + self._chunk])
                self.lag = reader.lag()
                if reader.caught_up and not self.caught_up.is_set():
                    self._loop.call_soon_threadsafe(self.caught_up.set)

    def _on_loop(self, records: Sequence[Record]) -> None:
        """Have the loop apply the records, and wait: at most one chunk is ahead of it."""
        applied = threading.Event()

        def apply() -> None:
            try:
                self._apply(records)
            finally:
                applied.set()

        self._loop.call_soon_threadsafe(apply)
        while not (applied.wait(0.1) or self._stop.is_set()):
            pass
