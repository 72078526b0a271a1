"""A batch job on a Ray cluster, by way of Ray Data: any number of machines as one engine.

    blocks -> tasks that read and decode -> a pool of actors that encode and search -> results

Ray places tasks and actors, holds the readers back while the encoders are behind, starts more
actors while they can't keep up, and repeats what a lost machine had begun. The driver (this
process) hands out blocks and takes each result once; the job writes them, as with any engine.

Needs the extra `ray`. Every node must have clipdex installed, and see the images and the model
under the same names; the categories travel from here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import logging
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from indexer import CategoryIndex
from models import Encoder, load_encoder
from models.encoder import Vectors
from models.errors import ClipdexError, UserError
from models.extras import how_to_install
from models.image.preprocess import PreprocessConfig, Preprocessor
from service.batch.inputs import Item
from service.batch.pipeline import (
    Block,
    BlockResult,
    Classifier,
    Prepared,
    Question,
    answer_block,
    prepare,
)
from service.batch.storage import is_remote
from service.errors import ParameterError
from service.serving.classifier import TunedHead

if TYPE_CHECKING:
    from PIL import Image


class RayMissingError(UserError):
    """Ray isn't installed."""

    code = "ray_missing"


class ClusterAddressError(UserError):
    """No Ray cluster answers at the address."""

    code = "cluster_unreachable"


class ClusterFailedError(ClipdexError):
    """The cluster gave the work up, or answered something else than was asked."""

    code = "cluster_failed"


_RAY_THREADS = "ray_"  # how the names of Ray's own threads begin
_CONNECT_TIMEOUT_S = 5.0


def require_ray() -> None:
    """Raises: RayMissingError."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise RayMissingError(
            f"running on Ray needs a package that isn't installed: {how_to_install('ray')}",
            param="engine",
        ) from error


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """This process is a driver of the cluster within the `with` block.

    address: what `ray.init` takes; None for the cluster that RAY_ADDRESS names, or else one made of
        this machine until the block ends

    Raises: ClusterAddressError.
    """
    if address is not None:
        _check_listening(address)
    import ray

    # Ray would tell its makers of every cluster it starts; whoever wants that can say so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = address or "the address in RAY_ADDRESS"
        raise ClusterAddressError(
            f"no Ray cluster answers at {where}: {first_line(error)}", param="address"
        ) from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(cast(Any, _Stdout(sys.stdout))):
        try:
            yield
        finally:
            with contextlib.redirect_stdout(sys.stderr):  # it says then what it has held back
                ray.shutdown()


def _check_listening(address: str) -> None:
    """Ray tries for minutes where nothing listens; for HOST:PORT that can be found out at once.

    Raises: ClusterAddressError.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return  # one of Ray's other ways to name a cluster
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ClusterAddressError(
            f"no Ray cluster answers at {address}: {reason}; `ray status` on its head tells the "
            "address",
            param="address",
        ) from error


class _Stdout(io.TextIOBase):
    """stdout, but what Ray's own thread says there of dying nodes goes to stderr: on stdout are
    results.
    """

    def __init__(self, inner: TextIO) -> None:
        self._inner = inner

    def write(self, text: str) -> int:
        """Write to the one or the other."""
        return self._stream().write(text)

    def flush(self) -> None:
        """Flush the same."""
        self._stream().flush()

    def fileno(self) -> int:
        """Of the real stdout."""
        return self._inner.fileno()

    def _stream(self) -> TextIO:
        from_ray = threading.current_thread().name.startswith(_RAY_THREADS)
        return sys.stderr if from_ray else self._inner


