"""Results of other threads for the event loop, many at each wake-up.

Waking the loop costs a system call. `asyncio.wrap_future` wakes it for every result; the encoder
hands over a whole batch of them at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class ResultQueue(Generic[T]):
    """Futures of the event loop on which it is made, for futures of other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._results: deque[tuple[asyncio.Future[T], Future[T]]] = deque()
        self._wake_up_is_due = False

    def wait_for(self, future: Future[T]) -> asyncio.Future[T]:
        """What `future` comes to, to be awaited. Cancelling it cancels `future`."""
        waiter = self._loop.create_future()
        waiter.add_done_callback(lambda done: future.cancel() if done.cancelled() else None)
        future.add_done_callback(lambda done: self._put(waiter, done))
        return waiter

    def _put(self, waiter: asyncio.Future[T], done: Future[T]) -> None:
        """Runs on whichever thread finished the work."""
        self._results.append((waiter, done))
        # Two threads may both wake the loop. No result is left behind: the loop resets the flag
        # before it looks into the queue.
        if not self._wake_up_is_due:
            self._wake_up_is_due = True
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._wake_up_is_due = False
        while self._results:
            waiter, done = self._results.popleft()
            if waiter.done() or done.cancelled():
                continue
            error = done.exception()
            if error is None:
                waiter.set_result(done.result())
            else:
                waiter.set_exception(error)
