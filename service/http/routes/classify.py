"""`POST /v1/classify`: which categories do these images show."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from indexer import CategoryIndex
from indexer.ranking.answer import Answer
from models.encoder import Vectors
from models.errors import ClipdexError
from service.http.bodies import Upload, read_images
from service.http.classify_options import ClassifyOptions, read_options
from service.http.problems import error_object
from service.http.schemas import CLASSIFY_BODY, ClassifyAnswer
from service.http.services import Services, ServicesDep, until_gone
from service.serving.answering import Answering, answer_json
from service.serving.assignments import check_precision
from service.serving.indexes import DEFAULT_TEMPLATES

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
    answering = await _answering(services, options)
    with answering.slot.used():
        engine = answering.slot.engine
        outcomes = await engine.embed_images([image.data for image in images])
    if len(outcomes) == 1 and isinstance(outcomes[0], ClipdexError):
        raise outcomes[0]
    vectors = [outcome for outcome in outcomes if not isinstance(outcome, ClipdexError)]
    answers = iter(await _answer(services, answering, vectors, options))
    results: list[dict[str, Any]] = []
    for image, outcome in zip(images, outcomes, strict=True):
        name = {} if image.name is None else {"file": image.name}
        if isinstance(outcome, ClipdexError):
            results.append({**name, "matches": [], "error": error_object(outcome)})
        else:
            results.append({**name, **answer_json(next(answers))})
    return {
        "model": services.engine.encoder.model_id,
        "index": answering.served.name,
        "index_version": answering.served.version,
        "adapter": None if answering.adapter is None else str(answering.adapter),
        "results": results,
    }


async def _answer(
    services: Services,
    answering: Answering,
    vectors: list[Vectors],
    options: ClassifyOptions,
) -> list[Answer]:
    if not vectors:
        return []
    queries = np.stack(vectors)

    def answer() -> list[Answer]:
        return answering.answer(queries, options.top_k, options.policy())

    return answer() if len(answering) <= _QUICK else await services.engine.run(answer)


async def _answering(services: Services, options: ClassifyOptions) -> Answering:
    if options.labels is None:
        index = options.index or services.settings.index
        answering = await services.live.get(index, options.adapter)
        check_precision(options.precision, answering.adapter)
        return answering
    labels = options.labels
    templates = options.templates if options.templates is not None else DEFAULT_TEMPLATES
    encoder = services.engine.shared_encoder(cached=True)

    def build() -> CategoryIndex:
        return CategoryIndex.build(labels, encoder, templates=templates)

    key = (tuple(labels), templates if isinstance(templates, str) else tuple(templates))
    return services.live.plain(await services.catalog.adhoc(key, build, keep=_ADHOC_KEPT))
