"""What answers one request, from its first step to its last."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from indexer import CategoryIndex
from indexer.answer import Answer, Policy
from models.encoder import Vectors
from service.adapters.head import TunedHead
from service.adapters.ref import AdapterRef
from service.catalog import Served
from service.engine import Engine


@dataclass(eq=False)
class Slot:
    """An engine and how many requests are under way in it."""

    engine: Engine
    users: int = 0
    closing: bool = False

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Keep the engine running until the block ends."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            self._end_if_idle()

    def close(self) -> None:
        """End the engine as soon as nobody uses it."""
        self.closing = True
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self.closing and not self.users:
            self.engine.stop()


@dataclass(frozen=True, eq=False)
class Answering:
    """An engine for the images, categories to compare them with, and perhaps a tuned head.

    served: the index as the client knows it; index: the one that is compared with, which is the
    same, or has been embedded anew with the adapter's own model
    """

    slot: Slot
    served: Served[CategoryIndex]
    index: CategoryIndex
    adapter: AdapterRef | None = None
    head: TunedHead | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.index)

    def answer(self, queries: Vectors, top_k: int, policy: Policy) -> list[Answer]:
        """float32 [N, D] of this engine -> N answers. Raises: PolicyError."""
        if self.head is not None:
            return self.head.answer(queries, top_k, policy)
        return self.index.answer(queries, top_k, policy)
