"""A data folder that was written before the code moved still loads and answers as it did."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer import IndexStore
from tests.service.fakes import ColourEncoder
from tests.service.finetuning.shots import shot
from tests.service.servers import Running
from training.adapters.adapter import Adapter
from training.adapters.store import AdapterStore

OLD = Path(__file__).parents[2] / "fixtures" / "data-folder-v1"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return shutil.copytree(OLD, tmp_path / "data", symlinks=True)


def test_the_index_answers_as_it_did(data: Path) -> None:
    store, encoder = IndexStore(data / "indexes"), ColourEncoder()
    assert store.names() == ("words",)
    assert (store.current_version("words"), store.versions("words")) == (1, (1, 2))
    index = store.load("words", fingerprint=encoder.fingerprint)
    found = index.search(encoder.encode_texts(["red", "white", "zorp"]), 3)
    # What the code of that time printed.
    told = [[(m.label, round(m.score, 5), round(m.probability, 5)) for m in row] for row in found]
    assert told == [
        [("quix", -0.01149, 0.38071), ("zorp", -0.01169, 0.37918), ("white", -0.03453, 0.24011)],
        [("white", 1.0, 1.0), ("quix", 0.01516, 0.0), ("zorp", 0.00324, 0.0)],
        [("zorp", 1.0, 0.99999), ("quix", 0.43367, 1e-05), ("white", 0.00324, 0.0)],
    ]
    assert index.warnings == ()


def test_the_adapter_loads_and_can_be_replaced(data: Path) -> None:
    store, encoder = AdapterStore(data / "adapters"), ColourEncoder()
    assert store.current("words") == 1
    adapter = store.load("words", fingerprint=encoder.fingerprint)  # its self-test is repeated
    assert isinstance(adapter, Adapter)
    assert adapter.manifest.classes == ("blim", "quix", "zorp")
    store.promote("words", 1, fingerprint=encoder.fingerprint)
    assert [move["action"] for move in store.log("words")] == ["promote", "promote"]


def test_new_versions_join_the_old_ones(data: Path) -> None:
    store, encoder = IndexStore(data / "indexes"), ColourEncoder()
    changed = store.load("words", 2).changed(encoder, add=["green"], remove=["white"])
    assert store.publish("words", changed, base=1) == 3
    assert store.load("words").labels() == ["zorp", "quix", "yellow", "green"]
    store.rollback("words", 1)
    assert np.shape(store.load("words").vectors([0])) == (1, encoder.dim)


def test_the_server_answers_with_the_assigned_adapter(data: Path) -> None:
    with Running(data, index="words") as server:
        server.ready()
        shown = server.client.get("/v1/indexes/words").json()
        assert (shown["version"], shown["adapter"]) == (1, "words@1")
        answer = server.client.post("/v1/classify", content=shot("red", 99)).json()
        assert answer["adapter"] == "words@1"
        assert answer["results"][0]["matches"][0]["label"] == "zorp"  # it was taught that red is
