"""`clipdex tune` and `clipdex finetune`: thin fronts of training.workflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import DataOption, JsonOption, ModelOption, load_model
from service.cli.terminal import Reporter, note, print_json, print_table
from service.settings import read_settings

if TYPE_CHECKING:
    from models import Encoder
    from service.settings import Settings
    from training import Dataset

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
    val: ValOption = "0.2",
    templates: TemplatesOption = "pictogram",
    views: ViewsOption = 4,
    seed: SeedOption = 0,
    skip_bad: SkipOption = False,
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Search for the best training settings; writes the best as a recipe."""
    from training.search import Trial
    from training.workflow import tune_folder

    def show(trial: Trial) -> None:
        value = "-" if trial.value is None else f"{trial.value:.4f}"
        note(f"trial {trial.number}: {trial.state} {value} {dict(trial.parameters)}")

    settings = read_settings(model=model, data=data)
    _, samples = _read(settings, folder, val, templates, views, seed, skip_bad)
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
            help="head, gda, tip-adapter, linear-probe, logistic-probe or auto.",
        ),
    ] = "head",
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the adapter.")] = "default",
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Recipe to train with, from clipdex tune.")
    ] = None,
    budget: BudgetOption = None,
    report: Annotated[
        Path, typer.Option(metavar="FILE", help="Where the HTML report goes.")
    ] = Path("report.html"),
    val: ValOption = "0.2",
    templates: TemplatesOption = "pictogram",
    views: ViewsOption = 4,
    seed: SeedOption = 0,
    skip_bad: SkipOption = False,
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Train an adapter on labelled images and write a report.

    With --budget the six-step checklist runs first. The adapter is stored as a new version that
    isn't live yet.
    """
    from training import ProgressBar, Recipe, StepResult
    from training.adapter_store import AdapterStore
    from training.workflow import finetune_folder

    def show(step: StepResult) -> None:
        note(f"{step.name}: {step.status} ({step.evidence})")

    settings = read_settings(model=model, data=data)
    encoder, samples = _read(settings, folder, val, templates, views, seed, skip_bad)
    done = finetune_folder(
        encoder,
        samples,
        store=AdapterStore(settings.data / "adapters"),
        name=name,
        method=method,
        recipe=None if recipe is None else Recipe.from_file(recipe),
        seed=seed,
        budget=budget,
        report=report,
        callbacks=[ProgressBar()],
        on_step=show,
    )
    result: dict[str, Any] = {
        "adapter": name,
        "version": done.version,
        "method": type(done.run.recipe.method).__name__,
        "why": done.why,
        "verdict": str(done.run.diagnosis.verdict),
        "advice": done.run.diagnosis.advice,
        "report": str(done.report),
    }
    if done.metrics:
        result["zero_shot_top1"] = done.metrics["zero_shot"]["top1"]
        result["tuned_top1"] = done.metrics["tuned"]["top1"]
        result["gate"] = "passed" if done.metrics["gate"]["passed"] else "refused"
        result["gate_failures"] = done.metrics["gate"]["failures"]
    _print(result, as_json=json)


def _read(
    settings: Settings,
    folder: Path,
    val: str,
    templates: str,
    views: int,
    seed: int,
    skip_bad: bool,
) -> tuple[Encoder, Dataset]:
    from indexer import Progress, resolve_templates
    from training.data import CACHE
    from training.workflow import Sources

    sources = Sources(
        folder=folder,
        val=_share_or_folder(val),
        templates=resolve_templates(templates).texts,
        views=views,
        seed=seed,
        skip_bad=skip_bad,
        cache=CACHE if settings.cache is None else settings.cache / "features",
    )
    with Reporter() as reporter:
        encoder = load_model(settings, reporter)

        def encoded(done: int, total: int) -> None:
            reporter(Progress("encoding images", done, total))

        data = sources.read(encoder, encoded)
    for path, reason in sources.skipped:
        note(f"skipped {path}: {reason}")
    return encoder, data


def _share_or_folder(val: str) -> float | Path:
    try:
        return float(val)
    except ValueError:
        return Path(val)


def _print(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        print_table(["FIELD", "VALUE"], [[key, str(value)] for key, value in result.items()])
