"""`POST /v1/search`: images of an index that look like these words, or like another image."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request

from indexer import ImageMatch
from models.encoder import Vectors
from models.errors import ClipdexError
from service.errors import ParameterError
from service.http.bodies import read_images
from service.http.problems import error_object
from service.http.schemas import (
    SEARCH_BODY,
    ImageMatchAnswer,
    QueryAnswer,
    SearchAnswer,
    SearchOptions,
)
from service.http.services import ServicesDep, cancelled_with_client
from service.serving.options import parameter_error

router = APIRouter(tags=["search"])


@router.post(
    "/v1/search",
    summary="Search an index of images",
    response_model_exclude_unset=True,
    openapi_extra={"requestBody": SEARCH_BODY},
)
async def search(request: Request, services: ServicesDep) -> SearchAnswer:
    """The images of an index nearest to a text or to another image, nearest first.

    Images to search by come as in `POST /v1/classify`, texts as JSON. One result a query.
    """
    engine = services.engine
    engine.check_room()
    asked = await read_images(request, max_images=services.settings.max_images, needed=False)
    try:
        options = SearchOptions.model_validate(asked.fields)
    except ValidationError as error:
        raise parameter_error(error, SearchOptions) from error
    texts = [options.text] if isinstance(options.text, str) else options.text or []
    if bool(texts) == bool(asked.images):
        raise ParameterError("give either texts or images to search by", param="text")

    names: list[dict[str, Any]]
    queries: list[Vectors | ClipdexError]
    async with cancelled_with_client(request):
        loaded = await services.indexes.images(options.index)
        if texts:
            names = [{"text": text} for text in texts]
            queries = list((await engine.embed_texts(texts, param="text"))[0])
        else:
            names = [{} if image.name is None else {"file": image.name} for image in asked.images]
            queries = await engine.embed_images([image.data for image in asked.images])
            if len(queries) == 1 and isinstance(queries[0], ClipdexError):
                raise queries[0]
        vectors = [query for query in queries if not isinstance(query, ClipdexError)]
        found: list[list[ImageMatch]] = []
        if vectors:
            stacked = np.stack(vectors)
            found = await engine.run(lambda: loaded.index.search(stacked, options.top_k))

    answers = iter(found)
    results = []
    for name, query in zip(names, queries, strict=True):
        if isinstance(query, ClipdexError):
            results.append(QueryAnswer(**name, matches=[], error=error_object(query)))
        else:
            matches = [ImageMatchAnswer.of(match) for match in next(answers)]
            results.append(QueryAnswer(**name, matches=matches))
    return SearchAnswer.model_construct(
        model=engine.encoder.model_id,
        index=loaded.name,
        index_version=loaded.version,
        results=results,
    )
