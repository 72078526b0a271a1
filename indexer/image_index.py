"""An index of images: search a folder of pictures by words or by another picture."""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from indexer.errors import BrokenIndexError, ImageFolderError
from indexer.manifest import (
    Manifest,
    ModelRecord,
    check_fingerprint,
    read_index,
    save_folder,
    write_index,
)
from indexer.ranking.ranking import best
from indexer.vectors.embedding import OnProgress, Progress
from indexer.vectors.flat import FlatVectors, checked_queries
from indexer.vectors.ivf import IvfVectors
from indexer.vectors.layout import LayoutOptions
from indexer.vectors.prompt_cache import PromptCache
from indexer.vectors.vector_index import lay_out
from models.encoder import Encoder, Vectors
from models.images import SUFFIXES, ImageError, decode_image, has_image_suffix

# ---- The images of an index as columns: where each file is, and what it is.


_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class ImageRecord:
    """One image file.

    path: relative to the folder that was indexed, with forward slashes
    width, height: pixels, upright; bytes: of the file; sha256: of the file, in hex
    """

    path: str
    width: int
    height: int
    bytes: int
    sha256: str


class ImageTable:
    """Records in the order of their vectors."""

    def __init__(self, columns: pa.Table) -> None:
        self._columns = columns.combine_chunks()

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> ImageTable:
        """The table of these images."""
        return cls(pa.Table.from_pylist([asdict(record) for record in records], schema=_SCHEMA))

    @classmethod
    def read(cls, path: Path) -> ImageTable:
        """Raises: BrokenIndexError if the file isn't a table of images."""
        try:
            columns = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise BrokenIndexError(f"{path} can't be read: {error}") from error
        if not columns.schema.equals(_SCHEMA):
            raise BrokenIndexError(f"{path} has other columns than a table of images")
        return cls(columns)

    def write(self, path: Path) -> None:
        """Write the columns as Parquet."""
        pq.write_table(self._columns, path, compression="zstd")

    def __len__(self) -> int:
        return int(self._columns.num_rows)

    def record(self, position: int) -> ImageRecord:
        """The image at `position`."""
        names = self._columns.column_names
        return ImageRecord(**{name: self._columns[name][position].as_py() for name in names})


# ---- Image files in a folder, read one after the other; a bad one is told, not fatal.


_MAX_BYTES = 256 << 20  # of one file


@dataclass(frozen=True)
class ImageFile:
    """A decoded image file. path: relative to its folder, with forward slashes."""

    path: str
    image: Image.Image
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Skipped:
    """A file that couldn't be read as an image, and why."""

    path: str
    reason: str


def list_images(folder: str | Path) -> list[str]:
    """Paths of the image files in a folder and its subfolders, relative to it, in order.

    Links to folders are not followed. Raises: ImageFolderError if the folder can't be listed
    or holds no image file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageFolderError(f"{folder} is not a folder", param="folder")
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if has_image_suffix(name) and not name.startswith("."):
                found.append((Path(parent) / name).relative_to(folder).as_posix())
    if not found:
        raise ImageFolderError(
            f"{folder} holds no image files (looked for {' '.join(sorted(SUFFIXES))})",
            param="folder",
        )
    return sorted(found)


def read_images(folder: str | Path, paths: list[str]) -> Iterator[ImageFile | Skipped]:
    """Each file in turn, decoded, or why it can't be."""
    for path in paths:
        yield read_image(Path(folder) / path, path)


def read_image(file: Path, path: str) -> ImageFile | Skipped:
    """One file, decoded, or why it can't be."""
    try:
        if (size := file.stat().st_size) > _MAX_BYTES:
            return Skipped(path, f"the file has {size:,} bytes, more than {_MAX_BYTES:,}")
        data = file.read_bytes()
        return ImageFile(path, decode_image(data), len(data), hashlib.sha256(data).hexdigest())
    except OSError as error:
        return Skipped(path, f"can't be read: {error.strerror or error}")
    except ImageError as error:
        return Skipped(path, error.message)


_TABLE = "images.parquet"


_IMAGES_AT_ONCE = 64


_SCORES_AT_ONCE = 1 << 24  # floats of one block of scores: 64 MB


@dataclass(frozen=True)
class ImageMatch:
    """One image found. score: cosine in [-1, 1]; rank: 1 for the best; sizes in pixels."""

    path: str
    score: float
    rank: int
    width: int
    height: int


