"""The one thread that owns the encoder: it loads it, feeds it, and starts over when it dies.

One thread, because an encoder uses every core by itself, and a second call at the same time would
only make both slower.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models import Encoder
from models.errors import ClipdexError
from service.errors import EncoderFailedError, NotReadyError, UnforeseenError
from service.inference.metrics import Metrics
from service.inference.queue import BatchQueue, ImageTask, Turn

log = logging.getLogger("clipdex")
# Pause before the encoder is loaded again, in seconds; doubled after each death without an answer.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
# So many images in a row that the encoder fails on mean that the encoder is at fault.
_FAILURES_IN_A_ROW = 3
# An encoder that holds one batch longer than this many seconds is stuck.
_STUCK = 120.0

StateName = Literal["loading", "ready", "restarting", "stuck", "failed", "stopped"]


@dataclass(frozen=True)
class WorkerState:
    """What the encoder is doing; only "ready" serves.

    reason: why it isn't ready, for people; empty if it is
    """

    name: StateName
    reason: str = ""


class _EncoderIsBrokenError(Exception):
    """The encoder fails on whatever it is given."""


class EncoderWorker:
    """Runs `load()` and then whatever the queue holds, until it is stopped.

    A load that fails at the start is final ("failed"): the name or the files are wrong. After
    that, whatever kills the encoder makes it load again.
    """

    def __init__(
        self,
        load: Callable[[], Encoder],
        queue: BatchQueue,
        metrics: Metrics,
    ) -> None:
        self._load = load
        self._queue = queue
        self._metrics = metrics
        self._encoder: Encoder | None = None
        self._state = WorkerState("loading", "the model is being loaded")
        self._running: list[Future[object]] = []
        self._busy_since: float | None = None
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._stop = threading.Event()
        self._settled = threading.Event()
        self.failure: ClipdexError | None = None
        self._thread = threading.Thread(target=self._run, name="clipdex-encoder", daemon=True)

    def start(self) -> None:
        """Begin to load; returns at once."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End after the batch in hand, waiting up to `timeout` seconds; what is queued fails."""
        self._stop.set()
        self._queue.close(NotReadyError("the server is shutting down"))
        self._thread.join(timeout)

    def wait_until_settled(self, timeout: float | None = None) -> bool:
        """Wait until the first load has succeeded or failed; False after `timeout` seconds."""
        return self._settled.wait(timeout)

    @property
    def state(self) -> WorkerState:
        """What the encoder is doing now."""
        since = self._busy_since
        if self._state.name == "ready":
            if since is not None and time.monotonic() - since > _STUCK:
                return WorkerState("stuck", f"the encoder has held one batch for over {_STUCK:g} s")
            if not self._thread.is_alive():
                return WorkerState("failed", "the encoder's thread has ended")
        return self._state

    @property
    def encoder(self) -> Encoder:
        """The encoder in use. Raises: NotReadyError unless it can serve now."""
        encoder, state = self._encoder, self._state
        if encoder is None or state.name != "ready":
            raise NotReadyError(f"{state.reason}; try again a little later", retry_after=2)
        return encoder

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._begin(self._load())
                self._serve()
            except ClipdexError as error:
                self._fail_running()
                if self._is_final(error):
                    break
                log.error("loading the encoder again failed: %s", error)
                self._pause_before_restart()
            except BaseException as error:
                log.exception("the encoder died")
                self._fail_running()
                if self._is_final(error):
                    break
                self._pause_before_restart()
        if self._stop.is_set():
            self._state = WorkerState("stopped", "the server is shutting down")
        elif self.failure is not None:
            self._queue.close(self.failure)
        self._settled.set()

    def _pause_before_restart(self) -> None:
        self._metrics.restarted()
        self._state = WorkerState("restarting", "the encoder died and is loaded again")
        self._stop.wait(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _begin(self, encoder: Encoder) -> None:
        if self._encoder is not None and encoder.fingerprint != self._encoder.fingerprint:
            self.failure = EncoderFailedError(
                f"the files of {encoder.model_id} have changed since it was loaded; restart"
            )
            raise self.failure
        self._encoder = encoder
        self._failures = 0
        self._state = WorkerState("ready")
        self._settled.set()

    def _is_final(self, error: BaseException) -> bool:
        if self._encoder is None and self.failure is None:
            if isinstance(error, ClipdexError):
                self.failure = error
            else:
                self.failure = UnforeseenError(f"loading the model failed: {error!r}")
        if self.failure is not None:
            self._state = WorkerState("failed", self.failure.message)
        return self.failure is not None

    def _serve(self) -> None:
        encoder = self.encoder
        while (taken := self._queue.take()) is not None:
            self._metrics.waiting(self._queue.waiting)
            self._busy_since = time.monotonic()
            if isinstance(taken, Turn):
                self._running = [taken.future]
                self._give_turn(encoder, taken)
            else:
                self._running = [task.future for task in taken]  # type: ignore[misc]
                self._encode(encoder, taken)
            self._busy_since = None
            self._running = []

    def _encode(self, encoder: Encoder, batch: list[ImageTask]) -> None:
        started = time.perf_counter()
        try:
            vectors = encoder.encode_pixels(np.stack([task.pixels for task in batch]))
        except Exception:
            log.exception("encoding a batch of %d failed", len(batch))
            self._encode_one_by_one(encoder, batch)
            return
        self._metrics.images_encoded(len(batch), time.perf_counter() - started)
        self._failures = 0
        self._pause = _FIRST_PAUSE
        finite = np.isfinite(vectors.sum(axis=1))
        for task, vector, good in zip(batch, vectors, finite, strict=True):
            if good:
                task.future.set_result(vector)
            else:
                task.future.set_exception(
                    UnforeseenError("the encoder's vector for this image isn't finite")
                )

    def _encode_one_by_one(self, encoder: Encoder, batch: list[ImageTask]) -> None:
        """Find the image that spoils a batch, so that the others get their answers."""
        if len(batch) > 1:
            for task in batch:
                self._encode(encoder, [task])
            return
        batch[0].future.set_exception(UnforeseenError("the encoder failed on this image"))
        self._failures += 1
        if self._failures >= _FAILURES_IN_A_ROW:
            raise _EncoderIsBrokenError(f"it failed on {self._failures} images in a row")

    def _give_turn(self, encoder: Encoder, turn: Turn) -> None:
        started = time.perf_counter()
        try:
            result = turn.work(encoder)
        except Exception as error:
            # Whoever asked for the turn gets the exception, and with it the blame.
            log.debug("a turn at the encoder failed", exc_info=error)
            turn.future.set_exception(error)
            return
        self._metrics.texts_encoded(time.perf_counter() - started)
        turn.future.set_result(result)

    def _fail_running(self) -> None:
        self._busy_since = None
        for future in self._running:
            if not future.done():
                future.set_exception(
                    EncoderFailedError("the encoder died while it worked on this; try again")
                )
        self._running = []
