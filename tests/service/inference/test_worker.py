"""Faults that really happen in the encoder's thread."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from models.errors import UnknownModelError
from service.errors import EncoderFailedError, NotReadyError, UnforeseenError
from service.inference.metrics import Metrics
from service.inference.queue import BatchQueue, ImageTask, Turn
from service.inference.worker import EncoderWorker
from tests.service.fakes import SIZE, ColourEncoder
from tests.service.servers import wait_for


class Bench:
    """A worker with its queue."""

    def __init__(self, load=ColourEncoder) -> None:
        self.queue = BatchQueue(size=64, max_batch=4, wait=0)
        self.metrics = Metrics()
        self.loads = 0
        self.worker = EncoderWorker(self._load, self.queue, self.metrics)
        self._make = load

    def _load(self):
        self.loads += 1
        return self._make()

    def __enter__(self):
        self.worker.start()
        assert self.worker.wait_until_settled(30)
        return self

    def __exit__(self, *exc):
        self.worker.stop()

    def images(self, *values: float) -> list[Future[Any]]:
        futures = []
        self.queue.admit(len(values))
        for value in values:
            pixels = np.full((3, SIZE, SIZE), value, np.float32)
            futures.append(Future())
            self.queue.put(ImageTask(pixels, futures[-1]))
        return futures

    def turn(self, work) -> Future[Any]:
        future: Future[Any] = Future()
        self.queue.put_turn(Turn(work, future))
        return future


def poisoned(value: float, error: BaseException):
    """An encoder that raises when an image of this brightness is in the batch."""

    def make() -> ColourEncoder:
        encoder = ColourEncoder()

        def check(pixels):
            if (pixels[:, 0, 0, 0] == np.float32(value)).any():
                raise error

        encoder.on_batch = check
        return encoder

    return make


def test_an_image_that_breaks_a_batch_fails_alone():
    with Bench(poisoned(0.5, RuntimeError("bad tile"))) as bench:
        bench.turn(lambda encoder: None).result(10)
        good, bad, also_good = bench.images(0.1, 0.5, 0.9)
        assert good.result(10).shape == also_good.result(10).shape == (16,)
        with pytest.raises(UnforeseenError):
            bad.result(10)
        assert bench.worker.state.name == "ready"
        assert bench.loads == 1


def test_failing_on_everything_means_loading_again():
    with Bench(poisoned(0.5, RuntimeError("the device is gone"))) as bench:
        for future in bench.images(0.5, 0.5, 0.5):
            assert future.exception(10) is not None
        wait_for(lambda: bench.loads == 2)
        wait_for(lambda: bench.worker.state.name == "ready")
        assert bench.images(0.1)[0].result(10).shape == (16,)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_kills_the_encoder_is_seen_and_mended(error):
    with Bench(poisoned(0.5, error)) as bench:
        hit = bench.images(0.5)[0]
        with pytest.raises(EncoderFailedError, match="died"):
            hit.result(10)
        wait_for(lambda: bench.worker.state.name == "restarting")
        with pytest.raises(NotReadyError):
            _ = bench.worker.encoder
        waiting = bench.images(0.2)[0]  # what is queued meanwhile is served afterwards
        assert waiting.result(10).shape == (16,)
        assert bench.worker.state.name == "ready"
        assert bench.loads == 2
        assert b"clipdex_encoder_restarts_total 1.0" in bench.metrics.exposition()


def test_loading_again_is_tried_until_it_works():
    attempts = iter([ColourEncoder, OSError, OSError, ColourEncoder])

    def load():
        made = next(attempts)()
        if isinstance(made, OSError):
            raise made
        made.on_batch = poisoned(0.5, SystemExit())().on_batch
        return made

    with Bench(load) as bench:
        assert isinstance(bench.images(0.5)[0].exception(10), EncoderFailedError)
        assert bench.images(0.1)[0].result(20).shape == (16,)
        assert bench.loads == 4


def test_a_model_that_never_loads_is_final_and_fails_all_who_wait():
    def load():
        raise UnknownModelError("there is no such model", param="model")

    with Bench(load) as bench:
        assert bench.worker.state.name == "failed"
        assert isinstance(bench.worker.failure, UnknownModelError)
        wait_for(lambda: bench.images(0.1)[0].exception(10) is bench.worker.failure)
        assert bench.loads == 1


def test_other_weights_after_a_restart_are_refused():
    prints = iter(["a", "b"])

    def load():
        encoder = poisoned(0.5, SystemExit())()
        encoder.fingerprint = next(prints)
        return encoder

    with Bench(load) as bench:
        bench.images(0.5)[0].exception(10)
        wait_for(lambda: bench.worker.state.name == "failed")
        assert "have changed" in bench.worker.state.reason


def test_a_turn_that_fails_tells_its_owner_and_nobody_else():
    with Bench() as bench:
        failed = bench.turn(lambda encoder: encoder.encode_texts(None))
        assert isinstance(failed.exception(10), TypeError)
        assert bench.turn(lambda encoder: encoder.dim).result(10) == 16


def test_a_vector_that_is_not_finite_is_no_answer():
    with Bench() as bench:
        good, bad = bench.images(0.3, float("nan"))
        assert good.result(10).shape == (16,)
        with pytest.raises(UnforeseenError):
            bad.result(10)


def test_stopping_fails_what_waits_and_ends_the_thread():
    with Bench() as bench:
        bench.worker.stop()
        assert bench.worker.state.name == "stopped"
        with pytest.raises(NotReadyError, match="shutting down"):
            bench.images(0.1)[0].result(10)
