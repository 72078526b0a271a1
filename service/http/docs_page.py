"""The API's description as one page of HTML that loads nothing from anywhere.

The usual pages for OpenAPI fetch their scripts from a public host; this service has to explain
itself on a machine that reaches none. Whoever wants such a page feeds it /openapi.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
h2 { border-bottom: 1px solid #8886; margin-top: 2.5rem; text-transform: capitalize }
details { border: 1px solid #8886; border-radius: .4rem; margin: .5rem 0; padding: .4rem .8rem }
summary { cursor: pointer }
code, pre { font: 13px/1.4 ui-monospace, monospace }
.method { display: inline-block; font-weight: bold; width: 4.5rem }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #8884; padding: .2rem .8rem .2rem 0; text-align: left;
  vertical-align: top }
"""
Schema = Mapping[str, Any]


def docs_page(openapi: Schema) -> str:
    """The whole page.

    openapi: the app's description, as /openapi.json has it
    """
    info = openapi["info"]
    sections: dict[str, list[str]] = {}
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            section = sections.setdefault(operation.get("tags", ["other"])[0], [])
            section.append(_operation(path, method, operation, openapi))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(parts)}" for tag, parts in sections.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{escape(info.get('summary', ''))}</p>"
        '<p>For tools: <a href="/openapi.json">/openapi.json</a></p>'
        f"{body}</body></html>"
    )


def _operation(path: str, method: str, operation: Schema, openapi: Schema) -> str:
    parts = [f"<p>{escape(operation.get('description', ''))}</p>"]
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [
            (f"{item['name']} ({item['in']})", _kind(item["schema"]), _words(item))
            for item in parameters
        ]
        parts.append(_table("Parameters", rows))
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(_table(f"Body: {media}", list(_fields(content["schema"], openapi))))
    for status, response in operation.get("responses", {}).items():
        for media, content in response.get("content", {}).items():
            rows = list(_fields(content.get("schema", {}), openapi))
            title = f"Answer {status}: {media} {response.get('description', '')}"
            parts.append(_table(title, rows))
    return (
        f'<details id="{escape(operation["operationId"])}"><summary><code>'
        f'<span class="method">{method.upper()}</span>{escape(path)}</code> '
        f"{escape(operation.get('summary', ''))}</summary>{''.join(parts)}</details>"
    )


def _table(title: str, rows: list[tuple[str, str, str]]) -> str:
    head = f"<h4>{escape(title)}</h4>"
    if not rows:
        return head
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td><td>{escape(words)}</td></tr>"
        for name, kind, words in rows
    )
    return f"{head}<table>{cells}</table>"


def _fields(schema: Schema, openapi: Schema, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """One row for each property, those of objects inside included."""
    schema = _resolved(schema, openapi)
    for name, item in schema.get("properties", {}).items():
        place = prefix + name
        yield place, _kind(_resolved(item, openapi)), _words(item)
        inner = _resolved(item, openapi)
        if inner.get("type") == "array":
            inner, place = _resolved(inner.get("items", {}), openapi), f"{place}[]"
        if "properties" in inner:
            yield from _fields(inner, openapi, f"{place}.")


def _resolved(schema: Schema, openapi: Schema) -> Schema:
    """The schema behind a reference; of "this or null", this."""
    while True:
        options = [item for item in schema.get("anyOf", []) if item.get("type") != "null"]
        if "$ref" in schema:
            schema = openapi["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        elif len(options) == 1:
            schema = options[0]
        else:
            return schema


def _kind(schema: Schema) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(item) for item in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(str(item) for item in schema["enum"])
    kind = str(schema.get("type", schema.get("const", "object")))
    return f"list of {_kind(schema.get('items', {}))}" if kind == "array" else kind


def _words(item: Schema) -> str:
    default = item.get("default", item.get("schema", {}).get("default"))
    words = str(item.get("description", item.get("schema", {}).get("description", "")))
    return f"{words} (default {default})" if default not in (None, [], {}) else words
