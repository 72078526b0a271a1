"""Batch classification: from a list of places where images lie to a file of results.

    listing  ->  read  ->  prepare  ->  encode  ->  rows  ->  journal  ->  results

- `list_items(inputs)` tells what is to be read: `Item`s, in input order, and reads no image.
- `blocks(items)` cuts that into `Block`s of consecutive items. A block is the unit of everything
  that must not be lost or doubled: an engine answers each with one `BlockResult`, and the journal
  takes a result whole or not at all, under the block's number.
- `prepare(item, ...)` reads an image's bytes and makes pixels of them; on any threads, processes or
  machines. What can't be read becomes a `Prepared` with an error, never an exception.
- `Classifier.encode(batch)` and `Classifier.rows(...)` make rows of prepared images. Batches never
  cross a block in an ordered run, so that the same images always meet in the same batch: vectors
  differ in their last digits from one batch to another, and a resumed run must end with the same
  bytes as an uninterrupted one.
- `Engine.results(blocks)` composes these stages. `LocalEngine` does it with threads and one
  encoder. `answer_block(classifier, number, prepared)` is all from encode to rows for one block, in
  one call: what an actor on another machine needs.
- `Journal` keeps finished blocks and the listing in a work folder beside the results, so that a
  killed run goes on; `publish` puts the results together and renames them into place.
- `run_job` is what the command line calls: list, open the journal, run the engine, publish.

`Item`, `Block`, `Prepared`, `BlockResult`, `Question`, `Origin` are plain frozen dataclasses that
can be pickled; functions are at module level. Nothing here knows the command line, settings or
HTTP.
"""

from service.batch.engines import Engine
from service.batch.engines.local import LocalEngine
from service.batch.inputs import Item, list_items
from service.batch.job import Summary, run_job
from service.batch.journal import Journal
from service.batch.pipeline import (
    BLOCK_SIZE,
    Block,
    BlockResult,
    Classifier,
    Prepared,
    Question,
    answer_block,
    blocks,
    prepare,
)
from service.batch.results import Results, publish
from service.batch.rows import Origin

__all__ = [
    "BLOCK_SIZE",
    "Block",
    "BlockResult",
    "Classifier",
    "Engine",
    "Item",
    "Journal",
    "LocalEngine",
    "Origin",
    "Prepared",
    "Question",
    "Results",
    "Summary",
    "answer_block",
    "blocks",
    "list_items",
    "prepare",
    "publish",
    "run_job",
]
