from __future__ import annotations

import re


def test_the_landing_page_suits_who_asks(server):
    as_json = server.client.get("/").json()
    assert as_json["links"]["docs"] == "/docs"
    as_html = server.client.get("/", headers={"accept": "text/html,*/*"})
    assert as_html.headers["content-type"].startswith("text/html")
    assert '<a href="/docs">' in as_html.text
    assert f"{server.url}/v1/classify" in as_html.text


def test_the_docs_load_from_this_server_and_nowhere_else(server):
    page = server.client.get("/docs")
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    loaded = [address for address in loaded if address != "data:,"]
    assert len(loaded) == 4
    for address in loaded:
        assert re.match(r"/[a-z]", address), address
        answer = server.client.get(address)
        assert answer.status_code == 200, address
        assert len(answer.content) > 100
    assert 'data-openapi="/openapi.json"' in page.text
    # No script stands in the page itself, and the policy allows none.
    assert re.findall(r"<script(?! src=)", page.text) == []
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "http" not in policy


def test_what_pages_show_is_escaped(server):
    host = {"accept": "text/html", "host": 'x"><script>'}
    assert "<script>" not in server.client.get("/", headers=host).text


def test_metrics_count_by_route(server):
    server.client.get("/v1/indexes/colours")
    text = server.client.get("/metrics").text
    assert 'path="/v1/indexes/{name}",status="200"' in text
    assert "clipdex_batch_images_bucket" in text