def first_line(error: Exception) -> str:
    """Of what an exception says; its name where it says nothing."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


# Blocks that one execution of Ray Data is given. More, and the driver holds more of the listing;
# fewer, and the actors load the model more often.
_WINDOW = 4096


# Threads of one reading task: most of their time is waiting for storage.
_READERS = 16


# What an actor that encodes on processors leaves of them to reading and decoding. Were it nothing,
# actors could fill a cluster that has lost a node, and wait for ever for what nobody can read.
_READING_SHARE = 0.1


_INDEX, _HEAD = "index", "head"  # folders of what travels


@dataclass(frozen=True)
class EncoderRecipe:
    """What an actor on another machine loads: the arguments of `load_encoder`.

    preprocess: the model's own, for the tasks that decode without loading it
    """

    model: str
    preprocess: PreprocessConfig
    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    cache_dir: Path | None = None


@dataclass(frozen=True)
class Pool:
    """How many encoders, and what Ray reserves for each.

    least, most: Ray starts with `least` and adds more while blocks wait, up to `most`
    cpus, gpus: logical processors; a share of one is allowed. Without a GPU, `cpus` are those of
        the encoder and of the reading for it; with one, reading takes whatever the cluster has.
    """

    least: int = 1
    most: int = 4
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ParameterError(
                f"of encoders there must be at least 1 and at most as many as the most: not "
                f"{self.least} to {self.most}",
                param="min-actors",
            )
        if self.cpus <= 0 or self.gpus < 0:
            raise ParameterError("an encoder needs some processor", param="actor-cpus")

    @property
    def reading(self) -> tuple[float, int | None]:
        """Processors of one reading task, and how many of them at a time; None for any number."""
        if self.gpus:
            return 1.0, None
        return _READING_SHARE * self.cpus, self.most

    @property
    def encoding(self) -> float:
        """Processors of one actor."""
        return self.cpus if self.gpus else (1 - _READING_SHARE) * self.cpus


def make_pool(given: dict[str, Any]) -> Pool:
    """A pool of these numbers; `most` is never less than a given `least` alone.

    Raises: ParameterError.
    """
    least = given.get("least", Pool.least)
    return Pool(**{"most": max(least, Pool.most), **given})


class RayEngine:
    """See `service.batch.Engine`.

    head: the folder of the adapter whose head the categories have, if they have one
    address: what `ray.init` takes; None for the cluster that RAY_ADDRESS names, or else one made of
        this machine for as long as the job runs
    """

    def __init__(
        self,
        recipe: EncoderRecipe,
        categories: CategoryIndex | TunedHead,
        question: Question,
        *,
        head: Path | None = None,
        address: str | None = None,
        pool: Pool | None = None,
        ordered: bool = True,
    ) -> None:
        require_ray()
        self.ordered = ordered
        self._recipe, self._question = recipe, question
        self._files = _packed(categories, head)
        self._address, self._pool = address, pool or Pool()

    def results(self, blocks: Iterable[Block]) -> Iterator[BlockResult]:
        """See `Engine`. Raises: StorageUnreachableError, ClusterAddressError, ClusterFailedError,
        and what loading the model raises.
        """
        rest = iter(blocks)
        with connected(self._address):
            import ray

            files = ray.put(self._files)
            while window := list(itertools.islice(rest, _WINDOW)):
                yield from _each_once(window, self._answers(window, files))

    def _answers(self, window: Sequence[Block], files: object) -> Iterator[BlockResult]:
        import ray.data
        from ray.exceptions import RayError

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = self.ordered
        rows = [{"number": block.number, "block": _absolute(block)} for block in window]
        config, max_pixels = self._recipe.preprocess, self._question.max_pixels
        reading_cpus, readers = self._pool.reading
        answers = (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map(
                _read,
                fn_kwargs={"config": config, "max_pixels": max_pixels},
                compute=ray.data.TaskPoolStrategy(size=readers),
                num_cpus=reading_cpus,
            )
            .map(
                _Answering,
                fn_constructor_args=(self._recipe, self._question, files),
                compute=ray.data.ActorPoolStrategy(
                    min_size=self._pool.least, max_size=self._pool.most
                ),
                num_cpus=self._pool.encoding,
                num_gpus=self._pool.gpus,
            )
        )
        try:
            for row in answers.iter_rows():
                yield cast(BlockResult, row["result"])
        except RayError as error:
            raise _original(error) from error


def _absolute(block: Block) -> Block:
    """Relative paths start in this process's working folder; the tasks' is another one."""
    items = tuple(
        item
        if is_remote(item.place)
        else dataclasses.replace(item, place=str(Path(item.place).absolute()))
        for item in block.items
    )
    return Block(block.number, items)


def _read(row: dict[str, Any], config: PreprocessConfig, max_pixels: int) -> dict[str, Any]:
    """The task: a block -> its prepared images, with pixels as uint8, a quarter of what is encoded.

    Raises: StorageUnreachableError.
    """
    block: Block = row["block"]
    fitted = cast("Callable[[Image.Image], Vectors]", Preprocessor(config).fitted)

    def prepared(item: Item) -> Prepared:
        return prepare(item, preprocess=fitted, image_size=config.size, max_pixels=max_pixels)

    with ThreadPoolExecutor(_READERS) as threads:
        return {"number": block.number, "images": tuple(threads.map(prepared, block.items))}


class _Answering:
    """The actor that holds an encoder and the categories."""

    def __init__(self, recipe: EncoderRecipe, question: Question, files: Any) -> None:
        import ray

        encoder = load_encoder(
            recipe.model,
            backend=recipe.backend,
            device=recipe.device,
            precision=recipe.precision,
            cache_dir=recipe.cache_dir,
        )
        categories = _unpacked(ray.get(files), encoder)
        self._classifier = Classifier(encoder, categories, question)
        self._scaled = Preprocessor(recipe.preprocess).scaled

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A block's prepared images -> its result."""
        images = [self._with_floats(image) for image in row["images"]]
        return {"result": answer_block(self._classifier, row["number"], images)}

    def _with_floats(self, image: Prepared) -> Prepared:
        if image.pixels is None:
            return image
        return dataclasses.replace(image, pixels=self._scaled(cast(Any, image.pixels)))


