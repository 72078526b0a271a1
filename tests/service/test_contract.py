"""The check of answers against /openapi.json finds what has drifted."""

from __future__ import annotations

import copy

import httpx
import pytest

from service.http.app import create_app
from service.settings import Settings
from tests.service.contract import Contract

GOOD = {
    "model": "m",
    "index": "i",
    "index_version": 1,
    "adapter": None,
    "results": [
        {
            "matches": [{"label": "red", "score": 0.5, "probability": 1.0, "rank": 1}],
            "unknown": False,
            "probability_kind": "exact",
        }
    ],
}


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract(create_app(Settings()).openapi())


def answer(body: object, status: int = 200) -> httpx.Response:
    request = httpx.Request("POST", "http://x/v1/classify")
    return httpx.Response(status, json=body, request=request)


def test_an_answer_of_the_right_shape_passes(contract):
    contract.check(answer(GOOD))
    error = {"message": "m", "type": "server_error", "param": None, "code": "c"}
    contract.check(answer({"error": error}, 503))


def test_a_key_too_many_or_too_few_and_a_wrong_type_fail(contract):
    extra, fewer, wrong = (copy.deepcopy(GOOD) for _ in range(3))
    extra["results"][0]["matches"][0]["colour"] = "red"
    del fewer["model"]
    wrong["results"][0]["matches"][0]["score"] = "high"
    for body in (extra, fewer, wrong):
        with pytest.raises(AssertionError, match=r"^\$"):
            contract.check(answer(body))
    with pytest.raises(AssertionError):
        contract.check(answer({"detail": "Not Found"}, 404))
