"""`POST /v1/search`."""

from __future__ import annotations

import base64

import pytest

from tests.service.fakes import picture
from tests.service.servers import problem

URL = "/v1/search"


def paths(response) -> list[list[str]]:
    assert response.status_code == 200, response.text
    return [[match["path"] for match in result["matches"]] for result in response.json()["results"]]


def test_by_words(server):
    body = {"index": "photos", "text": ["something blue", "red"], "top_k": 1}
    response = server.client.post(URL, json=body)
    assert paths(response) == [["blue.png"], ["red.png"]]
    answer = response.json()
    assert (answer["model"], answer["index"], answer["index_version"]) == ("colours", "photos", 1)
    first = answer["results"][0]
    assert first["text"] == "something blue"
    assert list(first["matches"][0]) == ["path", "score", "rank", "width", "height"]
    assert (first["matches"][0]["width"], first["matches"][0]["rank"]) == (12, 1)


def test_by_an_image_in_every_form(server):
    client, image = server.client, picture("green")
    text = base64.b64encode(image).decode()
    assert paths(client.post(f"{URL}?index=photos&top_k=1", content=image)) == [["green.png"]]
    fields = {"index": "photos", "top_k": "1"}
    assert paths(client.post(URL, files={"files": image}, data=fields)) == [["green.png"]]
    body = {"index": "photos", "images": [text, text], "top_k": 1}
    assert paths(client.post(URL, json=body)) == [["green.png"], ["green.png"]]


def test_words_may_stand_in_the_url_or_a_form(server):
    assert paths(server.client.post(f"{URL}?index=photos&text=red&top_k=1")) == [["red.png"]]
    form = {"index": (None, "photos"), "text": (None, "red"), "top_k": (None, "1")}
    assert paths(server.client.post(URL, files=form)) == [["red.png"]]


def test_all_images_come_in_order_of_their_scores(server):
    response = server.client.post(URL, json={"index": "photos", "text": "red"})
    scores = [match["score"] for match in response.json()["results"][0]["matches"]]
    assert len(scores) == 6
    assert scores == sorted(scores, reverse=True)


def test_of_several_images_a_bad_one_fails_alone(server):
    files = [("files", ("a.png", picture("red"))), ("files", ("b.png", b"nonsense"))]
    response = server.client.post(f"{URL}?index=photos&top_k=1", files=files)
    good, bad = response.json()["results"]
    assert good["matches"][0]["path"] == "red.png"
    assert bad["error"]["code"] == "invalid_image"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"text": "red"}, 422, "invalid_request"),
        ({"index": "photos"}, 422, "invalid_request"),
        ({"index": "photos", "text": "red", "image": "aGk="}, 422, "invalid_request"),
        ({"index": "photos", "text": ""}, 422, "invalid_request"),
        ({"index": "photos", "text": ["red", " "]}, 422, "invalid_request"),
        ({"index": "photos", "text": "long " * 40}, 422, "invalid_request"),
        ({"index": "photos", "text": "red", "top_k": 0}, 422, "invalid_request"),
        ({"index": "photos", "text": "red", "colour": 0}, 422, "invalid_request"),
        ({"index": "photos", "image": "aGk="}, 422, "invalid_image"),
        ({"index": "nix", "text": "red"}, 404, "unknown_index"),
        ({"index": "colours", "text": "red"}, 400, "wrong_index_kind"),
    ],
)
def test_what_cannot_be_searched(server, body, status, code):
    problem(server.client.post(URL, json=body), status, code)


def test_an_index_of_images_does_not_classify_or_change(server):
    client = server.client
    response = client.post("/v1/classify?index=photos", content=picture())
    problem(response, 400, "wrong_index_kind")
    problem(client.get("/v1/indexes/photos/categories"), 400, "wrong_index_kind")
    job = server.job(client.patch("/v1/indexes/photos", json={"add": ["red"]}))
    assert job["error"]["code"] == "wrong_index_kind"
    shown = client.get("/v1/indexes/photos").json()
    assert (shown["kind"], shown["count"], shown["version"]) == ("images", 6, 1)
