"""Work begun ahead of need, and never more of it than was said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(
    work: Callable[[T], R],
    values: Iterable[T],
    *,
    pool: Executor,
    window: int,
    ordered: bool = True,
) -> Iterator[R]:
    """The results of `work` on each value, up to `window` of them begun before they are taken.

    ordered: as the values come; else as the results do
    """
    begun: dict[Future[R], None] = {}  # in the order of the values
    for value in values:
        begun[pool.submit(work, value)] = None
        if len(begun) >= window:
            yield _take(begun, ordered=ordered)
    while begun:
        yield _take(begun, ordered=ordered)


def _take(begun: dict[Future[R], None], *, ordered: bool) -> R:
    if ordered:
        future = next(iter(begun))
    else:
        done = wait(begun, return_when=FIRST_COMPLETED).done
        future = next(one for one in begun if one in done)
    del begun[future]
    return future.result()
