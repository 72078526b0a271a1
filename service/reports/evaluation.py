"""The plots of a report as SVG text: no script, no image file, no plotting library."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from indexer.evaluation.evaluation import Evaluation, Mistake
from models.errors import ClipdexError
from models.images import decode_image

_SIDE = 260  # pixels of the plotted square


_LEFT, _TOP = 46, 10  # room for the axes' words


_WIDTH, _HEIGHT = _SIDE + _LEFT + 12, _SIDE + _TOP + 42


Points = Sequence[tuple[float, float]]


def square_plot(
    *,
    across: str,
    up: str,
    line: Points = (),
    bars: Sequence[tuple[float, float, float]] = (),
    diagonal: bool = False,
    top: float = 1.0,
) -> str:
    """A plot whose x runs from 0 to 1 and y from 0 to `top`.

    across, up: what the axes show
    line: (x, y) pairs; bars: (x from, x to, height)
    """
    parts = [_axes(across, up, top)]
    for low, high, height in bars:
        x, y = _place(low, height, top)
        width = (high - low) * _SIDE - 1
        bar = f'width="{width:.1f}" height="{_TOP + _SIDE - y:.1f}"'
        parts.append(f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" {bar}/>')
    if diagonal:
        (x1, y1), (x2, y2) = _place(0, 0, top), _place(1, 1, top)
        parts.append(f'<line class="ideal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    if line:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_place(*point, top) for point in line))
        parts.append(f'<polyline class="line" points="{path}"/>')
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'aria-label="{escape(up)} against {escape(across)}">{"".join(parts)}</svg>'
    )


def matrix_plot(labels: Sequence[str], counts: Mapping[tuple[str, str], int]) -> str:
    """A confusion matrix: a row for what an image shows, a column for what was answered.

    counts: images by (shown, answered); shades are shares of the row
    """
    cell, left = 18, 8 * max((len(label) for label in labels), default=0) + 10
    size = cell * len(labels)
    totals = {a: sum(counts.get((a, b), 0) for b in labels) for a in labels}
    parts = []
    for row, shown in enumerate(labels):
        y = row * cell
        parts.append(
            f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{escape(shown)}</text>'
            f'<text transform="translate({left + y + 13} {size + 8}) rotate(-90)" '
            f'text-anchor="end">{escape(shown)}</text>'
        )
        for column, answered in enumerate(labels):
            count = counts.get((shown, answered), 0)
            share = count / totals[shown] if totals[shown] else 0.0
            kind = "right" if shown == answered else "wrong"
            parts.append(
                f'<rect class="{kind}" x="{left + column * cell}" y="{y}" width="{cell - 1}" '
                f'height="{cell - 1}" fill-opacity="{max(share, 0.04):.2f}"><title>'
                f"{escape(shown)} answered as {escape(answered)}: {count}</title></rect>"
            )
    return (
        f'<svg width="{left + size}" height="{size + left}" role="img" '
        f'aria-label="confusion matrix">{"".join(parts)}</svg>'
    )


def _axes(across: str, up: str, top: float) -> str:
    bottom = _TOP + _SIDE
    parts = [f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}"/>']
    for share in (0.0, 0.5, 1.0):
        x, y = _LEFT + share * _SIDE, bottom - share * _SIDE
        parts.append(f'<text x="{x}" y="{bottom + 15}" text-anchor="middle">{share:g}</text>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{share * top:.2g}</text>'
        )
    middle = _LEFT + _SIDE / 2
    parts.append(
        f'<text x="{middle}" y="{bottom + 34}" text-anchor="middle">{escape(across)}</text>'
    )
    parts.append(
        f'<text transform="translate(12 {_TOP + _SIDE / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(up)}</text>"
    )
    return "".join(parts)


def _place(x: float, y: float, top: float) -> tuple[float, float]:
    """Values to pixels."""
    return _LEFT + x * _SIDE, _TOP + _SIDE * (1 - min(y / top, 1.0))


# ---- What `clipdex eval` found, as one HTML file that loads nothing.


_THUMBNAIL = 112  # pixels


_MATRIX = 30  # labels; more could not be told apart


_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse }
td, th { border-bottom: 1px solid #8884; padding: .2rem 1rem .2rem 0; text-align: right }
td:first-child, th:first-child { text-align: left }
svg { margin: 0 1rem 1rem 0 } svg text { fill: currentColor; font: 12px system-ui, sans-serif }
.frame { fill: none; stroke: #888 } .bar { fill: #4a7fd0; fill-opacity: .75 }
.line { fill: none; stroke: #d0574a; stroke-width: 2 }
.ideal { stroke: #888; stroke-dasharray: 4 }
.right { fill: #3a9a5b } .wrong { fill: #d0574a }
.scroll { overflow: auto; max-height: 40rem }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; width: 9rem }
figcaption { font-size: 13px; overflow-wrap: anywhere }
"""


