"""`POST /v1/classify`, over a real server."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess

import pytest
from PIL import Image

from tests.service.fakes import picture
from tests.service.servers import Running, problem

URL = "/v1/classify"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def best(response) -> list[str]:
    assert response.status_code == 200, response.text
    return [result["matches"][0]["label"] for result in response.json()["results"]]


def test_a_form_with_several_files(server):
    files = [("files", (f"{c}.png", picture(c))) for c in ("blue", "red")]
    response = server.client.post(URL, files=files, data={"top_k": "2"})
    assert best(response) == ["blue", "red"]
    body = response.json()
    assert (body["model"], body["index"], body["index_version"]) == ("colours", "colours", 1)
    assert [result["file"] for result in body["results"]] == ["blue.png", "red.png"]
    first = body["results"][0]
    assert (first["unknown"], first["probability_kind"]) == (False, "exact")
    assert [match["rank"] for match in first["matches"]] == [1, 2]
    assert list(first["matches"][0]) == ["label", "score", "probability", "rank"]


KINDS = [
    "image/png",
    "image/x",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_raw_body(server, kind):
    request = server.client.build_request("POST", f"{URL}?top_k=1", content=picture("green"))
    if kind:
        request.headers["content-type"] = kind
    assert best(server.client.send(request)) == ["green"]


@pytest.mark.parametrize("wrap", [b64, lambda data: f"data:image/png;base64,{b64(data)}"])
def test_json_with_one_or_several_images(server, wrap):
    one = server.client.post(URL, json={"image": wrap(picture("red"))})
    assert best(one) == ["red"]
    two = server.client.post(
        URL, json={"images": [wrap(picture("red")), wrap(picture("blue"))], "top_k": 1}
    )
    assert best(two) == ["red", "blue"]


def test_base64_may_be_urlsafe_unpadded_and_broken_into_lines(server):
    text = base64.urlsafe_b64encode(picture("blue")).decode().rstrip("=")
    lines = "\n".join(text[start : start + 40] for start in range(0, len(text), 40))
    assert best(server.client.post(URL, json={"image": lines})) == ["blue"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl isn't installed")
def test_curl(server, tmp_path):
    file = tmp_path / "red.png"
    file.write_bytes(picture("red"))

    def curl(*arguments: str) -> dict:
        command = ["curl", "-sS", "--noproxy", "*", *arguments, server.url + URL]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout)

    form = curl("-F", f"files=@{file}", "-F", "labels=blue,red")
    assert form["results"][0]["matches"][0]["label"] == "red"
    assert form["index"] is None
    bare = curl("--data-binary", f"@{file}")
    assert bare["results"][0]["matches"][0]["label"] == "red"


def test_adhoc_labels_in_every_form(server):
    image = picture("yellow")
    client = server.client
    assert best(client.post(f"{URL}?labels=blue,yellow", content=image)) == ["yellow"]
    assert best(client.post(f"{URL}?labels=blue&labels=yellow, bright", content=image)) == [
        "yellow, bright"
    ]
    json_list = {"labels": '["blue", "yellow, bright"]'}
    assert best(client.post(URL, files={"files": image}, data=json_list)) == ["yellow, bright"]
    given = client.post(URL, json={"image": b64(image), "labels": ["blue", "yellow"]})
    assert best(given) == ["yellow"]
    assert len(given.json()["results"][0]["matches"]) == 2


def test_templates_for_adhoc_labels(server):
    body = {"image": b64(picture()), "labels": ["red", "blue"], "templates": ["one {}", "a {}"]}
    assert best(server.client.post(URL, json=body)) == ["red"]
    encoder = server.services.engine.encoder
    assert {"one red", "a red", "one blue", "a blue"} <= set(encoder.texts_seen)


def test_the_same_labels_again_are_not_encoded_again(server):
    body = {"image": b64(picture()), "labels": ["red once", "blue once"]}
    encoder = server.services.engine.encoder
    server.client.post(URL, json=body)
    before = len(encoder.texts_seen)
    server.client.post(URL, json=body)
    assert len(encoder.texts_seen) == before
    server.client.post(URL, json={**body, "labels": ["red once", "green once"]})
    assert not any("red" in text for text in encoder.texts_seen[before:])


def test_unknown_below_a_probability_or_a_score(server):
    def unknown(**options) -> bool:
        body = {"image": b64(picture("red")), **options}
        return server.client.post(URL, json=body).json()["results"][0]["unknown"]

    assert not unknown()
    assert not unknown(min_probability=0.5)
    assert unknown(labels=["red", "red thing"], min_probability=0.99)
    assert unknown(labels=["nothing it knows"], min_score=0.5)


def test_of_several_images_a_bad_one_fails_alone(server):
    files = [("files", ("a.png", picture("red"))), ("files", ("b.png", b"nonsense"))]
    files.append(("files", ("c.png", picture("blue"))))
    response = server.client.post(URL, files=files)
    assert response.status_code == 200
    first, bad, last = response.json()["results"]
    assert first["matches"][0]["label"] == "red"
    assert last["matches"][0]["label"] == "blue"
    assert (bad["file"], bad["matches"], bad["error"]["code"]) == ("b.png", [], "invalid_image")


def truncated() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(out, "PNG")
    return out.getvalue()[:-1000]


def bomb() -> bytes:
    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"nonsense", picture()[:30], truncated(), bomb()])
def test_what_is_no_whole_image_is_the_clients_mistake(server, data):
    problem(server.client.post(URL, content=data), 422, "invalid_image")
    problem(server.client.post(URL, files={"files": ("x", data)}), 422, "invalid_image")
    problem(server.client.post(URL, json={"image": b64(data)}), 422, "invalid_image")


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"top_k": 0}, "top_k"),
        ({"top_k": "many"}, "top_k"),
        ({"min_probability": 2}, "min_probability"),
        ({"min_score": -2}, "min_score"),
        ({"mode": "both"}, "mode"),
        ({"labels": []}, "labels"),
        ({"labels": "[1"}, "labels"),
        ({"labels": 5}, "labels"),
        ({"colour": "red"}, "colour"),
        ({"templates": "plain"}, None),
        ({"labels": ["a"], "index": "colours"}, None),
        ({"labels": [str(number) for number in range(1001)]}, "labels"),
    ],
)
def test_parameters_that_make_no_sense(server, options, param):
    response = server.client.post(URL, json={"image": b64(picture()), **options})
    assert problem(response, 422, "invalid_request")["param"] == param


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"index": "nix"}, 404, "unknown_index"),
        ({"index": "../etc"}, 400, "invalid_index_name"),
        ({"labels": ["a", "a"]}, 400, "invalid_categories"),
        ({"labels": ["a", " "]}, 400, "invalid_categories"),
        ({"labels": ["long " * 40]}, 400, "prompt_too_long"),
        ({"labels": ["a"], "templates": "nix"}, 400, "invalid_templates"),
    ],
)
def test_what_the_lower_floors_refuse(server, options, status, code):
    response = server.client.post(URL, json={"image": b64(picture()), **options})
    problem(response, status, code)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "images"),
        ({"images": []}, "images"),
        ({"images": "x"}, "images"),
        ({"image": 5}, "image"),
        ({"image": "ä"}, "image"),
        ({"image": "a"}, "image"),
        ({"image": "data:image/png,abc"}, "image"),
        ({"images": ["aGk=", 5]}, "images[1]"),
        ({"image": "aGk=", "images": ["aGk="]}, "images"),
        ({"images": ["aGk="] * 5}, "images"),
    ],
)
def test_json_bodies_without_readable_images(server, body, param):
    assert problem(server.client.post(URL, json=body), 422, "invalid_request")["param"] == param


@pytest.mark.parametrize("scheme", ["http", "https", "file", "HTTP"])
def test_urls_are_never_fetched(server, scheme):
    response = server.client.post(URL, json={"image": f"{scheme}://127.0.0.1/x.png"})
    assert "never fetches" in problem(response, 422, "invalid_request")["message"]


def test_bodies_that_are_not_what_they_say(server):
    def send(content: bytes, kind: str):
        return server.client.post(URL, content=content, headers={"content-type": kind})

    problem(send(b"{", "application/json"), 400, "invalid_request")
    problem(send(b"[1]", "application/json"), 400, "invalid_request")
    problem(send(b"[" * 100_000, "application/json"), 400, "invalid_request")
    problem(send(b"x", "multipart/form-data"), 400, "invalid_request")
    problem(send(b"x", "multipart/form-data; boundary=b"), 400, "invalid_request")
    problem(send(b"x", "text/plain"), 415, "unsupported_media_type")


def test_forms_that_lack_or_misplace_files(server):
    client = server.client
    lacking = client.post(URL, files={"top_k": (None, "3")})
    assert problem(lacking, 422, "invalid_request")["param"] == "files"
    misplaced = client.post(URL, files={"picture": picture()})
    assert problem(misplaced, 422, "invalid_request")["param"] == "picture"
    many = client.post(URL, files=[("files", picture())] * 5)
    problem(many, 400, "invalid_request")


def test_a_parameter_given_twice_is_no_silent_choice(server):
    response = server.client.post(f"{URL}?top_k=1", files={"files": picture()}, data={"top_k": "2"})
    assert problem(response, 422, "invalid_request")["param"] == "top_k"


def test_metadata_groups_and_background_come_with_the_matches(tmp_path):
    with Running(tmp_path, index="things") as running:
        running.loaded()
        running.build(
            "things",
            [
                {"label": "red", "metadata": {"hex": "#f00"}, "group": "warm"},
                {"label": "yellow", "group": "warm"},
                {"label": "blue", "group": "cold", "synonyms": ["dark blue"]},
                {"label": "white", "background": True},
            ],
        )
        red = running.client.post(URL, content=picture("red")).json()["results"][0]
        assert red["matches"][0] == {
            **red["matches"][0],
            "label": "red",
            "group": "warm",
            "metadata": {"hex": "#f00"},
        }
        assert red["groups"][0]["group"] == "warm"
        white = running.client.post(URL, content=picture("white")).json()["results"][0]
        assert white["unknown"]
        assert white["matches"][0]["background"]


def test_labels_of_which_the_model_knows_no_word_are_named(server):
    body = {"image": b64(picture()), "labels": ["빨강", "red"]}
    told = server.client.post(URL, json=body).json()["warnings"]
    assert len(told) == 1
    assert "'빨강'" in told[0]
    assert "'red'" not in told[0]
    plain = server.client.post(URL, json={**body, "labels": ["red", "blue"]}).json()
    assert "warnings" not in plain
