"""`POST /v1/classify`: which categories do these images show."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from indexer import CategoryIndex
from indexer.answer import Answer
from models.encoder import Vectors
from models.errors import ClipdexError
from service.answers import answer_json
from service.catalog import Served
from service.classify_options import ClassifyOptions, read_options
from service.default_index import DEFAULT_TEMPLATES
from service.deps import ServicesDep, until_gone
from service.problems import error_object
from service.schemas import CLASSIFY_BODY, ClassifyAnswer
from service.services import Services
from service.uploads import Upload, read_images

router = APIRouter(tags=["classify"])
# Searching fewer vectors than this is quicker than handing the search to a thread.
_QUICK = 5_000
_ADHOC_KEPT = 64


@router.post(
    "/v1/classify",
    summary="Classify one or more images",
    response_model=ClassifyAnswer,
    openapi_extra={"requestBody": CLASSIFY_BODY},
)
async def classify(request: Request, services: ServicesDep) -> JSONResponse:
    """Compare images with an index's categories, or with labels of your own.

    Parameters stand in the URL, in the form, or in the JSON body. Of several images, one that
    can't be read gets an `error` in its place; if it is the only one, the request fails.
    """
    services.engine.check_room()
    asked = await read_images(request, max_images=services.settings.max_images)
    options = read_options(asked.fields, max_labels=services.settings.max_labels)
    body = await until_gone(request, _classify(services, asked.images, options))
    return JSONResponse(body)


async def _classify(
    services: Services, images: tuple[Upload, ...], options: ClassifyOptions
) -> dict[str, Any]:
    served = await _served(services, options)
    outcomes = await services.engine.embed_images([image.data for image in images])
    if len(outcomes) == 1 and isinstance(outcomes[0], ClipdexError):
        raise outcomes[0]
    vectors = [outcome for outcome in outcomes if not isinstance(outcome, ClipdexError)]
    answers = iter(await _answer(services, served, vectors, options))
    results: list[dict[str, Any]] = []
    for image, outcome in zip(images, outcomes, strict=True):
        name = {} if image.name is None else {"file": image.name}
        if isinstance(outcome, ClipdexError):
            results.append({**name, "matches": [], "error": error_object(outcome)})
        else:
            results.append({**name, **answer_json(next(answers))})
    return {
        "model": services.engine.encoder.model_id,
        "index": served.name,
        "index_version": served.version,
        "results": results,
    }


async def _answer(
    services: Services,
    served: Served[CategoryIndex],
    vectors: list[Vectors],
    options: ClassifyOptions,
) -> list[Answer]:
    if not vectors:
        return []
    queries = np.stack(vectors)

    def answer() -> list[Answer]:
        return served.index.answer(queries, options.top_k, options.policy())

    return answer() if len(served.index) <= _QUICK else await services.engine.run(answer)


async def _served(services: Services, options: ClassifyOptions) -> Served[CategoryIndex]:
    if options.labels is None:
        return await services.catalog.categories(options.index or services.settings.index)
    labels = options.labels
    templates = options.templates if options.templates is not None else DEFAULT_TEMPLATES
    encoder = services.engine.shared_encoder(cached=True)

    def build() -> CategoryIndex:
        return CategoryIndex.build(labels, encoder, templates=templates)

    key = (tuple(labels), templates if isinstance(templates, str) else tuple(templates))
    return await services.catalog.adhoc(key, build, keep=_ADHOC_KEPT)
