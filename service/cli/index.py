"""`clipdex index ...`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import (
    DataOption,
    JsonOption,
    ModelOption,
    loaded_model,
    open_store,
    warn_of,
)
from service.cli.terminal import Reporter, note, print_json, print_table
from service.errors import ParameterError
from service.settings import read_settings

if TYPE_CHECKING:
    from indexer import Category, IndexInfo

app = typer.Typer(
    help="Build and change category databases.", no_args_is_help=True, rich_markup_mode=None
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The index's name.")]


@app.command("build")
def build(
    name: NameArgument,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Categories: .txt, .csv, .json or .jsonl."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Images instead of categories, to search."),
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option(metavar="SET", help="A set's name, or own templates with {} (repeatable)."),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Of a large index: share of the best ten to find."),
    ] = None,
    memory_mb: Annotated[
        float | None, typer.Option(metavar="MB", help="Of a large index: most it may take.")
    ] = None,
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Build an index, or a new version of it, and put it in force.

    What was encoded before isn't encoded again: an interrupted build goes on.
    """
    from indexer import CategoryIndex, ImageIndex, PromptCache, read_categories
    from indexer.store import check_name
    from service.serving.core import DEFAULT_TEMPLATES, layout_options

    settings = read_settings(model=model, data=data)
    if (labels is None) == (images is None):
        raise ParameterError("say what to build from: --labels FILE or --images FOLDER")
    if images is not None and templates:
        raise ParameterError("images have no prompts: leave --templates out", param="templates")
    check_name(name)
    options = layout_options(recall, memory_mb)
    cache = PromptCache(settings.prompt_cache)
    categories = read_categories(labels) if labels is not None else []
    index: CategoryIndex | ImageIndex
    with Reporter() as reporter, loaded_model(settings, reporter) as encoder:
        if images is not None:
            index = ImageIndex.build(
                images,
                encoder,
                options=options,
                cache=cache,
                on_progress=reporter,
                on_skip=lambda skipped: note(f"skipped {skipped.path}: {skipped.reason}"),
            )
        else:
            index = CategoryIndex.build(
                categories,
                encoder,
                templates=_chosen_templates(templates) or DEFAULT_TEMPLATES,
                options=options,
                cache=cache,
                on_progress=reporter,
            )
            warn_of(index)
    version = open_store(settings).publish(name, index)
    _print_change(name, version, len(index), as_json=json)


@app.command("add")
def add(
    name: NameArgument,
    new: Annotated[list[str] | None, typer.Argument(metavar="LABEL", help="Labels.")] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file of categories besides.")
    ] = None,
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Add categories as a new version; only their prompts are encoded."""
    from indexer import read_categories

    listed: list[str | Category] = [*(new or [])]
    if labels is not None:
        listed += read_categories(labels)
    if not listed:
        raise ParameterError("say what to add: LABEL... or --labels FILE", param="labels")
    _change(name, listed, [], model=model, data=data, as_json=json)


@app.command("remove")
def remove(
    name: NameArgument,
    old: Annotated[list[str], typer.Argument(metavar="LABEL", help="Labels.")],
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Remove categories, as a new version."""
    _change(name, [], old, model=model, data=data, as_json=json)


@app.command("list")
def list_indexes(data: DataOption = None, json: JsonOption = False) -> None:
    """List the indexes."""
    infos = open_store(read_settings(data=data)).list()
    if json:
        print_json([_brief(info) for info in infos])
        return
    rows = [
        [i.name, str(i.version), f"{i.manifest.count:,}", i.manifest.model.id, i.manifest.created]
        for i in infos
    ]
    print_table(["NAME", "VERSION", "COUNT", "MODEL", "CREATED"], rows)


@app.command("show")
def show(
    name: NameArgument,
    version: Annotated[
        int | None, typer.Option(metavar="N", help="A kept version (default: in force).")
    ] = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show what an index was made of."""
    info = open_store(read_settings(data=data)).info(name, version)
    manifest = info.manifest.as_json()
    if json:
        print_json({**_brief(info), "manifest": manifest})
        return
    rows = [[key, _shown(value)] for key, value in {**_brief(info), **_details(manifest)}.items()]
    print_table(["FIELD", "VALUE"], rows)


@app.command("rollback")
def rollback(
    name: NameArgument,
    version: Annotated[
        int | None,
        typer.Option(metavar="N", help="The version to put back (default: the one before)."),
    ] = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Put a kept version back in force."""
    from service.serving.core import version_before

    store = open_store(read_settings(data=data))
    target = version if version is not None else version_before(store, name)
    store.rollback(name, target)
    _print_change(name, target, store.info(name).manifest.count, as_json=json)


@app.command("delete")
def delete(name: NameArgument, data: DataOption = None, json: JsonOption = False) -> None:
    """Delete an index with all its versions."""
    from service.serving.assignments import Assignments

    settings = read_settings(data=data)
    open_store(settings).delete(name)
    Assignments(settings.adapters).unassign(name)
    if json:
        print_json({"name": name, "deleted": True})
    else:
        print(f"deleted {name}")


def _change(
    name: str,
    new: Sequence[str | Category],
    old: Sequence[str],
    *,
    model: str | None,
    data: Path | None,
    as_json: bool,
) -> None:
    from indexer import PromptCache
    from service.serving.core import current_of_kind

    settings = read_settings(model=model, data=data)
    store = open_store(settings)
    base = current_of_kind(store, name, "categories")
    with Reporter() as reporter, loaded_model(settings, reporter) as encoder:
        index = store.load(name, base, fingerprint=encoder.fingerprint).changed(
            encoder,
            add=new,
            remove=old,
            cache=PromptCache(settings.prompt_cache),
            on_progress=reporter,
        )
    warn_of(index)
    version = store.publish(name, index, base=base)
    _print_change(name, version, len(index), as_json=as_json)


def _chosen_templates(given: list[str] | None) -> str | list[str] | None:
    """One word is a set's name; anything with {} is a template of the user's own."""
    if not given:
        return None
    return given[0] if len(given) == 1 and "{}" not in given[0] else given


def _brief(info: IndexInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "version": info.version,
        "versions": list(info.versions),
        "kind": info.manifest.kind,
        "count": info.manifest.count,
        "model": info.manifest.model.id,
        "created": info.manifest.created,
    }


def _details(manifest: dict[str, Any]) -> dict[str, Any]:
    details: dict[str, Any] = {"rows": manifest["rows"], "dim": manifest["dim"]}
    details["fingerprint"] = manifest["model"]["fingerprint"]
    for part in ("templates", "layout", "calibration"):
        for key, value in (manifest[part] or {}).items():
            details[f"{part}.{key}"] = value
    details["bytes"] = sum(record["bytes"] for record in manifest["files"].values())
    return details


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _print_change(name: str, version: int, count: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "version": version, "count": count})
    else:
        print(f"{name}: version {version} with {count:,} entries is in force")
