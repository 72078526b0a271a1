"""Exceptions become responses here, in one table, and in one shape.

    {"error": {"message": "...", "type": "...", "param": "... or null", "code": "..."}}

What a 500 says is always the same: the exception goes to the log, under the request's id.
"""

from __future__ import annotations

import http
import logging
from collections.abc import Mapping

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from indexer import errors as indexer_errors
from models import errors as models_errors
from models.errors import ClipdexError
from models.images import ImageError
from service import errors

log = logging.getLogger("clipdex")

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
# Errors of training/, by their code: importing them would import torch.
STATUS_OF_CODE: Mapping[str, int] = {
    "unknown_adapter": 404,
    "adapter_busy": 409,
    "fingerprint_mismatch": 409,
    "gate_refused": 409,
    "adapter_broken": 503,
}
INTERNAL = "something went wrong on our side; the log has the details under this request's id"


def status_of(error: ClipdexError) -> int:
    """The HTTP status of one of our own exceptions."""
    if error.code in STATUS_OF_CODE:
        return STATUS_OF_CODE[error.code]
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def error_object(error: ClipdexError) -> dict[str, str | None]:
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
    return JSONResponse({"error": error_object(error)}, status_of(error), headers)


def internal_response() -> JSONResponse:
    """The answer to everything unforeseen."""
    return JSONResponse({"error": _body(500, INTERNAL, code="internal_error")}, 500)


def register(app: FastAPI) -> None:
    """Let `app` answer every exception in our shape."""
    app.add_exception_handler(ClipdexError, _own)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)


def _body(
    status: int, message: str, *, code: str, param: str | None = None
) -> dict[str, str | None]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"message": message, "type": kind, "param": param, "code": code}


def _own(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ClipdexError)
    if status_of(error) == 500:
        log.error("request %s: %s", request.scope.get("request_id"), error, exc_info=error)
    return error_response(error)


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = error.status_code
    phrase = http.HTTPStatus(status).phrase
    message, code = error.detail, phrase.lower().replace(" ", "_")
    if status == 404:
        message = f"there is nothing at {request.url.path}; /docs lists what there is"
    elif status == 405:
        allowed = Headers(error.headers).get("allow", "another method")
        message = f"{request.url.path} doesn't take {request.method}; it takes {allowed}"
    return JSONResponse({"error": _body(status, message, code=code)}, status, error.headers)


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
    body = _body(status, message, param=param, code="invalid_request")
    return JSONResponse({"error": body}, status)
