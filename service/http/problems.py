"""Exceptions become responses here, in one table, and in one shape.

    {"error": {"message": "...", "type": "...", "param": "... or null", "code": "..."}}

What a 500 says is always the same: the exception goes to the log, under the request's id.
"""

from __future__ import annotations

import http
import logging
from collections.abc import Mapping
from typing import Literal

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from indexer import errors as indexer_errors
from models import errors as models_errors
from models.errors import ClipdexError
from models.images import ImageError
from service import errors
from training import errors as training_errors

log = logging.getLogger("clipdex")


class ErrorObject(BaseModel):
    """What went wrong, in words and as a code."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """Every answer that isn't a success."""

    error: ErrorObject


# The nearest ancestor in this table decides; a ClipdexError that isn't in it is our fault: 500.
STATUS: Mapping[type[ClipdexError], int] = {
    models_errors.UserError: 400,
    models_errors.UnknownModelError: 404,
    ImageError: 422,
    models_errors.ModelUnavailableError: 503,
    indexer_errors.UnknownIndexError: 404,
    indexer_errors.UnknownVersionError: 404,
    indexer_errors.ConflictError: 409,
    indexer_errors.WrongModelError: 409,
    indexer_errors.BrokenIndexError: 503,
    indexer_errors.StorageError: 507,
    training_errors.UnknownAdapterError: 404,
    training_errors.AdapterBusyError: 409,
    training_errors.FingerprintError: 409,
    training_errors.GateError: 409,
    training_errors.AdapterError: 503,
    errors.ParameterError: 422,
    errors.UnknownJobError: 404,
    errors.NoReportError: 404,
    errors.FolderError: 403,
    errors.CallbackError: 403,
    errors.AdapterInUseError: 409,
    errors.UnknownModelNameError: 404,
    errors.UnsupportedMediaError: 415,
    errors.BodyTooLargeError: 413,
    errors.UnavailableError: 503,
    errors.ClientGoneError: 499,
}
INTERNAL = "something went wrong on our side; the log has the details under this request's id"


def status_of(error: ClipdexError) -> int:
    """The HTTP status of one of our own exceptions."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def error_object(error: ClipdexError) -> ErrorObject:
    """What stands under "error"."""
    status = status_of(error)
    if status == 500:
        return _body(500, INTERNAL, code="internal_error")
    return _body(status, error.message, param=error.param, code=error.code)


def error_response(error: ClipdexError) -> JSONResponse:
    """One of our own exceptions as a response."""
    headers = {}
    if isinstance(error, errors.UnavailableError):
        headers["Retry-After"] = str(error.retry_after)
    return _response(status_of(error), error_object(error), headers)


def internal_response() -> JSONResponse:
    """The answer to everything unforeseen."""
    return _response(500, _body(500, INTERNAL, code="internal_error"))


def allowed_methods(request: Request) -> set[str]:
    """The methods that a path takes, of all its routes; Starlette names those of one route only."""
    path = request.url.path
    found = {"OPTIONS"}
    for template, operations in request.app.openapi()["paths"].items():
        if compile_path(template)[0].match(path):
            found |= {method.upper() for method in operations}
    return found


def register(app: FastAPI) -> None:
    """Let `app` answer every exception in our shape."""
    app.add_exception_handler(ClipdexError, _own)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)


def _body(status: int, message: str, *, code: str, param: str | None = None) -> ErrorObject:
    kind: Literal["invalid_request_error", "server_error"]
    kind = "invalid_request_error" if status < 500 else "server_error"
    return ErrorObject(message=message, type=kind, param=param, code=code)


def _response(
    status: int, error: ErrorObject, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse(ErrorAnswer(error=error).model_dump(), status, headers)


def _own(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ClipdexError)
    if status_of(error) == 500:
        log.error("request %s: %s", request.scope.get("request_id"), error, exc_info=error)
    return error_response(error)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    phrase = http.HTTPStatus(status).phrase
    message, code = error.detail, phrase.lower().replace(" ", "_")
    if status == 405:
        named = Headers(error.headers).get("allow", "").split(", ")
        methods = sorted({*allowed_methods(request), *filter(None, named)})
        headers = {"Allow": ", ".join(methods)}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
        message = f"{request.url.path} doesn't take {request.method}; it takes {headers['Allow']}"
        return _response(405, _body(405, message, code=code), headers)
    if status == 404:
        message = f"there is nothing at {request.url.path}; /docs lists what there is"
    return _response(status, _body(status, message, code=code), error.headers)


def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    param = ".".join(place) or None
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        message, param = f"the body isn't JSON: {first.get('ctx', {}).get('error', message)}", None
    elif first["type"] == "model_attributes_type":
        message = "the body must be a JSON object, sent as application/json"
    elif param:
        message = f"{param}: {message[:1].lower()}{message[1:]}"
    status = 400 if first["type"] == "json_invalid" else 422
    return _response(status, _body(status, message, param=param, code="invalid_request"))
