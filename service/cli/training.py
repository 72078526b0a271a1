"""`clipdex tune` and `clipdex finetune`: thin fronts of training.finetune."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import DataOption, JsonOption, ModelOption, loaded_model, open_store
from service.cli.terminal import Reporter, note, print_json, print_table
from service.errors import ParameterError
from service.settings import read_settings

if TYPE_CHECKING:
    from models import Encoder
    from service.settings import Settings
    from training import Dataset

_SHOWN = 10  # labels named in a message

FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="One folder of images for each class.")
]
ValOption = Annotated[
    str, typer.Option("--val", metavar="SHARE|FOLDER", help="Held out: a share, or a folder.")
]
TemplatesOption = Annotated[
    str, typer.Option("--templates", metavar="SET", help="Prompt templates for the classes.")
]
ViewsOption = Annotated[
    int, typer.Option("--views", metavar="N", min=1, help="Variants of each training image.")
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", help="Of everything random.")]
SkipOption = Annotated[
    bool, typer.Option("--skip-bad", help="Leave unreadable files out instead of stopping.")
]
BudgetOption = Annotated[
    str | None, typer.Option("--budget", metavar="TIME", help="Such as 2min or 90s.")
]


def register(app: typer.Typer) -> None:
    """Add both commands to the command tree."""
    app.command("tune")(tune)
    app.command("finetune")(finetune)


def tune(
    folder: FolderArgument,
    method: Annotated[str, typer.Option(metavar="NAME", help="grid, random, qmc or tpe.")] = "tpe",
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="Settings to try.")] = 20,
    budget: BudgetOption = None,
    study: Annotated[
        Path | None, typer.Option(metavar="FILE", help="SQLite file to keep and resume.")
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Processes side by side.")] = 1,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the best recipe goes.")] = Path(
        "recipe.yaml"
    ),
    index: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Index among whose categories (CLIPDEX_INDEX)."),
    ] = None,
    val: ValOption = "0.2",
    templates: TemplatesOption = "everyday",
    views: ViewsOption = 4,
    seed: SeedOption = 0,
    skip_bad: SkipOption = False,
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Search for the best training settings; writes the best as a recipe."""
    from training.finetune import tune_folder
    from training.search import Trial

    def show(trial: Trial) -> None:
        value = "-" if trial.value is None else f"{trial.value:.4f}"
        note(f"trial {trial.number}: {trial.state} {value} {dict(trial.parameters)}")

    settings = read_settings(model=model, data=data, index=index)
    with Reporter() as reporter, loaded_model(settings, reporter) as encoder:
        samples = _read(settings, encoder, folder, val, templates, views, seed, skip_bad)
        samples = _among_the_index(settings, encoder, samples)
    found = tune_folder(
        samples,
        method=method,
        trials=trials,
        budget=budget,
        study=study,
        jobs=jobs,
        seed=seed,
        on_trial=show,
    )
    out.write_text(found.best.to_yaml(), encoding="utf-8")
    result = {
        "recipe": str(out),
        "metric": found.metric,
        "value": found.value,
        "trials": len(found.trials),
    }
    _print(result, as_json=json)


