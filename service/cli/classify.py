"""`clipdex classify`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from models.errors import ClipdexError
from service.cli.files import image_files, read_image
from service.cli.options import DataOption, JsonOption, ModelOption, load_model, open_store
from service.cli.terminal import Reporter, complain, print_json
from service.settings import Settings, read_settings

if TYPE_CHECKING:
    from indexer import CategoryIndex
    from models import Encoder
    from models.encoder import Vectors
    from service.classify_options import ClassifyOptions

_AT_ONCE = 16


def classify(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Images, or folders of images.")
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
    model: ModelOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Say what images show: one line an image, or one JSON object a line.

    An image that can't be read gets a line on stderr; the others go on, and the exit code is 2.
    """
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
    files = image_files(paths)
    failed = 0
    with Reporter() as reporter:
        encoder = load_model(settings, reporter)
        categories = _categories(settings, options, encoder, reporter)
        for result in _results(files, categories, options, encoder, reporter, settings.max_pixels):
            failed += "error" in result
            _print(result, as_json=json)
    return 2 if failed else 0


def _categories(
    settings: Settings, options: ClassifyOptions, encoder: Encoder, reporter: Reporter
) -> CategoryIndex:
    from indexer import CategoryIndex
    from service.default_index import DEFAULT, default_categories, default_is_due
    from service.index_versions import current_of_kind

    if options.labels is not None:
        if options.templates is None:
            return CategoryIndex.build(options.labels, encoder, on_progress=reporter)
        return CategoryIndex.build(
            options.labels, encoder, templates=options.templates, on_progress=reporter
        )
    store = open_store(settings)
    if settings.index == DEFAULT and default_is_due(store, encoder.fingerprint):
        index = CategoryIndex.build(default_categories(store), encoder, on_progress=reporter)
        store.publish(DEFAULT, index)
        return index
    version = current_of_kind(store, settings.index, "categories")
    return store.load(settings.index, version, fingerprint=encoder.fingerprint)


def _results(
    files: Sequence[Path],
    categories: CategoryIndex,
    options: ClassifyOptions,
    encoder: Encoder,
    reporter: Reporter,
    max_pixels: int,
) -> Iterator[dict[str, Any]]:
    import numpy as np

    from indexer import Progress
    from models.images import decode_image
    from models.machine import cpu_count
    from service.answers import answer_json

    def prepare(path: Path) -> Vectors | ClipdexError:
        try:
            image = decode_image(read_image(path), max_pixels=max_pixels, target=encoder.image_size)
            return encoder.preprocess(image)
        except ClipdexError as error:
            return error

    with ThreadPoolExecutor(cpu_count()) as threads:
        for start in range(0, len(files), _AT_ONCE):
            part = files[start : start + _AT_ONCE]
            prepared = list(threads.map(prepare, part))
            pixels = [item for item in prepared if not isinstance(item, ClipdexError)]
            answers = iter(
                categories.answer(
                    encoder.encode_pixels(np.stack(pixels)), options.top_k, options.policy()
                )
                if pixels
                else []
            )
            for path, item in zip(part, prepared, strict=True):
                if isinstance(item, ClipdexError):
                    yield {"file": str(path), "error": item.message}
                else:
                    yield {"file": str(path), **answer_json(next(answers))}
            reporter(Progress("classifying", start + len(part), len(files)))


def _print(result: dict[str, Any], *, as_json: bool) -> None:
    if "error" in result:
        complain(f"{result['file']}: {result['error']}")
    if as_json:
        print_json(result)
    elif "error" not in result:
        matches = [f"{match['label']} {match['probability']:.1%}" for match in result["matches"]]
        unknown = ["unknown;"] if result["unknown"] else []
        print(f"{result['file']}: {' '.join([*unknown, ', '.join(matches)])}")
