"""What runs a batch job: this machine, or many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from service.batch.pipeline import Block, BlockResult


class Engine(Protocol):
    """Something that answers blocks.

    ordered: whether results come in the order of the blocks; what is written follows it
    """

    ordered: bool

    def results(self, blocks: Iterable[Block]) -> Iterator[BlockResult]:
        """The result of every block, each exactly once.

        Takes blocks only as fast as it can work on them: there may be any number.

        Raises: StorageUnreachableError.
        """
        ...
