from __future__ import annotations

import html
import re

from service.http.docs_page import docs_page


def test_the_landing_page_suits_who_asks(server):
    as_json = server.client.get("/").json()
    assert as_json["links"]["docs"] == "/docs"
    as_html = server.client.get("/", headers={"accept": "text/html,*/*"})
    assert as_html.headers["content-type"].startswith("text/html")
    assert '<a href="/docs">' in as_html.text


def test_the_docs_show_every_path_and_load_nothing_from_elsewhere(server):
    page = server.client.get("/docs").text
    description = server.client.get("/openapi.json").json()
    for path, methods in description["paths"].items():
        assert path in page
        for operation in methods.values():
            assert html.escape(operation["summary"]) in page
    assert re.findall(r'(?:src|href)="(?!/openapi\.json)[^"]*"', page) == []
    assert "<script" not in page


def test_text_in_the_docs_is_escaped():
    page = docs_page(
        {
            "info": {"title": "<b>", "version": "1"},
            "paths": {"/x": {"get": {"operationId": "x", "summary": "<i>", "responses": {}}}},
        }
    )
    assert "<b>" not in page
    assert "&lt;i&gt;" in page


def test_metrics_count_by_route(server):
    server.client.get("/v1/indexes/colours")
    text = server.client.get("/metrics").text
    assert 'path="/v1/indexes/{name}",status="200"' in text
    assert "clipdex_batch_images_bucket" in text
