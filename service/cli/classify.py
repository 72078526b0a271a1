"""`clipdex classify`: options -> listing -> model and categories -> engine -> rows.

The stages of the work are those of `service.batch`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.cli.compared import Compared, compared
from service.cli.options import DataOption, JsonOption, ModelOption, read_label_file
from service.cli.ray import (
    ActorCpusOption,
    ActorGpusOption,
    AddressOption,
    EngineOption,
    MaxActorsOption,
    MinActorsOption,
    ray_engine,
    wanted_pool,
)
from service.cli.terminal import Reporter, complain, print_json
from service.errors import ParameterError
from service.settings import Settings, read_settings

if TYPE_CHECKING:
    from service.batch import Classifier, Engine, Item, Journal, Question, Results, Summary
    from service.batch.rows import Row
    from service.serving.options import ClassifyOptions


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


def print_summary(summary: Summary, *, as_json: bool) -> None:
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


# Images between two prints: few, so that a slow model's answers come as they are found.
_PRINTED_TOGETHER = 16
_ROWS_FAILED = 3  # the exit code


def classify(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Images, folders, patterns, lists (.txt, .csv, .parquet), .tar shards, URLs.",
        ),
    ],
    index: Annotated[
        str | None, typer.Option(metavar="NAME", help="Index to compare with (CLIPDEX_INDEX).")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...|FILE",
            help="Labels to compare with instead of an index, or a file of categories.",
        ),
    ] = None,
    templates: Annotated[
        str | None, typer.Option(metavar="SET", help="Prompt templates for --labels.")
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="NAME, NAME@VERSION or none (default: the index's own adapter)."
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(metavar="N", help="Matches for each image.")] = 5,
    min_probability: Annotated[
        float | None, typer.Option(metavar="P", help="Below this probability: unknown.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(metavar="S", help="Below this cosine: unknown.")
    ] = None,
    mode: Annotated[
        Literal["single", "multi"],
        typer.Option(help="One category an image, or every one that passes."),
    ] = "single",
    precision: Annotated[
        float | None,
        typer.Option(
            "--target-precision",
            "--precision",
            metavar="P",
            help="Wanted share of right answers (calibrated index); --precision is its old name.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write rows to a .jsonl, .csv or .parquet; resumable."),
    ] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help='With --out: a .npy file, or "column" of a .parquet.'),
    ] = None,
    unordered: Annotated[
        bool, typer.Option("--unordered", help="With --out: rows as they get ready.")
    ] = False,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of paths in .csv and .parquet.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that can't be read.")
    ] = False,
    engine: EngineOption = "local",
    address: AddressOption = None,
    min_actors: MinActorsOption = None,
    max_actors: MaxActorsOption = None,
    actor_cpus: ActorCpusOption = None,
    actor_gpus: ActorGpusOption = None,
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Say what images show: one line an image, or one JSON object a line.

    With --out rows go to a file, and the same command goes on after it was killed. An image that
    can't be read is a row with an error; the others go on, and the exit code is 3.
    """
    from service.batch import Classifier, Journal, LocalEngine, list_items, run_job
    from service.batch.engines.local import REMOTE_READERS
    from service.batch.errors import RowFailedError
    from service.serving.options import read_options

    settings = read_settings(model=model, data=data, index=index)
    categories = None if labels is None else read_label_file(labels)
    fields = {
        "index": index,
        "labels": labels if categories is None else [one.label for one in categories],
        "templates": templates,
        "adapter": adapter,
        "top_k": top_k,
        "min_probability": min_probability,
        "min_score": min_score,
        "mode": mode,
        "precision": precision,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    options = read_options(given, max_labels=settings.max_labels)
    results = _results(out, embeddings, unordered=unordered)
    pool = wanted_pool(
        engine,
        with_out=out is not None,
        address=address,
        min_actors=min_actors,
        max_actors=max_actors,
        actor_cpus=actor_cpus,
        actor_gpus=actor_gpus,
    )
    with contextlib.ExitStack() as stack:
        # Listed once, before the model is loaded: what can't be listed is told at once.
        items: list[Item] = []
        journal: Journal | None = None
        if results is None:
            items = list(list_items(inputs, column=column))
        else:
            listing = partial(list_items, inputs, column=column)
            journal = stack.enter_context(Journal.open(results.out, None, listing))
        reporter = stack.enter_context(Reporter())
        begun = None if journal is None else journal.recorded
        found = stack.enter_context(
            compared(settings, options, reporter, begun=begun, categories=categories)
        )
        question = _question(settings, options, results, found)
        classifier = Classifier(found.encoder, found.categories, question)
        try:
            if results is None or journal is None:
                return _to_terminal(items, classifier, reporter, json=json, strict=strict)
            journal.begin(
                {
                    "inputs": inputs,
                    "column": column,
                    "working_folder": str(Path.cwd()),
                    "fingerprint": found.encoder.fingerprint,
                    **options.model_dump(),
                    **({} if categories is None else {"categories": list(map(asdict, categories))}),
                    **asdict(classifier.origin),
                    "adapter": options.adapter,
                    "answered_by": classifier.origin.adapter,
                    "index_created": found.created,
                    "max_pixels": question.max_pixels,
                    "unordered": unordered,
                    "embeddings": embeddings,
                }
            )
            chosen: Engine = (
                LocalEngine(
                    classifier,
                    journal.cache(),
                    ordered=not unordered,
                    readers=REMOTE_READERS if journal.remote else None,
                )
                if pool is None
                else ray_engine(found, question, pool, address=address, ordered=not unordered)
            )
            summary = run_job(
                journal, chosen, results, dim=classifier.dim, strict=strict, on_progress=reporter
            )
        except RowFailedError as error:
            complain(error.message)
            return _ROWS_FAILED
    print_summary(summary, as_json=json)
    return _ROWS_FAILED if summary.failed else 0


def _results(out: Path | None, embeddings: str | None, *, unordered: bool) -> Results | None:
    """Where the rows go; None for the terminal. Raises: OutputError, ParameterError."""
    from service.batch import Results

    if out is None:
        if embeddings is not None or unordered:
            raise ParameterError("--embeddings and --unordered go with --out", param="out")
        return None
    place = Path(embeddings) if embeddings not in (None, "column") else embeddings
    return Results(out, embeddings=place)


def _question(
    settings: Settings, options: ClassifyOptions, results: Results | None, found: Compared
) -> Question:
    from service.batch import Origin, Question

    return Question(
        top_k=options.top_k,
        policy=options.policy(),
        max_pixels=settings.max_pixels,
        embeddings=results is not None and results.embeddings is not None,
        origin=Origin(
            found.base,
            index=None if found.version is None else settings.index,
            index_version=found.version,
            adapter=None if found.adapter is None else str(found.adapter),
        ),
    )


def _to_terminal(
    items: Sequence[Item],
    classifier: Classifier,
    reporter: Reporter,
    *,
    json: bool,
    strict: bool,
) -> int:
    """Rows as they come; returns the exit code. Raises: RowFailedError."""
    from indexer import Progress
    from service.batch import LocalEngine, blocks
    from service.batch.answer_cache import MemoryCache
    from service.batch.engines.local import REMOTE_READERS
    from service.batch.errors import RowFailedError
    from service.batch.storage import is_remote

    remote = any(is_remote(item.place) for item in items)
    engine = LocalEngine(
        classifier, MemoryCache(), ordered=True, readers=REMOTE_READERS if remote else None
    )
    done = failed = 0
    for result in engine.results(blocks(items, size=_PRINTED_TOGETHER)):
        for row in result.rows:
            if strict and row["error"] is not None:
                raise RowFailedError(f"{row['file']}: {row['error']}")
            failed += row["error"] is not None
            print_row(row, as_json=json)
        done += len(result.rows)
        reporter(Progress("classifying", done, len(items)))
    return _ROWS_FAILED if failed else 0
