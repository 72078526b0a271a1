"""`POST /v1/embeddings`: vectors of texts and images, as OpenAI's clients ask for them."""

from __future__ import annotations

import base64

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request

from models.encoder import Vectors
from models.errors import ClipdexError
from service.errors import ParameterError, UnknownModelNameError
from service.http.bodies import decode_base64_image
from service.http.schemas import EmbeddingAnswer, EmbeddingsAnswer, EmbeddingsBody, UsageAnswer
from service.http.services import Services, ServicesDep, cancelled_with_client

router = APIRouter(tags=["embeddings"])


@router.post("/v1/embeddings", summary="Embed texts or images")
async def embed(body: EmbeddingsBody, request: Request, services: ServicesDep) -> EmbeddingsAnswer:
    """Unit vectors in the order of `input`; `modality` says whether it holds texts or images.

    One image that can't be read fails the whole request: OpenAI's answer has no place for it.
    """
    encoder = services.engine.encoder
    if body.model not in (None, encoder.model_id):
        raise UnknownModelNameError(
            f"this server serves {encoder.model_id}, not {body.model!r}", param="model"
        )
    if body.dimensions not in (None, encoder.dim):
        raise ParameterError(
            f"the vectors of {encoder.model_id} have {encoder.dim} dimensions", param="dimensions"
        )
    inputs = [body.input] if isinstance(body.input, str) else body.input
    if not inputs:
        raise ParameterError("input is empty", param="input")
    async with cancelled_with_client(request):
        if body.modality == "image":
            vectors, tokens = await _embed_images(services, inputs), 0
        else:
            vectors, tokens = await services.engine.embed_texts(inputs, param="input")
    return EmbeddingsAnswer.model_construct(
        object="list",
        model=encoder.model_id,
        data=[
            EmbeddingAnswer.model_construct(
                object="embedding", index=at, embedding=_packed(vector, body)
            )
            for at, vector in enumerate(vectors)
        ],
        usage=UsageAnswer(prompt_tokens=tokens, total_tokens=tokens),
    )


async def _embed_images(services: Services, inputs: list[str]) -> Vectors:
    most = services.settings.max_images
    if len(inputs) > most:
        raise ParameterError(f"{len(inputs)} images; the most is {most}", param="input")
    blobs = [decode_base64_image(text, param=f"input[{at}]") for at, text in enumerate(inputs)]
    outcomes = await services.engine.embed_images(blobs)
    for at, outcome in enumerate(outcomes):
        if isinstance(outcome, ClipdexError):
            outcome.param = outcome.param or f"input[{at}]"
            raise outcome
    return np.stack([outcome for outcome in outcomes if not isinstance(outcome, ClipdexError)])


def _packed(vector: Vectors, body: EmbeddingsBody) -> str | list[float]:
    if body.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    floats: list[float] = vector.tolist()
    return floats
