"""`clipdex eval`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.options import DataOption, JsonOption, ModelOption, loaded_model, open_store
from service.cli.terminal import Reporter, note, print_json, print_table
from service.settings import read_settings

if TYPE_CHECKING:
    from indexer.evaluation.calibrating import Calibrated
    from indexer.evaluation.evaluation import Evaluation


def evaluate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A folder with one subfolder a label, or a .csv or .parquet of path and label.",
        ),
    ],
    index: Annotated[
        str | None, typer.Option(metavar="NAME", help="Index to evaluate (CLIPDEX_INDEX).")
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Fit temperature and thresholds; store them as a new version."
        ),
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a self-contained HTML report.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write everything as JSON.")
    ] = None,
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Measure how well an index recognises labelled images.

    Images labelled "unknown" show none of the categories. With --calibrate, half of the images
    are fitted to; the figures are those of the other half.
    """
    from indexer.evaluation.calibrating import calibrate as fit
    from indexer.evaluation.evaluation import evaluate as measure
    from indexer.evaluation.labelled_images import embed_images, read_labelled_images
    from service.reports.evaluation import eval_report
    from service.serving.core import current_of_kind

    settings = read_settings(model=model, data=data, index=index)
    name, store = settings.index, open_store(settings)
    version = current_of_kind(store, name, "categories")
    listed = read_labelled_images(source)
    with Reporter() as reporter, loaded_model(settings, reporter) as encoder:
        categories = store.load(name, version, fingerprint=encoder.fingerprint)
        images = embed_images(listed, encoder, on_progress=reporter)
        with reporter.phase("Comparing"):
            calibrated = fit(categories, images) if calibrate else None
            found = measure(categories, images) if calibrated is None else calibrated.after
    if calibrated is not None:
        changed = categories.calibrated(calibrated.calibration)
        version = store.publish(name, changed, base=version)
    facts = {"index": name, "index_version": version, **found.as_json()}
    if out is not None:
        text = json_module.dumps(facts, indent=1, ensure_ascii=False)
        out.write_text(text + "\n", encoding="utf-8")
    if report is not None:
        title = f"{name}, version {version}, on {source.name}"
        page = eval_report(found, title=title, root=images.root, max_pixels=settings.max_pixels)
        report.write_text(page, encoding="utf-8")
    for skipped in images.skipped:
        note(f"skipped {skipped.path}: {skipped.reason}")
    if json:
        print_json(facts)
    else:
        _print(found, calibrated, name, version)


def _print(found: Evaluation, calibrated: Calibrated | None, name: str, version: int) -> None:
    print_table(
        ["FIGURE", "VALUE"],
        [
            ["index", f"{name}, version {version}"],
            ["images", f"{found.images:,}"],
            ["categories", f"{found.categories:,}"],
            ["top-1", f"{found.top1:.1%}"],
            ["top-5", f"{found.top5:.1%}"],
            ["expected calibration error", f"{found.ece:.1%}"],
        ],
    )
    if calibrated is not None:
        fitted = calibrated.calibration
        print(
            f"\ncalibrated on {fitted.images:,} images: temperature {fitted.temperature:.3f}, "
            f"calibration error {fitted.ece_before:.1%} before, {fitted.ece_after:.1%} after"
        )
    print()
    print_table(
        ["PRECISION", "LEAST PROBABILITY", "ANSWERED"],
        [
            [
                f"{one.precision:.0%}",
                "not reached" if one.min_probability is None else f"{one.min_probability:.3f}",
                f"{one.coverage:.1%}",
            ]
            for one in found.coverage
        ],
    )
    print()
    worst = sorted(found.classes, key=lambda one: (one.recall, one.label))[:20]
    print_table(
        ["WORST LABELS", "IMAGES", "RECALL", "PRECISION"],
        [
            [
                one.label,
                str(one.images),
                f"{one.recall:.1%}",
                "" if one.precision is None else f"{one.precision:.1%}",
            ]
            for one in worst
        ],
    )
