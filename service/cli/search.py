"""`clipdex search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.options import (
    DataOption,
    JsonOption,
    ModelOption,
    load_model,
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
    from service.serving.core import current_of_kind

    settings = read_settings(model=model, data=data)
    store = open_store(settings)
    version = current_of_kind(store, name, "images")
    with Reporter() as reporter:
        encoder = load_model(settings, reporter)
        index = store.load_images(name, version, fingerprint=encoder.fingerprint)
        vector = _vector(query, encoder, settings.max_pixels)
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


def _vector(query: str, encoder: Encoder, max_pixels: int) -> Vectors:
    """float32 [1, D]. Whatever is a file is an image."""
    from models.images import decode_image

    try:
        is_file = Path(query).is_file()
    except OSError:  # words too long for a name
        is_file = False
    if is_file:
        image = decode_image(
            read_image(Path(query)), max_pixels=max_pixels, target=encoder.image_size
        )
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
