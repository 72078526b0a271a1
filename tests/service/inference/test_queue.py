from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from service.errors import NotReadyError, QueueFullError
from service.inference.queue import BatchQueue, ImageTask, Turn

NEVER = 60.0  # seconds that no test waits


def task() -> ImageTask:
    return ImageTask(np.zeros((3, 1, 1), np.float32), Future())


def filled(count: int, **options) -> tuple[BatchQueue, list[ImageTask]]:
    queue = BatchQueue(**{"size": 64, "max_batch": 4, "wait": NEVER, **options})
    tasks = [task() for _ in range(count)]
    queue.admit(count)
    for item in tasks:
        queue.put(item)
    return queue, tasks


def turn() -> Turn:
    return Turn(lambda encoder: None, Future())


def test_images_come_in_order_in_batches_of_at_most_the_given_size():
    queue, tasks = filled(10)
    assert [queue.take() for _ in range(3)] == [tasks[:4], tasks[4:8], tasks[8:]]
    assert queue.waiting == 0


def test_a_lone_image_goes_at_once():
    queue, tasks = filled(1)
    assert queue.take() == tasks


def test_a_batch_waits_for_an_image_on_its_way():
    queue, tasks = filled(1)
    queue.admit(1)
    late = task()
    threading.Timer(0.05, queue.put, [late]).start()
    assert queue.take() == [*tasks, late]


def test_a_batch_no_longer_waits_when_the_image_on_its_way_is_given_up():
    queue, tasks = filled(1)
    queue.admit(1)
    threading.Timer(0.05, queue.drop).start()
    assert queue.take() == tasks


def test_a_batch_closes_when_its_oldest_image_has_waited_long_enough():
    queue, tasks = filled(1, wait=0.02)
    queue.admit(1)  # never comes
    assert queue.take() == tasks


def test_a_full_queue_refuses_at_once_and_takes_again_when_there_is_room():
    queue, _ = filled(3, size=4)
    with pytest.raises(QueueFullError, match="3 images are waiting, the queue holds 4"):
        queue.admit(2)
    queue.take()
    queue.admit(4)
    assert queue.waiting == 4


def test_images_being_decoded_count_as_waiting():
    queue = BatchQueue(size=2, max_batch=4, wait=0)
    queue.admit(2)
    with pytest.raises(QueueFullError):
        queue.check_room()
    queue.drop()
    queue.check_room()


def test_cancelled_images_are_left_out():
    queue, tasks = filled(6)
    for item in (tasks[0], tasks[2]):
        item.future.cancel()
    assert queue.take() == [tasks[1], tasks[3], tasks[4], tasks[5]]


def test_a_queue_of_cancelled_images_is_empty():
    queue, tasks = filled(3)
    for item in tasks:
        item.future.cancel()
    wanted = turn()
    queue.put_turn(wanted)
    assert queue.take() is wanted
    assert queue.waiting == 0


def test_turns_and_batches_alternate_under_load():
    queue, tasks = filled(12)
    turns = [turn(), turn()]
    for item in turns:
        queue.put_turn(item)
    taken = [queue.take() for _ in range(5)]
    assert taken == [tasks[:4], turns[0], tasks[4:8], turns[1], tasks[8:]]


def test_take_waits_until_something_comes():
    queue = BatchQueue(size=4, max_batch=4, wait=0)
    wanted = turn()
    threading.Timer(0.05, queue.put_turn, [wanted]).start()
    started = time.monotonic()
    assert queue.take() is wanted
    assert time.monotonic() > started


def test_closing_fails_what_waits_now_and_later():
    queue, tasks = filled(1)
    first = turn()
    queue.put_turn(first)
    queue.admit(1)
    queue.close(NotReadyError("gone"))
    late_image, late_turn = task(), turn()
    queue.put(late_image)
    queue.put_turn(late_turn)
    for item in (*tasks, first, late_image, late_turn):
        with pytest.raises(NotReadyError, match="gone"):
            item.future.result(timeout=0)
    assert queue.take() is None
