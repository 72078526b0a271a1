from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest

from service.inference.result_queue import ResultQueue


def test_results_and_errors_reach_who_waits():
    async def scene():
        queue: ResultQueue[int] = ResultQueue()
        futures: list[Future[int]] = [Future() for _ in range(200)]
        waiters = [queue.wait_for(future) for future in futures]

        def finish(part: list[Future[int]]) -> None:
            for number, future in enumerate(part):
                if number % 5:
                    future.set_result(number)
                else:
                    future.set_exception(KeyError(number))

        threads = [threading.Thread(target=finish, args=[futures[at::4]]) for at in range(4)]
        for thread in threads:
            thread.start()
        results = await asyncio.gather(*waiters, return_exceptions=True)
        for part in (results[at::4] for at in range(4)):
            for number, result in enumerate(part):
                assert result == number if number % 5 else isinstance(result, KeyError)

    asyncio.run(scene())


def test_a_batch_of_results_wakes_the_loop_once():
    async def scene():
        results: ResultQueue[int] = ResultQueue()
        loop = asyncio.get_running_loop()
        wakings = []
        wake = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *given: (wakings.append(given), wake(*given))
        futures: list[Future[int]] = [Future() for _ in range(16)]
        waiters = [results.wait_for(future) for future in futures]
        for future in futures:  # on the loop's own thread: it can't run in between
            future.set_result(1)
        assert await asyncio.gather(*waiters) == [1] * 16
        assert len(wakings) == 1

    asyncio.run(scene())


def test_who_stops_waiting_cancels_the_work():
    async def scene():
        results: ResultQueue[int] = ResultQueue()
        future: Future[int] = Future()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(results.wait_for(future), 0.01)
        assert future.cancelled()

    asyncio.run(scene())


def test_a_result_that_nobody_awaits_any_more_is_dropped():
    async def scene():
        results: ResultQueue[int] = ResultQueue()
        future: Future[int] = Future()
        future.set_running_or_notify_cancel()  # too late to be cancelled
        waiter = results.wait_for(future)
        waiter.cancel()
        future.set_result(1)
        await asyncio.sleep(0.01)
        assert waiter.cancelled()

    asyncio.run(scene())
