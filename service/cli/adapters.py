"""`clipdex adapters ...`. A server on the same data folder notices what these change."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import DataOption, JsonOption, ModelOption, loaded_model
from service.cli.terminal import Reporter, print_json, print_table
from service.settings import Settings, read_settings

if TYPE_CHECKING:
    from models import Encoder
    from service.serving.core import ServingCore
    from service.serving.promotion import Move

app = typer.Typer(
    help="See, promote, roll back and export what fine-tuning made.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the adapter.")]
VersionOption = Annotated[
    int | None, typer.Option("--version", metavar="N", min=1, help="Which version.")
]


@app.command("list")
def list_adapters(data: DataOption = None, json: JsonOption = False) -> None:
    """List the adapters, their versions, and the indexes that they answer for."""
    from service.serving.promotion import adapter_list

    settings = read_settings(data=data)
    found = adapter_list(_core(settings))
    if json:
        print_json(found)
        return
    head = ["NAME", "LIVE", "VERSIONS", "ANSWERS FOR", "KIND", "CLASSES", "MODEL"]
    rows = [
        [
            item["name"],
            "-" if item["live"] is None else str(item["live"]),
            ", ".join(map(str, item["versions"])),
            ", ".join(item["indexes"]) or "-",
            item["kind"],
            str(len(item["classes"])),
            item["model"],
        ]
        for item in found
    ]
    print_table(head, rows)


@app.command("show")
def show(
    name: NameArgument,
    version: VersionOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show a version, by default the live one or else the newest: how it does, what the gate says.

    Its files and stored answers are verified.
    """
    from service.serving.promotion import adapter_details

    settings = read_settings(data=data)
    details = adapter_details(_core(settings), name, version)
    if json:
        print_json(details)
        return
    metrics, gate = details.pop("metrics"), details["gate_failures"]
    rows = [[key, _shown(value)] for key, value in details.items() if key not in ("log", "prompts")]
    for side in ("zero_shot", "tuned"):
        for key in ("top1", "top5", "calibration_error", "n"):
            if "gate" in metrics:
                rows.append([f"{side}.{key}", _shown(metrics[side][key])])
    if "gate" in metrics:
        gain = metrics["gain"]
        rows.append(["gain", f"{gain['mean']:+.4f} [{gain['lower']:+.4f}, {gain['upper']:+.4f}]"])
    rows.append(["gate", "refused" if gate else "passed"])
    print_table(["FIELD", "VALUE"], rows)


@app.command("promote")
def promote(
    name: NameArgument,
    version: VersionOption = None,
    index: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Answer for this index (default: what it was made for)."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Go past the gate's verdict; it is logged.")
    ] = False,
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Let a version, by default the newest, answer for an index, if the gate lets it pass."""
    settings = read_settings(model=model, data=data)
    from service.serving.promotion import promote as promote_adapter

    with ExitStack() as models:
        load = _loader(settings, models)
        encoder = load(settings.model)
        moved = promote_adapter(
            _core(settings), name, version, encoder, index=index, force=force, load_model=load
        )
    _print_move(moved, as_json=json)


@app.command("rollback")
def roll_back(
    name: NameArgument,
    version: VersionOption = None,
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Put the version back that was live before; where none was, zero-shot answers again."""
    from service.serving.promotion import roll_back as roll_back_adapter

    settings = read_settings(model=model, data=data)
    with ExitStack() as models:
        load = _loader(settings, models)
        encoder = load(settings.model)
        moved = roll_back_adapter(_core(settings), name, version, encoder, load_model=load)
    _print_move(moved, as_json=json)


@app.command("export")
def export(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="New or empty folder.")],
    version: VersionOption = None,
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Write the model that an adapter brings along, by default of its live version.

    The folder is a model of open_clip's own format, which open_clip alone loads, and which is used
    here as --model local-dir:FOLDER. A head changes no model, so there is nothing to write.
    """
    from training.adapters.export import export_model

    settings = read_settings(model=model, data=data)
    store = _core(settings).adapters
    store.versions(name)
    folder = export_model(store, name, version, out, fingerprint=_fingerprint(settings))
    if json:
        print_json({"name": name, "folder": str(folder), "model": f"local-dir:{folder}"})
    else:
        print(f"{folder}: use it as --model local-dir:{folder}")


def _core(settings: Settings) -> ServingCore:
    from service.serving.core import ServingCore

    return ServingCore(settings)


def _loader(settings: Settings, models: ExitStack) -> Callable[[str], Encoder]:
    """Loads the models of the settings and of adapters; they are closed with `models`."""
    reporter = models.enter_context(Reporter())

    def load(model_id: str) -> Encoder:
        own = settings.model_copy(update={"model": model_id})
        return models.enter_context(loaded_model(own, reporter))

    return load


def _fingerprint(settings: Settings) -> str:
    with Reporter() as reporter, loaded_model(settings, reporter) as encoder:
        return encoder.fingerprint


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value) or "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_move(moved: Move, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": moved.name, "version": moved.version, "indexes": list(moved.indexes)})
        return
    print(f"{moved.adapter or 'zero-shot'} answers for {', '.join(moved.indexes) or 'no index'}")