def finetune(
    folder: FolderArgument,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="auto measures all candidates by folds and takes the best; or class-means, gda, "
            "regression, anchored, tip-adapter, blend (settings by folds), head, tip-adapter-f, "
            "linear-probe, logistic-probe, prolip (heads), lora, partial, full (the model).",
        ),
    ] = "auto",
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the adapter (default: called like the index)."),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Index among whose categories it answers; default: one of FOLDER's labels alone.",
        ),
    ] = None,
    only_these: Annotated[
        bool,
        typer.Option(
            "--only-these", help="With --index: take its templates, not its other categories."
        ),
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Recipe to train with, from clipdex tune.")
    ] = None,
    budget: BudgetOption = None,
    report: Annotated[
        Path, typer.Option(metavar="FILE", help="Where the HTML report goes.")
    ] = Path("report.html"),
    val: Annotated[
        str | None,
        typer.Option(
            "--val",
            metavar="SHARE|FOLDER",
            help="Held out: a share, or a folder (default: folds below 30 images a class, or 0.2).",
        ),
    ] = None,
    retention: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Class folders of others, to see what is forgotten."),
    ] = None,
    templates: Annotated[
        str | None,
        typer.Option(metavar="SET", help="Prompt templates for the classes (default: the index's)"),
    ] = None,
    views: ViewsOption = 4,
    seed: SeedOption = 0,
    skip_bad: SkipOption = False,
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Train an adapter on labelled images and write a report.

    Without --index an index of FOLDER's own labels is made, called like the adapter or the folder.
    With --index the adapter learns to find its categories among all of that index. It is stored as
    a new version that isn't current yet: clipdex adapters promote NAME. With --budget the six-step
    checklist runs first.
    """
    from service.finetuning.training import summary
    from service.serving.assignments import Assignments
    from training import ProgressBar, Recipe, StepResult
    from training.adapters.store import AdapterStore
    from training.finetune import default_val, finetune_folder

    def show(step: StepResult) -> None:
        note(f"{step.name}: {step.status} ({step.evidence})")

    settings = read_settings(model=model, data=data, index=index)
    texts = templates or _templates_of(settings, must_exist=index is not None)
    alone = index is None or only_these
    if alone:
        settings = settings.model_copy(update={"index": _own_index_name(name, folder)})
    chosen = name or settings.index
    held_out = default_val(method) if val is None else val
    with Reporter() as reporter, loaded_model(settings, reporter) as encoder:
        samples = _read(
            settings, encoder, folder, held_out, texts, views, seed, skip_bad, retention
        )
        if alone:
            _index_of_own_labels(settings, encoder, samples.classes, texts)
        else:
            samples = _among_the_index(settings, encoder, samples)
        done = finetune_folder(
            encoder,
            samples,
            store=AdapterStore(settings.adapters),
            name=chosen,
            method=method,
            recipe=None if recipe is None else Recipe.from_file(recipe),
            seed=seed,
            budget=budget,
            report=report,
            callbacks=[ProgressBar()],
            on_step=show,
        )
    Assignments(settings.adapters).set_made_for(chosen, settings.index)
    result = {**summary(chosen, settings.index, done), "report": str(done.report)}
    _print(result, as_json=json)


def _read(
    settings: Settings,
    encoder: Encoder,
    folder: Path,
    val: str | float | None,
    templates: str | Sequence[str],
    views: int,
    seed: int,
    skip_bad: bool,
    retention: Path | None = None,
) -> Dataset:
    from indexer import Progress, resolve_templates
    from training.data import CACHE
    from training.finetune import Sources

    sources = Sources(
        folder=folder,
        val=_share_or_folder(val),
        templates=resolve_templates(templates).texts,
        views=views,
        seed=seed,
        skip_bad=skip_bad,
        retention=retention,
        cache=CACHE if settings.cache is None else settings.cache / "features",
    )
    with Reporter() as reporter:

        def encoded(done: int, total: int) -> None:
            reporter(Progress("encoding images", done, total))

        data = sources.read(encoder, encoded)
    for path, reason in sources.skipped:
        note(f"skipped {path}: {reason}")
    return data


def _among_the_index(settings: Settings, encoder: Encoder, samples: Dataset) -> Dataset:
    """With the other categories of the index that the adapter is for."""
    from service.finetuning.other_categories import others_of
    from service.serving.core import ServingCore

    core = ServingCore(settings)
    with Reporter() as reporter:
        index = core.classifier(settings.index, None, encoder, report=reporter).index
    found = index.positions(samples.classes, synonyms=True).tolist()
    new = [label for label, at in zip(samples.classes, found, strict=True) if at < 0]
    rest = [label for at, label in enumerate(index.labels()) if at not in set(found)]
    if new:
        note(f"not in the index {settings.index!r}, new with this adapter: {_listed(new)}")
    if rest:
        note(
            f"in the index {settings.index!r}, not taught, answered by words: {_listed(rest)}; "
            "--only-these leaves them out"
        )
    return replace(samples, others=others_of(index, samples))


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:_SHOWN])
    return shown if len(labels) <= _SHOWN else f"{shown} and {len(labels) - _SHOWN:,} more"


def _own_index_name(name: str | None, folder: Path) -> str:
    """What the index of a folder's own labels is called."""
    from indexer.store import check_name

    return check_name(name or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._"))


def _index_of_own_labels(
    settings: Settings, encoder: Encoder, classes: Sequence[str], templates: str | Sequence[str]
) -> None:
    """Make the index that the adapter answers for, of the folder's labels alone.

    Raises: ParameterError where an index of that name has other categories.
    """
    from indexer import CategoryIndex, PromptCache

    store = open_store(settings)
    if settings.index in store.names():
        version = store.current_version(settings.index)
        kept = store.load(settings.index, version, fingerprint=encoder.fingerprint)
        if set(kept.labels()) != set(classes):
            raise ParameterError(
                f"the index {settings.index!r} has other categories than {len(classes)} labels of "
                "the folder; give --index to teach them among these, or another --name",
                param="name",
            )
        note(f"answers for the index {settings.index!r}, of these {len(classes)} labels alone")
        return
    with Reporter() as reporter:
        made = CategoryIndex.build(
            list(classes),
            encoder,
            templates=templates,
            cache=PromptCache(settings.prompt_cache),
            on_progress=reporter,
        )
    version = store.publish(settings.index, made)
    note(
        f"made the index {settings.index!r} (version {version}) of the folder's {len(classes)} "
        "labels alone; --index NAME teaches them among another index's categories"
    )


def _templates_of(settings: Settings, *, must_exist: bool) -> str | list[str]:
    """The templates of the index that an adapter is for."""
    from indexer.errors import UnknownIndexError
    from service.serving.core import DEFAULT_TEMPLATES, current_of_kind

    store = open_store(settings)
    try:
        current_of_kind(store, settings.index, "categories")
    except UnknownIndexError:
        if must_exist:
            raise
        return DEFAULT_TEMPLATES  # the index that a server will build
    manifest = store.info(settings.index).manifest
    return list((manifest.templates or {})["texts"])


def _share_or_folder(val: str | float | None) -> float | Path | None:
    if val is None or isinstance(val, float):
        return val
    try:
        return float(val)
    except ValueError:
        return Path(val)


def _print(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        print_table(["FIELD", "VALUE"], [[key, str(value)] for key, value in result.items()])
