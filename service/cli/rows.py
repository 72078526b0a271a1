"""What `clipdex classify` says on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.cli.terminal import complain, print_json

if TYPE_CHECKING:
    from service.batch import Summary
    from service.batch.rows import Row


def print_row(row: Row, *, as_json: bool) -> None:
    """An image's line on stdout, and on stderr why it couldn't be read."""
    if row["error"] is not None:
        complain(f"{row['file']}: {row['error']}")
        if as_json:
            print_json({"file": row["file"], "error": row["error"]})
    elif as_json:
        told = ("file", "matches", "unknown", "probability_kind", "reason", "groups", "adapter")
        values: dict[str, Any] = {**row}
        print_json({name: values[name] for name in told if values[name] is not None})
    else:
        matches = [f"{match['label']} {match['probability']:.1%}" for match in row["matches"]]
        unknown = ["unknown;"] if row["unknown"] else []
        print(f"{row['file']}: {' '.join([*unknown, ', '.join(matches)])}")


def tell(summary: Summary, *, as_json: bool) -> None:
    """The end of a run, on stdout."""
    if as_json:
        print_json(
            {
                "files": [str(path) for path in summary.files],
                "images": summary.images,
                "failed": summary.failed,
                "duplicates": summary.duplicates,
                "resumed": summary.resumed,
                "seconds": round(summary.seconds, 3),
                "images_per_second": round(summary.images_per_second, 1),
            }
        )
        return
    parts = [f"{summary.images:,} images in {summary.seconds:,.1f} s"]
    parts.append(f"{summary.images_per_second:,.1f} a second")
    if summary.resumed:
        parts.append(f"{summary.resumed:,} had been done before")
    if summary.duplicates:
        parts.append(f"{summary.duplicates:,} copies")
    parts.append(f"{summary.failed:,} could not be read")
    print("; ".join(parts))
    for path in summary.files:
        print(path)
