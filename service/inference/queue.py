"""Who is next at the encoder: images of many clients in shared batches, everything else in turns.

A batch closes when it is full, when its oldest image has waited long enough, or when no other
image is on its way; so a lone request on an idle machine never waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from models import Encoder
from models.encoder import Vectors
from models.errors import ClipdexError
from service.errors import QueueFullError

_QUIET = 1.0  # seconds


@dataclass(slots=True, eq=False)
class ImageTask:
    """One preprocessed image: float32 [3, H, W], and where its vector [D] goes."""

    pixels: Vectors
    future: Future[Vectors]
    arrived: float = field(default_factory=time.monotonic)


@dataclass(slots=True, eq=False)
class Turn:
    """A short piece of other work for the encoder, such as some prompts of a long list."""

    work: Callable[[Encoder], object]
    future: Future[object]


class BatchQueue:
    """Bounded in images; safe to use from any thread.

    size: images admitted and not yet taken
    max_batch: images in one batch
    wait: seconds that a batch waits for images on their way
    """

    def __init__(self, *, size: int, max_batch: int, wait: float) -> None:
        self._size = size
        self._max_batch = max_batch
        self._wait = wait
        self._images: deque[ImageTask] = deque()
        self._turns: deque[Turn] = deque()
        self._coming = 0  # admitted, still being decoded
        self._last_image = float("-inf")  # when it was admitted
        self._turn_is_due = False
        self._closed: ClipdexError | None = None
        self._changed = threading.Condition()

    @property
    def quiet(self) -> bool:
        """Whether no image has come for a while, so that nobody minds a long turn."""
        return time.monotonic() - self._last_image > _QUIET

    @property
    def waiting(self) -> int:
        """Images admitted that the encoder hasn't taken yet."""
        return self._coming + len(self._images)

    def admit(self, count: int) -> None:
        """Reserve places for `count` images; `put` or `drop` each of them afterwards.

        Raises: QueueFullError at once if there is no room for all of them.
        """
        with self._changed:
            self.check_room(count)
            self._last_image = time.monotonic()
            self._coming += count

    def check_room(self, count: int = 1) -> None:
        """Raises: QueueFullError if `count` more images would be too many now."""
        waiting = self.waiting
        if waiting + count > self._size:
            raise QueueFullError(
                f"{waiting} images are waiting, the queue holds {self._size}; "
                "try again a little later"
            )

    def put(self, task: ImageTask) -> None:
        """Hand over an admitted image."""
        with self._changed:
            self._coming -= 1
            self._images.append(task)
            self._changed.notify()
            if self._closed:
                self._abandon(self._closed)

    def drop(self) -> None:
        """Give up an admitted image: it can't be decoded, or its client has gone."""
        with self._changed:
            self._coming -= 1
            self._changed.notify()

    def put_turn(self, turn: Turn) -> None:
        """Ask for a turn between two batches."""
        with self._changed:
            self._turns.append(turn)
            self._changed.notify()
            if self._closed:
                self._abandon(self._closed)

    def close(self, error: ClipdexError) -> None:
        """Let `take` return None; whatever waits, now or later, fails with `error`."""
        with self._changed:
            self._closed = error
            self._abandon(error)
            self._changed.notify()

    def take(self) -> list[ImageTask] | Turn | None:
        """The next batch or turn, whoever's time it is; waits for one. None: closed.

        What is taken can't be cancelled any more; what was cancelled before is left out.
        """
        with self._changed:
            while True:
                turn = self._next_turn()
                if turn is not None:
                    return turn
                batch = self._next_batch()
                if batch:
                    self._turn_is_due = True
                    return batch
                if self._closed:
                    return None
                if not self._turns:
                    self._changed.wait()

    def _next_turn(self) -> Turn | None:
        if self._images and not self._turn_is_due:
            return None
        self._turn_is_due = False
        while self._turns:
            turn = self._turns.popleft()
            if turn.future.set_running_or_notify_cancel():
                return turn
        return None

    def _next_batch(self) -> list[ImageTask]:
        batch: list[ImageTask] = []
        while self._images:
            while self._images and len(batch) < self._max_batch:
                task = self._images.popleft()
                if task.future.set_running_or_notify_cancel():
                    batch.append(task)
            if not batch or len(batch) == self._max_batch:
                break
            left = batch[0].arrived + self._wait - time.monotonic()
            while not self._images and self._coming and left > 0:
                self._changed.wait(left)
                left = batch[0].arrived + self._wait - time.monotonic()
        return batch

    def _abandon(self, error: ClipdexError) -> None:
        waiting: list[ImageTask | Turn] = [*self._images, *self._turns]
        self._images.clear()
        self._turns.clear()
        for task in waiting:
            if task.future.set_running_or_notify_cancel():
                task.future.set_exception(error)
