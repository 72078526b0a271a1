"""What `clipdex eval` found, as one HTML file that loads nothing."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from indexer.evaluation import Evaluation, Mistake
from models.errors import ClipdexError
from models.images import decode_image
from service.svg_plots import matrix_plot, square_plot

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