def _each_once(window: Sequence[Block], results: Iterable[BlockResult]) -> Iterator[BlockResult]:
    """Pass results on, and check that each block is answered exactly once.

    Raises: ClusterFailedError.
    """
    missing = {block.number for block in window}
    for result in results:
        if result.number not in missing:
            raise ClusterFailedError(f"block {result.number} was answered twice")
        missing.remove(result.number)
        yield result
    if missing:
        raise ClusterFailedError(f"{len(missing)} blocks weren't answered, first {min(missing)}")


def _original(error: Exception) -> ClipdexError:
    """What a task or an actor raised, as if it had been raised here."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ClipdexError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return ClusterFailedError(f"the Ray cluster gave up: {first_line(error)}")


def _packed(categories: CategoryIndex | TunedHead, head: Path | None) -> dict[str, bytes]:
    """The files of a saved index, and of an adapter, by name."""
    index = categories if isinstance(categories, CategoryIndex) else categories.index
    with tempfile.TemporaryDirectory(prefix="clipdex-") as folder:
        index.write_files(Path(folder))
        files = {f"{_INDEX}/{path.name}": path.read_bytes() for path in Path(folder).iterdir()}
    if head is not None:
        for path in head.rglob("*"):
            if path.is_file():
                files[f"{_HEAD}/{path.relative_to(head).as_posix()}"] = path.read_bytes()
    return files


def _unpacked(files: dict[str, bytes], encoder: Encoder) -> CategoryIndex | TunedHead:
    """Raises: WrongModelError if this machine's encoder is another one than the driver's."""
    with tempfile.TemporaryDirectory(prefix="clipdex-") as name:
        folder = Path(name)
        for relative, data in files.items():
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        index = CategoryIndex.load(folder / _INDEX, fingerprint=encoder.fingerprint)
        if not (folder / _HEAD).is_dir():
            return index
        from training.adapters.adapter import load_adapter

        adapter = load_adapter(folder / _HEAD, fingerprint=encoder.fingerprint)
        return TunedHead.over(index, adapter)
