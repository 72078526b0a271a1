"""`clipdex models ...`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.cli.options import JsonOption, loaded_model
from service.cli.terminal import Reporter, print_json, print_table
from service.settings import read_settings

app = typer.Typer(help="See and fetch models.", no_args_is_help=True, rich_markup_mode=None)
# A model is shown as it runs here by default, whatever the settings choose for the current one.
_AS_IT_COMES = {"backend": "auto", "device": "auto", "precision": "auto"}
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Model id.")]


@app.command("list")
def list_models(
    match: Annotated[
        str | None, typer.Argument(metavar="WORD", help="Only ids that contain this.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the model ids that are known by name.

    Besides these, hf-hub:ORGANISATION/NAME and local-dir:FOLDER name any other open_clip model.
    """
    from models.sources.names import EMBEDDED_FOLDERS
    from models.sources.tags import list_tagged

    word = (match or "").lower()
    ids = [model_id for model_id in [*EMBEDDED_FOLDERS, *list_tagged()] if word in model_id.lower()]
    if json:
        print_json(ids)
    else:
        for model_id in ids:
            print(model_id)


@app.command("show")
def show(model_id: IdArgument, json: JsonOption = False) -> None:
    """Show a model's towers, preprocessing and files; fetches what isn't here."""
    _print_facts(_facts(model_id, refresh=False), as_json=json)


@app.command("pull")
def pull(model_id: IdArgument, json: JsonOption = False) -> None:
    """Fetch a model's files, so that it loads without the internet from then on."""
    _print_facts(_facts(model_id, refresh=True), as_json=json)


def _facts(model_id: str, *, refresh: bool) -> dict[str, Any]:
    from indexer import Progress
    from models.sources.cache import Cache
    from models.sources.names import resolve

    settings = read_settings()

    with Reporter() as reporter:

        def fetched(name: str, done: int, total: int | None) -> None:
            reporter(Progress(f"fetching {name}", done, total or done))

        source = resolve(
            model_id, cache=Cache(settings.cache), refresh=refresh, on_progress=fetched
        )
        # Loading proves that nothing is missing, a tokenizer's files included.
        settings = settings.model_copy(update={"model": model_id, **_AS_IT_COMES})
        with loaded_model(settings, reporter) as encoder:
            return {
                "id": model_id,
                "weights": str(source.weights),
                "bytes": source.weights.stat().st_size,
                "dim": encoder.dim,
                "image_size": list(encoder.image_size),
                "context_length": encoder.context_length,
                "logit_scale": encoder.logit_scale,
                "logit_bias": encoder.logit_bias,
                "backend": encoder.backend,
                "device": encoder.device,
                "precision": encoder.precision,
                "fingerprint": encoder.fingerprint,
                "preprocessing": source.preprocess.as_dict(),
            }


def _print_facts(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        print_table(["FIELD", "VALUE"], [[key, str(value)] for key, value in facts.items()])
