"""Results of other threads for the event loop, many at each waking.

Waking the loop costs a call to the system. `asyncio.wrap_future` does it for every result; the
encoder hands over a whole batch of them at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Make one on the event loop whose coroutines wait."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._letters: deque[tuple[asyncio.Future[T], Future[T]]] = deque()
        self._woken = False

    def wait_for(self, future: Future[T]) -> asyncio.Future[T]:
        """What `future` comes to, to be awaited. Cancelling it cancels `future`."""
        waiter = self._loop.create_future()
        waiter.add_done_callback(lambda done: future.cancel() if done.cancelled() else None)
        future.add_done_callback(lambda done: self._post(waiter, done))
        return waiter

    def _post(self, waiter: asyncio.Future[T], done: Future[T]) -> None:
        """Runs on whichever thread finished the work."""
        self._letters.append((waiter, done))
        # Two threads may both wake the loop; none can find it woken and its letter left behind,
        # because the loop forgets that it was woken before it looks.
        if not self._woken:
            self._woken = True
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._open)

    def _open(self) -> None:
        self._woken = False
        while self._letters:
            waiter, done = self._letters.popleft()
            if waiter.done() or done.cancelled():
                continue
            error = done.exception()
            if error is None:
                waiter.set_result(done.result())
            else:
                waiter.set_exception(error)
