"""Every JSON answer must be what the served /openapi.json says of it, and no more."""

from __future__ import annotations

import functools
import json
from typing import Any

import httpx
from jsonschema import Draft202012Validator
from starlette.routing import compile_path


class Contract:
    """The description that a server gives of itself.

    openapi: the content of /openapi.json
    """

    def __init__(self, openapi: dict[str, Any]) -> None:
        self.paths = openapi["paths"]
        # Pydantic's schemas allow further keys. An answer with a key that no model names has
        # drifted from its schema all the same.
        self.components = {"schemas": _closed(openapi["components"]["schemas"])}

    def check(self, response: httpx.Response) -> None:
        """Fails unless the answer fits its schema."""
        if response.headers.get("content-type") != "application/json":
            return
        response.read()
        method, path = response.request.method.lower(), response.request.url.path
        for template, operations in self.paths.items():
            if compile_path(template)[0].match(path) and method in operations:
                responses = operations[method]["responses"]
                status = str(response.status_code)
                self._check(responses.get(status) or responses["default"], response.json())
                return
        if response.status_code >= 400:  # no such path, or not this method
            self._check({"$ref": "ErrorAnswer"}, response.json())

    def _check(self, described: dict[str, Any], answer: Any) -> None:
        if "$ref" in described:
            schema = {"$ref": f"#/components/schemas/{described['$ref']}"}
        elif "application/json" in described.get("content", {}):
            schema = described["content"]["application/json"]["schema"]
        else:
            return
        errors = list(
            Draft202012Validator({**schema, "components": self.components}).iter_errors(answer)
        )
        assert not errors, f"{errors[0].json_path}: {errors[0].message}"


@functools.cache
def contract_of(url: str) -> Contract:
    """The contract of the server at an address."""
    return _parsed(httpx.get(f"{url}/openapi.json", trust_env=False, timeout=30).text)


@functools.cache
def _parsed(text: str) -> Contract:
    return Contract(json.loads(text))


def _closed(schema: Any) -> Any:
    """The schema with no further keys allowed in objects that name their own."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(item) for key, item in schema.items()}
    if "properties" in schema and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
