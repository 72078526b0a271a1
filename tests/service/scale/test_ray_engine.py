"""A batch job on Ray: the local engine's rows, whatever becomes of the machines."""

from __future__ import annotations

import sys

import pytest
from PIL import Image

from indexer import CategoryIndex, Policy, PromptCache
from models.image.preprocess import PreprocessConfig
from service.batch.engines.ray import (
    ClusterAddressError,
    ClusterFailedError,
    EncoderRecipe,
    RayEngine,
    RayMissingError,
    _each_once,
    _packed,
    _unpacked,
    connected,
)
from service.batch.inputs import Item
from service.batch.pipeline import Block, BlockResult, Question
from service.cli import run
from service.serving.classifier import TunedHead, tuned_head
from tests.service.fakes import COLOURS, ColourEncoder
from tests.service.finetuning.shots import SHOTS
from tests.service.serving.making import make_adapter
from training.adapters.adapter import Adapter
from training.adapters.store import AdapterStore

QUESTION = Question(top_k=1, policy=Policy(), max_pixels=1_000_000)


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    categories = CategoryIndex.build(["red", "blue"], ColourEncoder())
    recipe = EncoderRecipe("everyday", PreprocessConfig())
    with pytest.raises(RayMissingError, match=r"pip install .*\[ray\]"):
        RayEngine(recipe, categories, QUESTION)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--engine", "ray"], "--out"),
        (["--address", "127.0.0.1:1"], "--engine ray"),
        (["--max-actors", "2"], "--engine ray"),
        (["--engine", "ray", "--out", "OUT", "--min-actors", "3", "--max-actors", "2"], "3 to 2"),
        (["--engine", "ray", "--out", "OUT", "--actor-cpus", "0"], "processor"),
    ],
)
def test_options_that_make_no_sense_are_one_line(arguments, named, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("service.batch.engines.ray.require_ray", lambda: None)  # slow to import
    image = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(image)
    out = str(tmp_path / "rows.jsonl")
    told = [out if word == "OUT" else word for word in arguments]
    assert run(["classify", str(image), "--labels", "a,b", *told]) == 2
    said = capsys.readouterr().err.strip()
    assert named in said
    assert "\n" not in said


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1"])
def test_an_address_where_nobody_listens_is_told_at_once(address):
    with pytest.raises(ClusterAddressError, match="no Ray cluster answers at"), connected(address):
        pass


def block(number: int) -> Block:
    return Block(number, (Item("a", "a"),))


def result(number: int) -> BlockResult:
    return BlockResult(number, (), None, duplicates=0)


@pytest.mark.parametrize("numbers", [(0, 1, 1), (0, 1), (0, 1, 2, 3)])
def test_a_block_answered_twice_or_never_is_noticed(numbers):
    window = [block(number) for number in range(3)]
    with pytest.raises(ClusterFailedError):
        list(_each_once(window, map(result, numbers)))


def test_every_block_once_is_let_through_in_any_order():
    window = [block(number) for number in range(3)]
    answers = list(_each_once(window, map(result, (2, 0, 1))))
    assert [answer.number for answer in answers] == [2, 0, 1]


def test_a_tuned_head_travels_and_answers_there_as_here(tmp_path):
    make_adapter(tmp_path, tmp_path)
    store, encoder = AdapterStore(tmp_path / "adapters"), ColourEncoder()
    adapter = store.load("words", 1, fingerprint=encoder.fingerprint)
    assert isinstance(adapter, Adapter)
    cache = PromptCache(tmp_path / "prompts.sqlite3")
    index = CategoryIndex.build(["white", *SHOTS], encoder, templates=("{}",))
    here = tuned_head(index, adapter, encoder, cache)
    there = _unpacked(_packed(here, store.folder("words", 1)), encoder)
    assert isinstance(there, TunedHead)
    queries = encoder.encode_texts(list(COLOURS))
    assert there.answer(queries, 4, Policy()) == here.answer(queries, 4, Policy())
    plain = _unpacked(_packed(index, None), encoder)
    assert plain.answer(queries, 4, Policy()) == index.answer(queries, 4, Policy())
    assert plain.answer(queries, 4, Policy()) != here.answer(queries, 4, Policy())