def eval_report(evaluation: Evaluation, *, title: str, root: Path, max_pixels: int) -> str:
    """The page.

    root: the folder that the mistakes' paths are relative to; thumbnails are made from them
    """
    mistakes = "".join(_mistake(item, root, max_pixels) for item in evaluation.mistakes)
    parts = [
        f"<h1>{escape(title)}</h1>",
        _summary(evaluation),
        "<h2>Can the probabilities be believed?</h2>",
        "<p>Left: of the answers with such a probability, the share that was right; on the dashed "
        "line it is as promised. Right: the share of wrong answers if only the surest are given."
        "</p>",
        square_plot(
            across="probability",
            up="share right",
            bars=[(one.low, one.high, one.accuracy) for one in evaluation.reliability],
            diagonal=True,
        ),
        square_plot(
            across="share answered",
            up="share wrong",
            line=evaluation.risk_coverage,
            top=max([0.05, *(risk for _, risk in evaluation.risk_coverage)]),
        ),
        _coverage(evaluation),
        "<h2>What is mistaken for what</h2>",
        _confusion(evaluation),
        "<h2>The surest mistakes</h2>",
        mistakes or "<p>None.</p>",
        "<h2>Labels</h2>",
        _classes(evaluation),
        _skipped(evaluation),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _summary(evaluation: Evaluation) -> str:
    rows = [
        ["images", f"{evaluation.images:,}"],
        ["labels among them", f"{evaluation.labels:,}"],
        ["categories in the index", f"{evaluation.categories:,}"],
        ["right first (top-1)", f"{evaluation.top1:.1%}"],
        ["right among five (top-5)", f"{evaluation.top5:.1%}"],
        ["expected calibration error", f"{evaluation.ece:.1%}"],
        ["probabilities", evaluation.probability_kind],
    ]
    return _table(["figure", "value"], rows)


def _coverage(evaluation: Evaluation) -> str:
    rows = [
        [
            f"{one.precision:.0%}",
            "not reached" if one.min_probability is None else f"{one.min_probability:.3f}",
            f"{one.coverage:.1%}",
        ]
        for one in evaluation.coverage
    ]
    return _table(["wanted share right", "least probability", "images answered"], rows)


def _confusion(evaluation: Evaluation) -> str:
    """The matrix of the labels most often confused, or of all if they are few."""
    if not evaluation.confusions:
        return "<p>Nothing.</p>"
    labels: dict[str, None] = {}
    for pair in evaluation.confusions:
        if len(labels) <= _MATRIX - 2:
            labels |= {pair.label: None, pair.answer: None}
    counts = {(pair.label, pair.answer): pair.images for pair in evaluation.confusions}
    for one in evaluation.classes:
        counts[one.label, one.label] = round(one.recall * one.images)
    rows = [[pair.label, pair.answer, str(pair.images)] for pair in evaluation.confusions[:20]]
    return (
        f'<div class="scroll">{matrix_plot(sorted(labels), counts)}</div>'
        f"<p>Rows: what the image shows. Columns: what was answered. Of {evaluation.labels:,} "
        f"labels, the {len(labels)} most often confused.</p>"
        + _table(["shows", "answered as", "images"], rows)
    )


def _mistake(mistake: Mistake, root: Path, max_pixels: int) -> str:
    caption = f"{mistake.label} answered as {mistake.answer}, {mistake.probability:.0%}"
    try:
        image = decode_image((root / mistake.path).read_bytes(), max_pixels=max_pixels)
    except (OSError, ClipdexError):
        picture = "<p>(gone since)</p>"
    else:
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=80)
        data = base64.b64encode(out.getvalue()).decode()
        picture = f'<img alt="{escape(mistake.path)}" src="data:image/jpeg;base64,{data}">'
    path = escape(mistake.path)
    return f"<figure>{picture}<figcaption>{escape(caption)}<br>{path}</figcaption></figure>"


def _classes(evaluation: Evaluation) -> str:
    ordered = sorted(evaluation.classes, key=lambda one: (one.recall, one.label))
    rows = [
        [
            one.label,
            str(one.images),
            f"{one.recall:.1%}",
            "" if one.precision is None else f"{one.precision:.1%}",
        ]
        for one in ordered
    ]
    table = _table(["label", "images", "found (recall)", "right when answered (precision)"], rows)
    return f'<div class="scroll">{table}</div>'


def _skipped(evaluation: Evaluation) -> str:
    if not evaluation.skipped:
        return ""
    rows = [[path, reason] for path, reason in evaluation.skipped]
    return f"<h2>Files that could not be read</h2>{_table(['file', 'why'], rows)}"
