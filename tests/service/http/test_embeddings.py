from __future__ import annotations

import base64

import numpy as np
import pytest

from tests.service.fakes import picture
from tests.service.servers import problem

URL = "/v1/embeddings"


def uri(colour: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture(colour)).decode()}"


def vectors(response) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.array([item["embedding"] for item in response.json()["data"]], np.float32)


def test_texts_as_openai_asks_for_them(server):
    body = {"model": "colours", "input": ["red", "blue car"], "encoding_format": "float"}
    response = server.client.post(URL, json=body)
    answer = response.json()
    assert (answer["object"], answer["model"]) == ("list", "colours")
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert {item["object"] for item in answer["data"]} == {"embedding"}
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    expected = server.services.engine.encoder.encode_texts(["red", "blue car"])
    np.testing.assert_array_equal(vectors(response), expected)


def test_base64_is_little_endian_float32(server):
    text = server.client.post(URL, json={"input": "red", "encoding_format": "base64"})
    packed = text.json()["data"][0]["embedding"]
    unpacked = np.frombuffer(base64.b64decode(packed), "<f4")
    np.testing.assert_array_equal(
        unpacked, vectors(server.client.post(URL, json={"input": "red"}))[0]
    )


def test_images_meet_texts_in_one_space(server):
    body = {"input": [uri("red"), uri("blue")], "modality": "image"}
    images = vectors(server.client.post(URL, json=body))
    texts = vectors(server.client.post(URL, json={"input": ["red", "blue"]}))
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
    assert (images @ texts.T).argmax(axis=1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"input": "red", "model": "other"}, 404, "model_not_found", "model"),
        ({"input": []}, 422, "invalid_request", "input"),
        ({"input": [1, 2]}, 422, "invalid_request", "input.str"),
        ({"input": ["red", " "]}, 422, "invalid_request", "input[1]"),
        ({"input": ["red", "long " * 40]}, 422, "invalid_request", "input[1]"),
        ({"input": "red", "dimensions": 7}, 422, "invalid_request", "dimensions"),
        ({"input": "red", "colour": 7}, 422, "invalid_request", "colour"),
        ({"input": ["aGk="], "modality": "image"}, 422, "invalid_image", "input[0]"),
        ({"input": ["http://x/y"], "modality": "image"}, 422, "invalid_request", "input[0]"),
        ({"input": ["aGk="] * 5, "modality": "image"}, 422, "invalid_request", "input"),
        ({"input": ["a"] * 1001}, 422, "invalid_request", "input"),
        ({}, 422, "invalid_request", "input"),
    ],
)
def test_what_cannot_be_embedded(server, body, status, code, param):
    assert problem(server.client.post(URL, json=body), status, code)["param"] == param


def test_a_body_that_is_no_json(server):
    as_json = {"content-type": "application/json"}
    problem(server.client.post(URL, content=b"{", headers=as_json), 400, "invalid_request")
    problem(server.client.post(URL, content=b"[1]", headers=as_json), 422, "invalid_request")
    problem(server.client.post(URL, content=b"red"), 422, "invalid_request")
