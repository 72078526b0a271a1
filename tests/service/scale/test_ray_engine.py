"""A batch job on Ray: the local engine's rows, whatever becomes of the machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from indexer import CategoryIndex, Policy
from models.preprocess import PreprocessConfig
from service.batch import BLOCK_SIZE
from service.batch.blocks import Block, BlockResult
from service.batch.classifier import Question
from service.batch.item import Item
from service.cli import run
from service.scale.connection import connected
from service.scale.errors import ClusterAddressError, ClusterFailedError, RayMissingError
from service.scale.ray_engine import EncoderRecipe, RayEngine, _each_once
from tests.service.fakes import ColourEncoder
from tests.service.scale.conftest import ENVIRONMENT, RayCluster
from tests.service.servers import wait_for

BLOCKS = 8
UNREADABLE = {300: b"", 700: b"\x89PNG\r\n"}
ENCODER_ACTOR = "ray::MapWorker(Map(_Answering))"
LABELS = "red apple,house,cat face,soccer ball"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of different colours, and two that can't be read."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(BLOCKS * BLOCK_SIZE - 5):
        path = folder / f"{number:05}.png"
        if number in UNREADABLE:
            path.write_bytes(UNREADABLE[number])
        else:
            Image.new("RGB", (9, 8), (number % 256, number // 256, 99)).save(path)
    return folder


@pytest.mark.slow
def test_a_node_that_dies_in_the_middle_leaves_the_local_engines_files(
    ray_cluster: RayCluster, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CLIPDEX_DATA", str(tmp_path))
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    classify = ["--verbose", "classify", str(folder), "--labels", LABELS, "--top-k", "2", "--json"]
    classify += ["--embeddings", "column", "--out"]
    on_ray = ["--engine", "ray", "--address", ray_cluster.address, "--max-actors", "2"]
    # A process of its own: Ray's threads and signal handlers end with it.
    clipdex = [sys.executable, "-c", "from service.cli import main; main()"]
    with (
        (tmp_path / "stderr").open("wb") as log,
        subprocess.Popen(
            [*clipdex, *classify, str(there), *on_ray],
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **ENVIRONMENT},
        ) as process,
    ):
        rows = tmp_path / "there.parquet.partial" / "rows"

        def began() -> bool:
            assert process.poll() is None, (tmp_path / "stderr").read_text()
            return any(rows.glob("*"))

        try:
            wait_for(began, 120)
            assert len(list(rows.iterdir())) < BLOCKS
            kill_a_node_that_encodes(ray_cluster)
            output, _ = process.communicate(timeout=200)
        finally:
            process.kill()
    summary = json.loads(output)
    alone = run([*classify, str(here)])
    assert (process.returncode, alone) == (3, 3)  # two images can't be read
    told = ("images", "failed", "duplicates", "resumed")
    assert [summary[name] for name in told] == [BLOCKS * BLOCK_SIZE - 5, 2, 0, 0]
    assert here.read_bytes() == there.read_bytes()


def kill_a_node_that_encodes(cluster: RayCluster) -> None:
    for raylet in cluster.raylets():
        if cluster.workers_of(raylet, ENCODER_ACTOR):
            cluster.kill_node(raylet)
            return
    raise AssertionError("no node encodes")


QUESTION = Question(top_k=1, policy=Policy(), max_pixels=1_000_000)


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    categories = CategoryIndex.build(["red", "blue"], ColourEncoder())
    recipe = EncoderRecipe("pictogram", PreprocessConfig())
    with pytest.raises(RayMissingError, match=r"pip install '\.\[ray\]'"):
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
    monkeypatch.setattr("service.scale.connection.require_ray", lambda: None)  # slow to import
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
