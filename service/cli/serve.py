"""`clipdex serve`."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from service.cli.options import DataOption, JsonOption, ModelOption, open_store
from service.cli.terminal import note, print_json
from service.settings import read_settings


def serve(
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on (CLIPDEX_HOST).")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", help="Port; 0 takes a free one (CLIPDEX_PORT)."),
    ] = None,
    model: ModelOption = None,
    index: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Index that answers by default (CLIPDEX_INDEX)."),
    ] = None,
    data: DataOption = None,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="auto, torch or openvino (CLIPDEX_BACKEND).")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="auto, fp32, bf16, fp16 or int8 (CLIPDEX_PRECISION)."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Serve over HTTP until interrupted.

    Prints the address on stdout once requests are answered. The index "default" is built from
    about 300 everyday things if there is none.
    """
    settings = read_settings(
        host=host,
        port=port,
        model=model,
        index=index,
        data=data,
        backend=backend,
        precision=precision,
    )
    from service.serving.core import DEFAULT

    if settings.index != DEFAULT:
        open_store(settings).current_version(settings.index)  # or one clear line at once
    from service.http.app import create_app
    from service.http.server import address_of, open_socket
    from service.http.server import serve as serve_app
    from service.http.services import Readiness

    settings.data.mkdir(parents=True, exist_ok=True)
    listener = open_socket(settings.host, settings.port)
    url = address_of(listener)
    logging.getLogger("clipdex").setLevel(logging.INFO)

    def tell(readiness: Readiness) -> None:
        if not readiness.ready:
            note(f"{url} not ready: {readiness.reason}")
        elif json:
            print_json({"url": url, "model": settings.model, "index": settings.index})
        else:
            print(f"Serving {settings.model} at {url} (API: {url}/docs)")
        sys.stdout.flush()  # whoever reads it through a pipe waits for this line

    serve_app(create_app(settings), listener, on_change=tell)
