"""`POST /v1/classify`: which categories do these images show."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request

from indexer import CategoryIndex
from indexer.ranking.answer import Answer
from models.encoder import Vectors
from models.errors import ClipdexError
from service.http.bodies import read_images
from service.http.problems import error_object
from service.http.schemas import CLASSIFY_BODY, ClassifyAnswer, ImageResult
from service.http.services import Services, ServicesDep, cancelled_with_client
from service.serving.assignments import check_precision
from service.serving.core import DEFAULT_TEMPLATES
from service.serving.current_adapters import Current
from service.serving.options import ClassifyOptions, read_options

router = APIRouter(tags=["classify"])
# Searching fewer vectors than this is quicker than handing the search to a thread.
_QUICK = 5_000
_ADHOC_KEPT = 64


@router.post(
    "/v1/classify",
    summary="Classify one or more images",
    response_model_exclude_unset=True,
    openapi_extra={"requestBody": CLASSIFY_BODY},
)
async def classify(request: Request, services: ServicesDep) -> ClassifyAnswer:
    """Compare images with an index's categories, or with labels of your own.

    Parameters stand in the URL, in the form, or in the JSON body. Of several images, one that
    can't be read gets an `error` in its place; if it is the only one, the request fails.
    """
    settings, url = services.settings, request.query_params
    index = url.get("index") or settings.index
    services.adapters.engine_for(index, url.get("adapter")).check_room()

    asked = await read_images(request, max_images=settings.max_images)
    options = read_options(asked.fields, max_labels=settings.max_labels)

    async with cancelled_with_client(request):
        current = await _current(services, options)
        with current.shared.used() as engine:
            outcomes = await engine.embed_images([image.data for image in asked.images])
        if len(outcomes) == 1 and isinstance(outcomes[0], ClipdexError):
            raise outcomes[0]
        vectors = [outcome for outcome in outcomes if not isinstance(outcome, ClipdexError)]
        answers = iter(await _rank(services, current, vectors, options))

    results = []
    for image, outcome in zip(asked.images, outcomes, strict=True):
        name: dict[str, Any] = {} if image.name is None else {"file": image.name}
        if isinstance(outcome, ClipdexError):
            results.append(ImageResult(**name, matches=[], error=error_object(outcome)))
        else:
            results.append(ImageResult.of(next(answers), **name))
    answer = ClassifyAnswer.model_construct(
        model=services.engine.encoder.model_id,
        index=current.classifier.name,
        index_version=current.classifier.version,
        adapter=None if current.adapter is None else str(current.adapter),
        results=results,
    )
    if current.classifier.index.warnings:
        answer.warnings = list(current.classifier.index.warnings)
    return answer


async def _current(services: Services, options: ClassifyOptions) -> Current:
    """The index, adapter and model that answer; an index of the request's own labels."""
    if options.labels is None:
        index = options.index or services.settings.index
        current = await services.adapters.get(index, options.adapter)
        check_precision(options.precision, current.adapter)
        return current
    labels = options.labels
    templates = options.templates if options.templates is not None else DEFAULT_TEMPLATES
    encoder = services.engine.shared_encoder(cached=True)

    def build() -> CategoryIndex:
        return CategoryIndex.build(labels, encoder, templates=templates)

    key = (tuple(labels), templates if isinstance(templates, str) else tuple(templates))
    return services.adapters.plain(await services.indexes.adhoc(key, build, keep=_ADHOC_KEPT))


async def _rank(
    services: Services, current: Current, vectors: list[Vectors], options: ClassifyOptions
) -> list[Answer]:
    """One answer a vector; on a thread where that takes longer than going there."""
    if not vectors:
        return []
    queries, policy = np.stack(vectors), options.policy()
    if len(current.classifier) <= _QUICK:
        return current.classifier.answer(queries, options.top_k, policy)
    return await services.engine.run(
        lambda: current.classifier.answer(queries, options.top_k, policy)
    )
