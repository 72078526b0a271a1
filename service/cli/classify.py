"""`clipdex classify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.cli.options import DataOption, JsonOption, ModelOption, load_model, open_store
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
from service.cli.rows import print_row, tell
from service.cli.terminal import Reporter, complain
from service.errors import ParameterError
from service.settings import Settings, read_settings

if TYPE_CHECKING:
    from indexer import CategoryIndex
    from models import Encoder
    from service.batch import Classifier, Engine, Question, Results, Summary
    from service.classify_options import ClassifyOptions

# Images between two prints: few, so that a slow model's answers come as they are found.
_PRINTED_TOGETHER = 16
_ROWS_FAILED = 3


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
        typer.Option(metavar="A,B,...", help="Labels to compare with instead of an index."),
    ] = None,
    templates: Annotated[
        str | None, typer.Option(metavar="SET", help="Prompt templates for --labels.")
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
        typer.Option(metavar="P", help="Wanted share of right answers (calibrated index)."),
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
    from service.batch import Classifier
    from service.batch.errors import RowFailedError
    from service.batch.listing import check_inputs
    from service.classify_options import read_options

    settings = read_settings(model=model, data=data, index=index)
    fields = {
        "index": index,
        "labels": labels,
        "templates": templates,
        "top_k": top_k,
        "min_probability": min_probability,
        "min_score": min_score,
        "mode": mode,
        "precision": precision,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    options = read_options(given, max_labels=settings.max_labels)
    results = _results(out, embeddings, unordered=unordered)
    check_inputs(inputs, column=column)
    pool = wanted_pool(
        engine,
        with_out=out is not None,
        address=address,
        min_actors=min_actors,
        max_actors=max_actors,
        actor_cpus=actor_cpus,
        actor_gpus=actor_gpus,
    )
    with Reporter() as reporter:
        encoder = load_model(settings, reporter)
        version = _pinned_version(results)
        categories, version = _categories(settings, options, encoder, reporter, version)
        question = _question(settings, options, results, version)
        classifier = Classifier(encoder, categories, question)
        try:
            if results is None:
                return _to_terminal(inputs, column, classifier, reporter, json=json, strict=strict)
            asked = {
                "inputs": inputs,
                "column": column,
                "working_folder": str(Path.cwd()),
                "model": encoder.model_id,
                "fingerprint": encoder.fingerprint,
                **options.model_dump(),
                "index": question.index,
                "index_version": version,
                "index_created": categories.manifest.created if version else None,
                "max_pixels": question.max_pixels,
                "unordered": unordered,
                "embeddings": embeddings,
            }
            cluster: Engine | None = None
            if pool is not None:
                cluster = ray_engine(
                    settings, categories, question, pool, address=address, ordered=not unordered
                )
            summary = _to_file(results, asked, classifier, reporter, cluster, strict=strict)
        except RowFailedError as error:
            complain(error.message)
            return _ROWS_FAILED
    tell(summary, as_json=json)
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


def _pinned_version(results: Results | None) -> int | None:
    """The index version of an unfinished run, which goes on with it whatever is in force now."""
    from service.batch.journal import recorded

    asked = None if results is None else recorded(results.out)
    version: int | None = asked.get("index_version") if asked else None
    return version


def _categories(
    settings: Settings,
    options: ClassifyOptions,
    encoder: Encoder,
    reporter: Reporter,
    version: int | None,
) -> tuple[CategoryIndex, int | None]:
    """What to compare with, and the index's version; None for labels.

    version: of the index that is wanted; None for the one in force
    """
    from indexer import CategoryIndex
    from service.default_index import DEFAULT, default_categories, default_is_due
    from service.index_versions import current_of_kind

    if options.labels is not None:
        if options.templates is None:
            return CategoryIndex.build(options.labels, encoder, on_progress=reporter), None
        index = CategoryIndex.build(
            options.labels, encoder, templates=options.templates, on_progress=reporter
        )
        return index, None
    store = open_store(settings)
    if settings.index == DEFAULT and default_is_due(store, encoder.fingerprint):
        index = CategoryIndex.build(default_categories(store), encoder, on_progress=reporter)
        return index, store.publish(DEFAULT, index)
    version = version or current_of_kind(store, settings.index, "categories")
    return store.load(settings.index, version, fingerprint=encoder.fingerprint), version


def _question(
    settings: Settings, options: ClassifyOptions, results: Results | None, version: int | None
) -> Question:
    from service.batch import Question

    return Question(
        top_k=options.top_k,
        policy=options.policy(),
        max_pixels=settings.max_pixels,
        embeddings=results is not None and results.embeddings is not None,
        index=None if version is None else settings.index,
        index_version=version,
    )


def _to_file(
    results: Results,
    asked: dict[str, Any],
    classifier: Classifier,
    reporter: Reporter,
    cluster: Engine | None,
    *,
    strict: bool,
) -> Summary:
    """The rows of a run that survives being killed. cluster: None for this machine."""
    from service.batch import Journal, LocalEngine, list_items, run_job
    from service.batch.local_engine import REMOTE_READERS

    def listing() -> Any:
        return list_items(asked["inputs"], column=asked["column"])

    with Journal.open(results.out, asked, listing) as journal:
        engine = cluster or LocalEngine(
            classifier,
            journal.seen(),
            ordered=not asked["unordered"],
            readers=REMOTE_READERS if journal.remote else None,
        )
        return run_job(
            journal, engine, results, dim=classifier.dim, strict=strict, on_progress=reporter
        )


def _to_terminal(
    inputs: list[str],
    column: str | None,
    classifier: Classifier,
    reporter: Reporter,
    *,
    json: bool,
    strict: bool,
) -> int:
    """Rows as they come; returns the exit code. Raises: RowFailedError."""
    from indexer import Progress
    from service.batch import LocalEngine, blocks, list_items
    from service.batch.errors import RowFailedError
    from service.batch.local_engine import REMOTE_READERS
    from service.batch.seen import MemorySeen
    from service.batch.storage import is_remote

    items = list(list_items(inputs, column=column))
    remote = any(is_remote(item.place) for item in items)
    engine = LocalEngine(
        classifier, MemorySeen(), ordered=True, readers=REMOTE_READERS if remote else None
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
