"""Images whose label is known: a folder with one subfolder a label, or a list in CSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from indexer.categories.category import clean_name
from indexer.errors import CategoryError, ImageFolderError
from indexer.image_index import ImageFile, Skipped, list_images, read_images
from indexer.vectors.embedding import OnProgress, Progress
from models.encoder import Encoder, Vectors

# A folder or label of this name holds images that show none of the categories.
UNKNOWN = "unknown"
_IMAGES_AT_ONCE = 64


@dataclass(frozen=True)
class LabelledImages:
    """Image files and their labels.

    root: the folder that paths are relative to
    """

    root: Path
    paths: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class EmbeddedImages:
    """Labelled images that could be read, as vectors: float32 [N, D]."""

    root: Path
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    vectors: Vectors
    skipped: tuple[Skipped, ...]

    def take(self, rows: NDArray[np.int64]) -> EmbeddedImages:
        """Some of the images."""
        return EmbeddedImages(
            self.root,
            tuple(self.paths[row] for row in rows),
            tuple(self.labels[row] for row in rows),
            self.vectors[rows],
            self.skipped,
        )


def read_labelled_images(source: str | Path) -> LabelledImages:
    """The images of a folder (LABEL/.../FILE) or of a .csv or .parquet list (path, label).

    Paths in a list are relative to the list's own folder. The label `unknown` means that an image
    shows none of the categories. Raises: ImageFolderError.
    """
    source = Path(source)
    if source.is_dir():
        return _from_folder(source)
    reader = {".csv": _csv_rows, ".parquet": _parquet_rows}.get(source.suffix.lower())
    if reader is None:
        raise ImageFolderError(
            f"{source} is neither a folder with one subfolder a label nor a .csv or .parquet list",
            param="images",
        )
    try:
        rows = list(reader(source))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ImageFolderError(f"can't read {source}: {reason}", param="images") from error
    except (pa.ArrowException, csv.Error, UnicodeDecodeError, KeyError) as error:
        raise ImageFolderError(
            f"{source} must be UTF-8 with the columns 'path' and 'label': {error}", param="images"
        ) from error
    if not rows:
        raise ImageFolderError(f"{source} lists no images", param="images")
    labels = tuple(
        _clean(label, f"line {line} of {source}") for line, (_, label) in enumerate(rows, 2)
    )
    return LabelledImages(source.parent, tuple(path for path, _ in rows), labels)


def embed_images(
    images: LabelledImages, encoder: Encoder, *, on_progress: OnProgress | None = None
) -> EmbeddedImages:
    """Read and encode the images; those that can't be read are skipped and told.

    Raises: ImageFolderError if none can be read.
    """
    paths: list[str] = []
    labels: list[str] = []
    blocks: list[Vectors] = []
    skipped: list[Skipped] = []
    total = len(images.paths)
    for start in range(0, total, _IMAGES_AT_ONCE):
        part = list(images.paths[start : start + _IMAGES_AT_ONCE])
        read = list(read_images(images.root, part))
        good = [
            (item, label)
            for item, label in zip(read, images.labels[start:], strict=False)
            if isinstance(item, ImageFile)
        ]
        skipped += [item for item in read if isinstance(item, Skipped)]
        if good:
            blocks.append(encoder.encode_images([item.image for item, _ in good]))
            paths += [item.path for item, _ in good]
            labels += [label for _, label in good]
        if on_progress:
            on_progress(Progress("encoding", start + len(part), total))
    if not paths:
        raise ImageFolderError(
            f"none of the {total} images can be read; the first: {skipped[0].reason}",
            param="images",
        )
    return EmbeddedImages(
        images.root, tuple(paths), tuple(labels), np.concatenate(blocks), tuple(skipped)
    )


def _from_folder(folder: Path) -> LabelledImages:
    paths = list_images(folder)
    loose = [path for path in paths if "/" not in path]
    if loose:
        raise ImageFolderError(
            f"{folder / loose[0]} lies in no subfolder; put each image into a folder named like "
            "its label, or list them in a .csv with the columns path and label",
            param="images",
        )
    labels = tuple(_clean(path.split("/")[0], f"the folder of {path}") for path in paths)
    return LabelledImages(folder, tuple(paths), labels)


def _csv_rows(source: Path) -> Iterable[tuple[str, str]]:
    with source.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            yield row["path"], row["label"]


def _parquet_rows(source: Path) -> Iterable[tuple[str, str]]:
    table = pq.read_table(source, columns=["path", "label"])
    if table.num_columns < 2:
        raise KeyError("path, label")
    yield from zip(table["path"].to_pylist(), table["label"].to_pylist(), strict=True)


def _clean(label: object, where: str) -> str:
    try:
        return clean_name(label, what=f"the label of {where}")
    except CategoryError as error:
        raise ImageFolderError(error.message, param="images") from error
