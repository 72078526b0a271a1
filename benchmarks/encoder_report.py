"""What `benchmarks.encoder` makes of its measurements: the promised figures, tables and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

OPEN_CLIP = "open_clip eager fp32"


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures that were promised, with what was measured beside them."""
    ms = {(row["side"], row["kind"], row["batch"]): row["ms_per_image"] for row in results["rows"]}
    best = results["auto"]

    def speedup(kind: str, batch: int) -> float:
        return ms[OPEN_CLIP, kind, batch] / ms[best, kind, batch]

    promised = [
        ("one image, against eager fp32", 2.5, speedup("encoder", 1)),
        ("batches of 16, encoder alone", 2.0, speedup("encoder", 16)),
        ("batches of 16, with decoding and preprocessing", 1.8, speedup("from_files", 16)),
    ]
    if results["device"] == "cuda":
        share = results["ceiling"][best]["share"]
        promised.append(("share of the bf16 matrix-product rate", 0.5, share))
    if "large_jpegs" in results:
        cosine = results["large_jpegs"]["least_cosine"]
        promised.append(("least cosine of reduced-scale decoding, 12 MP", 0.999, cosine))
    return [
        {"figure": figure, "wanted": wanted, "measured": measured, "met": measured >= wanted}
        for figure, wanted, measured in promised
    ]


def show(results: dict[str, Any]) -> None:
    """Tables on standard output."""
    console = Console()
    base = {
        (row["kind"], row["batch"]): row["ms_per_image"]
        for row in results["rows"]
        if row["side"] == OPEN_CLIP
    }
    for kind, title in (("encoder", "Encoder alone"), ("from_files", "From JPEG files")):
        rows = [row for row in results["rows"] if row["kind"] == kind]
        batches = sorted({row["batch"] for row in rows})
        table = Table(title=f"{title}: ms an image (times as fast as open_clip)")
        table.add_column("side")
        for batch in batches:
            table.add_column(f"batch {batch}", justify="right")
        for side in dict.fromkeys(row["side"] for row in rows):
            ms = {row["batch"]: row["ms_per_image"] for row in rows if row["side"] == side}
            cells = (f"{ms[b]:.1f} ({base[kind, b] / ms[b]:.2f}x)" for b in batches)
            table.add_row(side, *cells)
        console.print(table)
    table = Table(title="Sides")
    for name in ("side", "load s", "peak MB", "least cosine to fp32", "share of matrix product"):
        table.add_column(name, justify="left" if name == "side" else "right")
    for side, facts in results["sides"].items():
        ceiling = results["ceiling"].get(side)
        cosine = facts.get("least_cosine")
        table.add_row(
            side,
            f"{facts['load_s']:.1f}" if "load_s" in facts else "",
            f"{facts['peak_memory_mb']:.0f}",
            "" if cosine is None else f"{cosine:.5f}",
            "" if ceiling is None else f"{ceiling['share']:.0%}",
        )
    console.print(table)
    if "large_jpegs" in results:
        console.print("JPEGs of 12 megapixels, decoded at reduced scale:", results["large_jpegs"])
    table = Table(title=f"What was promised (ours: {results['auto']})")
    for name in ("figure", "wanted", "measured", "met"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for row in results["promises"]:
        cells = (f">= {row['wanted']:g}", f"{row['measured']:.4g}", "yes" if row["met"] else "no")
        table.add_row(row["figure"], *cells)
    console.print(table)


def plot(results: dict[str, Any], path: Path) -> None:
    """Milliseconds an image against the batch size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for axis, kind in zip(axes, ("encoder", "from_files"), strict=True):
        for side in results["sides"]:
            rows = [r for r in results["rows"] if (r["side"], r["kind"]) == (side, kind)]
            axis.plot(
                [r["batch"] for r in rows], [r["ms_per_image"] for r in rows], "o-", label=side
            )
        axis.set(title=kind.replace("_", " "), xlabel="batch", xscale="log", yscale="log")
        axis.grid(True, which="both", alpha=0.3)
    axes[0].set_ylabel("ms an image")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
