"""`clipdex search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.options import (
    DataOption,
    JsonOption,
    ModelOption,
    existing_file,
    loaded_model,
    open_store,
    read_image,
)
from service.cli.terminal import Reporter, print_json, print_table
from service.errors import ParameterError
from service.settings import read_settings

if TYPE_CHECKING:
    from models import Encoder
    from models.encoder import Vectors


def search(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An index of images.")],
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help='Words ("a red car"), or the path of an image.')
    ],
    top_k: Annotated[int, typer.Option(metavar="N", help="Images to show.")] = 10,
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Find the images of an index that look like words or like another image.

    Paths are relative to the folder that was indexed.
    """
    from models.images import SUFFIXES
    from service.serving.core import current_of_kind

    settings = read_settings(model=model, data=data)
    path = existing_file(query, SUFFIXES, param="query")
    store = open_store(settings)
    version = current_of_kind(store, name, "images")
    with Reporter() as reporter, loaded_model(settings, reporter) as encoder:
        index = store.load_images(name, version, fingerprint=encoder.fingerprint)
        vector = _vector(query, path, encoder, settings.max_pixels)
    matches = index.search(vector, top_k)[0]
    if json:
        print_json(
            {
                "index": name,
                "index_version": version,
                "folder": str(index.folder),
                "matches": [vars(match) for match in matches],
            }
        )
    else:
        rows = [[str(match.rank), f"{match.score:.3f}", match.path] for match in matches]
        print_table(["RANK", "SCORE", "PATH"], rows)


def _vector(query: str, path: Path | None, encoder: Encoder, max_pixels: int) -> Vectors:
    """float32 [1, D] of the image in the file `path`, or of the query's words if it is None."""
    from models.images import decode_image

    if path is not None:
        image = decode_image(read_image(path), max_pixels=max_pixels, target=encoder.image_size)
        return encoder.encode_images([image])
    if not query.strip():
        raise ParameterError("the query is empty; give words or the path of an image")
    tokens = encoder.count_tokens([query])[0]
    if tokens > encoder.context_length:
        raise ParameterError(
            f"the query has {tokens} tokens; {encoder.model_id} reads at most "
            f"{encoder.context_length}: shorten it"
        )
    return encoder.encode_texts([query])
