"""The images of an index as columns: where each file is, and what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from indexer.errors import BrokenIndexError

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