class ImageIndex:
    """Images of one folder and their vectors. Never changes; safe to search from many threads."""

    def __init__(
        self, table: ImageTable, vectors: FlatVectors | IvfVectors, manifest: Manifest
    ) -> None:
        if not len(table) == manifest.count == len(vectors):
            raise BrokenIndexError("the index's images and vectors don't belong together")
        self.manifest = manifest
        self._table = table
        self._vectors = vectors

    @classmethod
    def build(
        cls,
        folder: str | Path,
        encoder: Encoder,
        *,
        options: LayoutOptions | None = None,
        cache: PromptCache | None = None,
        on_progress: OnProgress | None = None,
        on_skip: Callable[[Skipped], None] | None = None,
    ) -> ImageIndex:
        """Encode and index every image file in a folder and its subfolders.

        cache: where vectors are kept by the file's checksum, so that an interrupted build goes on
        on_skip: told of each file that can't be read as an image
        Raises: ImageFolderError if there is no readable image; LayoutError.
        """
        paths = list_images(folder)
        records: list[ImageRecord] = []
        blocks: list[Vectors] = []
        done = 0
        for batch in _batches(folder, paths):
            images = [item for item in batch if isinstance(item, ImageFile)]
            for item in batch:
                if isinstance(item, Skipped) and on_skip:
                    on_skip(item)
            if images:
                blocks.append(_encode(images, encoder, cache))
                records += [_record(image) for image in images]
            done += len(batch)
            if on_progress:
                on_progress(Progress("encoding", done, len(paths)))
        if not records:
            raise ImageFolderError(f"no image in {folder} can be read", param="folder")
        vectors, layout = lay_out(
            np.concatenate(blocks), options or LayoutOptions(), scale=None, on_progress=on_progress
        )
        manifest = Manifest(
            kind="images",
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            count=len(records),
            rows=len(records),
            other_rows=0,
            dim=encoder.dim,
            model=ModelRecord(
                encoder.model_id, encoder.fingerprint, encoder.logit_scale, encoder.logit_bias
            ),
            source=str(Path(folder).resolve()),
            templates=None,
            layout=layout,
            calibration=None,
            files={},
        )
        return cls(ImageTable.of(records), vectors, manifest)

    @classmethod
    def load(cls, folder: str | Path, *, fingerprint: str | None = None) -> ImageIndex:
        """Read an index that `save` wrote; every file's checksum is verified.

        Raises: BrokenIndexError naming the file at fault; WrongModelError.
        """
        folder = Path(folder)
        manifest, vectors = read_index(folder, "images", fingerprint=fingerprint)
        return cls(ImageTable.read(folder / _TABLE), vectors, manifest)

    def save(self, folder: str | Path) -> None:
        """Write the index as a new folder. Raises: ConflictError if the folder exists."""
        save_folder(Path(folder), self.write_files)

    def write_files(self, folder: Path) -> None:
        """Write and sync every file into an existing, empty folder. Not atomic: see `save`."""
        write_index(folder, self.manifest, self._vectors, _TABLE, self._table.write)

    def check_encoder(self, encoder: Encoder) -> None:
        """Raises: WrongModelError if the encoder's vectors don't belong into this index."""
        check_fingerprint(self.manifest, encoder.fingerprint, "this index")

    def __len__(self) -> int:
        return len(self._table)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.manifest.dim

    @property
    def folder(self) -> Path:
        """The folder that was indexed; matches' paths are relative to it."""
        return Path(self.manifest.source or "")

    def record(self, position: int) -> ImageRecord:
        """The image at `position`."""
        return self._table.record(position)

    def search(self, vectors: Vectors, top_k: int) -> list[list[ImageMatch]]:
        """The `top_k` images nearest to each vector of a text or an image, nearest first.

        vectors: float32 [N, D], rows of unit norm; returns N lists of at most `top_k`.
        Raises: VectorError.
        """
        queries = checked_queries(vectors, self.dim, top_k)
        if isinstance(self._vectors, IvfVectors):
            return self._search_lists(self._vectors, queries, min(top_k, len(self)))
        found = []
        block = max(1, _SCORES_AT_ONCE // len(self))
        for start in range(0, len(queries), block):
            for scores in self._vectors.scores(queries[start : start + block]):
                rows = best(scores, top_k)
                found.append(self._matches(rows, scores[rows]))
        return found

    def _search_lists(
        self, vectors: IvfVectors, queries: Vectors, count: int
    ) -> list[list[ImageMatch]]:
        factor = 1
        while True:
            near = vectors.near(queries, factor=factor)
            scores, rows = vectors.search(queries, count, near)
            if (rows >= 0).all() or near.lists.shape[1] == vectors.lists:
                return [
                    self._matches(line[line >= 0], some[line >= 0])
                    for line, some in zip(rows, scores, strict=True)
                ]
            factor *= 4

    def _matches(self, rows: np.ndarray, scores: Vectors) -> list[ImageMatch]:
        matches = []
        for rank, (row, score) in enumerate(zip(rows, scores, strict=True), start=1):
            record = self._table.record(int(row))
            cosine = max(-1.0, min(1.0, float(score)))
            matches.append(ImageMatch(record.path, cosine, rank, record.width, record.height))
        return matches


def _batches(folder: str | Path, paths: Sequence[str]) -> Iterator[list[ImageFile | Skipped]]:
    for start in range(0, len(paths), _IMAGES_AT_ONCE):
        yield list(read_images(folder, list(paths[start : start + _IMAGES_AT_ONCE])))


def _encode(images: list[ImageFile], encoder: Encoder, cache: PromptCache | None) -> Vectors:
    """float32 [len(images), D]; only what isn't in the cache is encoded."""
    if cache is None:
        return encoder.encode_images([image.image for image in images])
    keys = [("image", image.sha256) for image in images]
    known = cache.get(encoder.fingerprint, keys, encoder.dim)
    missing = [at for at, vector in enumerate(known) if vector is None]
    vectors = np.empty((len(images), encoder.dim), dtype=np.float32)
    for at, vector in enumerate(known):
        if vector is not None:
            vectors[at] = vector
    if missing:
        vectors[missing] = encoder.encode_images([images[at].image for at in missing])
        cache.put(encoder.fingerprint, [keys[at] for at in missing], vectors[missing])
    return vectors


def _record(image: ImageFile) -> ImageRecord:
    width, height = image.image.size
    return ImageRecord(image.path, width, height, image.bytes, image.sha256)
