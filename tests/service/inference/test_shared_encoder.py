from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from models import Encoder
from service.inference.metrics import Metrics
from service.inference.queue import BatchQueue
from service.inference.shared_encoder import SharedEncoder, TextCache
from service.inference.worker import EncoderWorker
from tests.service.fakes import ColourEncoder


@pytest.fixture
def running():
    inner = ColourEncoder()
    queue = BatchQueue(size=8, max_batch=4, wait=0)
    worker = EncoderWorker(lambda: inner, queue, Metrics())
    worker.start()
    assert worker.wait_until_settled(30)
    yield inner, queue
    worker.stop()


def test_it_is_an_encoder_with_the_same_answers(running):
    inner, queue = running
    shared = SharedEncoder(inner, queue)
    assert isinstance(shared, Encoder)
    texts = [f"thing {number}" for number in range(200)]
    images = [Image.new("RGB", (9, 9), (number, 0, 0)) for number in range(40)]
    np.testing.assert_array_equal(shared.encode_texts(texts), inner.encode_texts(texts))
    np.testing.assert_array_equal(shared.encode_images(images), inner.encode_images(images))
    assert shared.count_tokens(["a b"]) == [4]
    assert shared.encode_texts([]).shape == (0, 16)
    assert shared.encode_images([]).shape == (0, 16)


def test_every_call_runs_on_the_encoders_thread(running):
    inner, queue = running
    shared = SharedEncoder(inner, queue)
    shared.encode_texts(["red"])
    shared.encode_images([Image.new("RGB", (9, 9))])
    assert inner.threads == {"clipdex-encoder"}


def test_long_lists_go_in_parts_that_let_images_in_between(running):
    inner, queue = running
    sizes = []
    inner.on_texts = lambda texts: sizes.append(len(texts))
    SharedEncoder(inner, queue).encode_texts([f"text {number}" for number in range(3000)])
    assert sum(sizes) == 3000
    assert max(sizes) <= 512
    assert len(sizes) > 5


def test_cached_texts_are_encoded_once_and_the_oldest_are_forgotten(running):
    inner, queue = running
    cache = TextCache(3)
    shared = SharedEncoder(inner, queue, cache)
    first = shared.encode_texts(["red", "blue", "red"])
    np.testing.assert_array_equal(first[0], first[2])
    assert inner.texts_seen == ["red", "blue"]
    np.testing.assert_array_equal(shared.encode_texts(["blue", "red"]), first[[1, 0]])
    assert inner.texts_seen == ["red", "blue"]
    shared.encode_texts(["green", "white"])  # pushes "blue" out, which was used before "red"
    assert len(cache) == 3
    shared.encode_texts(["red"])
    assert inner.texts_seen == ["red", "blue", "green", "white"]
    shared.encode_texts(["blue"])
    assert inner.texts_seen[-1] == "blue"


def test_what_fails_in_a_turn_is_raised_here(running):
    inner, queue = running

    def fail(texts):
        raise RuntimeError("no")

    inner.on_texts = fail
    with pytest.raises(RuntimeError, match="no"):
        SharedEncoder(inner, queue).encode_texts(["red"])
