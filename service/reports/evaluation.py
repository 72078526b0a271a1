"""The report of an evaluation: one HTML page whose plots are SVG, without scripts."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import jinja2
from markupsafe import Markup

from indexer.evaluation.evaluation import Evaluation
from models.errors import ClipdexError
from models.images import decode_image

_SIDE = 260  # pixels of the plotted square
_LEFT, _TOP = 46, 10  # room for the axes' words
_WIDTH, _HEIGHT = _SIDE + _LEFT + 12, _SIDE + _TOP + 42
_THUMBNAIL = 112  # pixels
_MATRIX = 30  # labels; more could not be told apart
_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
)
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


def eval_report(evaluation: Evaluation, *, title: str, root: Path, max_pixels: int) -> str:
    """What `clipdex eval` found, as one HTML page that loads nothing.

    root: the folder that the mistakes' paths are relative to; thumbnails are made from them
    """
    matrix, shown = _confusion(evaluation)
    reliability = square_plot(
        across="probability",
        up="share right",
        bars=[(one.low, one.high, one.accuracy) for one in evaluation.reliability],
        diagonal=True,
    )
    risk = square_plot(
        across="share answered",
        up="share wrong",
        line=evaluation.risk_coverage,
        top=max([0.05, *(risk for _, risk in evaluation.risk_coverage)]),
    )
    page = _templates.get_template("evaluation.html")
    return page.render(
        title=title,
        evaluation=evaluation,
        reliability=Markup(reliability),
        risk=Markup(risk),
        matrix=Markup(matrix),
        shown=shown,
        mistakes=[(item, _thumbnail(root / item.path, max_pixels)) for item in evaluation.mistakes],
        classes=sorted(evaluation.classes, key=lambda one: (one.recall, one.label)),
    )


def _confusion(evaluation: Evaluation) -> tuple[str, int]:
    """The matrix of the labels most often confused, or of all if few, and their number."""
    labels: dict[str, None] = {}
    for pair in evaluation.confusions:
        if len(labels) <= _MATRIX - 2:
            labels |= {pair.label: None, pair.answer: None}
    counts = {(pair.label, pair.answer): pair.images for pair in evaluation.confusions}
    for one in evaluation.classes:
        counts[one.label, one.label] = round(one.recall * one.images)
    return matrix_plot(sorted(labels), counts), len(labels)


def _thumbnail(path: Path, max_pixels: int) -> str | None:
    """A small picture as a data URI; None if the file can't be read any more."""
    try:
        image = decode_image(path.read_bytes(), max_pixels=max_pixels)
    except (OSError, ClipdexError):
        return None
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
