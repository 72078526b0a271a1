"""`POST /v1/search`: images of an index that look like these words, or like another image."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

from indexer import ImageMatch
from models.encoder import Vectors
from models.errors import ClipdexError
from service.errors import ParameterError
from service.http.bodies import ImageRequest, read_images
from service.http.classify_options import parameter_error
from service.http.problems import error_object
from service.http.schemas import SEARCH_BODY, SearchAnswer, SearchOptions
from service.http.services import Services, ServicesDep, until_gone

router = APIRouter(tags=["search"])


@router.post(
    "/v1/search",
    summary="Search an index of images",
    response_model=SearchAnswer,
    openapi_extra={"requestBody": SEARCH_BODY},
)
async def search(request: Request, services: ServicesDep) -> JSONResponse:
    """The images of an index nearest to a text or to another image, nearest first.

    Images to search by come as in `POST /v1/classify`, texts as JSON. One result a query.
    """
    services.engine.check_room()
    asked = await read_images(request, max_images=services.settings.max_images, needed=False)
    try:
        options = SearchOptions.model_validate(asked.fields)
    except ValidationError as error:
        raise parameter_error(error, SearchOptions) from error
    return JSONResponse(await until_gone(request, _search(services, asked, options)))


async def _search(
    services: Services, asked: ImageRequest, options: SearchOptions
) -> dict[str, Any]:
    texts = [options.text] if isinstance(options.text, str) else options.text or []
    if bool(texts) == bool(asked.images):
        raise ParameterError("give either texts or images to search by", param="text")
    served = await services.catalog.images(options.index)
    queries: list[Vectors | ClipdexError]
    if texts:
        names: list[dict[str, Any]] = [{"text": text} for text in texts]
        queries = list((await services.engine.embed_texts(texts, param="text"))[0])
    else:
        names = [{} if image.name is None else {"file": image.name} for image in asked.images]
        queries = await services.engine.embed_images([image.data for image in asked.images])
        if len(queries) == 1 and isinstance(queries[0], ClipdexError):
            raise queries[0]
    vectors = [query for query in queries if not isinstance(query, ClipdexError)]
    found: list[list[ImageMatch]] = []
    if vectors:
        stacked = np.stack(vectors)
        found = await services.engine.run(lambda: served.index.search(stacked, options.top_k))
    answers = iter(found)
    results = [
        {**name, "matches": [], "error": error_object(query)}
        if isinstance(query, ClipdexError)
        else {**name, "matches": [_match_json(match) for match in next(answers)]}
        for name, query in zip(names, queries, strict=True)
    ]
    return {
        "model": services.engine.encoder.model_id,
        "index": served.name,
        "index_version": served.version,
        "results": results,
    }


def _match_json(match: ImageMatch) -> dict[str, Any]:
    return {
        "path": match.path,
        "score": match.score,
        "rank": match.rank,
        "width": match.width,
        "height": match.height,
    }
