"""What the measurements over HTTP come to: promises, tables, plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.http_sides import USUAL


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures that were promised, with what was measured beside them."""
    at = {(row["side"], row["clients"]): row for row in results["figures"]}
    most = max(number for _, number in at)
    rates, rows = results["encoder_only_images_per_second"], []

    def promise(figure: str, wanted: float, measured: float, *, at_least: bool) -> None:
        met = measured >= wanted if at_least else measured <= wanted
        row = {"figure": figure, "wanted": wanted, "measured": measured, "at_least": at_least}
        rows.append({**row, "met": bool(met)})

    def best(side: str) -> float:
        return max(row["requests_per_second"] for (key, _), row in at.items() if key == side)

    usual16, usual_most = at[USUAL, 16], at[USUAL, most]
    for side, wanted in (("clipdex", 3.0), ("clipdex int8", 4.5)):
        if side in rates:
            ratio = at[side, 16]["requests_per_second"] / usual16["requests_per_second"]
            promise(
                f"{side}: throughput over the usual server's, 16 clients",
                wanted,
                ratio,
                at_least=True,
            )
            late = at[side, most]["p99_ms"] / usual_most["p99_ms"]
            promise(
                f"{side}: p99 over the usual server's, {most} clients", 0.4, late, at_least=False
            )
    shares = (("clipdex", 0.85), ("clipdex everyday", 0.5), ("clipdex everyday, drawings", 0.5))
    for side, wanted in shares:
        share = best(side) / rates[side]
        promise(f"{side}: HTTP throughput over its encoder alone", wanted, share, at_least=True)
    for side, megabytes in results["peak_memory_mb"].items():
        if side in rates:
            promise(f"{side}: peak memory, MB", 1500, megabytes, at_least=False)
    for side, wanted in (("clipdex", 6.0), ("clipdex everyday", 3.0)):
        warm = results["start_to_ready_s"][side]["warm_s"]
        promise(f"{side}: start to ready with a warm cache, s", wanted, warm, at_least=False)
    return rows


def show(results: dict[str, Any]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=140)
    table = Table(title=f"Requests over HTTP: {results['images']}")
    for name in ("side", "clients", "requests/s", "p50 ms", "p99 ms", "refused", "generator cores"):
        table.add_column(name, justify="left" if name == "side" else "right")
    for row in results["figures"]:
        table.add_row(
            row["side"],
            str(row["clients"]),
            f"{row['requests_per_second']:.1f}",
            f"{row['p50_ms']:.0f}",
            f"{row['p99_ms']:.0f}",
            str(row["refused"] + row["broken"]),
            f"{row['load_generator_cores']:.2f}",
        )
    console.print(table)
    table = Table(title="Starting and memory")
    for name in (
        "side",
        "first start s",
        "warm start s",
        "peak memory MB",
        "encoder alone images/s",
    ):
        table.add_column(name, justify="left" if name == "side" else "right")
    for side, start in results["start_to_ready_s"].items():
        rate = results["encoder_only_images_per_second"].get(side)
        table.add_row(
            side,
            f"{start['first_s']:.1f}",
            f"{start['warm_s']:.1f}",
            f"{results['peak_memory_mb'][side]:.0f}",
            "" if rate is None else f"{rate:.1f}",
        )
    console.print(table)
    table = Table(title="What was promised")
    for name in ("figure", "wanted", "measured", "met"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for row in results["promises"]:
        sign = ">=" if row["at_least"] else "<="
        cells = (
            f"{sign} {row['wanted']:g}",
            f"{row['measured']:.2f}",
            "yes" if row["met"] else "no",
        )
        table.add_row(row["figure"], *cells)
    console.print(table)


def plot(results: dict[str, Any], path: Path) -> None:
    """Throughput and p99 against the number of clients."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5))
    for side in dict.fromkeys(row["side"] for row in results["figures"]):
        rows = [row for row in results["figures"] if row["side"] == side]
        clients = [row["clients"] for row in rows]
        left.plot(clients, [row["requests_per_second"] for row in rows], "o-", label=side)
        right.plot(clients, [row["p99_ms"] for row in rows], "o-", label=side)
    for axes, title in ((left, "requests a second"), (right, "p99 latency, ms")):
        axes.set(title=title, xlabel="concurrent clients", xscale="log", yscale="log")
        axes.grid(True, which="both", alpha=0.3)
    left.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
