"""On a real Ray cluster of several raylets: a batch job whose rows are the local engine's though a
node dies, and the app on Ray Serve, whose replicas answer as one process does and may die.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image

from indexer import CategoryIndex, IndexStore
from models import load_encoder
from service.batch import BLOCK_SIZE
from service.cli import run
from service.serving.assignments import Assignments
from service.serving.core import CATEGORIES
from tests.service.scale.conftest import ENVIRONMENT, RayCluster
from tests.service.scale.processes import kill
from tests.service.servers import Running, problem, wait_for
from tests.service.serving.making import make_adapter
from training.adapters.store import AdapterStore

# Each starts processes by the dozen: seconds on a quiet machine, minutes on one that others use.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SAMPLES = sorted((Path(__file__).parents[3] / "service" / "samples").glob("*.png"))
REPLICA = "ray::ServeReplica:clipdex:clipdex"
LABELS = CATEGORIES.read_text(encoding="utf-8").split("\n")[:20]
BLOCKS = 8
UNREADABLE = {300: b"", 700: b"\x89PNG\r\n"}
ENCODER_ACTOR = "ray::MapWorker(Map(_Answering))"
FEW = "red apple,house,cat face,soccer ball"


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


def test_a_node_that_dies_in_the_middle_leaves_the_local_engines_files(
    ray_cluster: RayCluster, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CLIPDEX_DATA", str(tmp_path))
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    classify = ["--verbose", "classify", str(folder), "--labels", FEW, "--top-k", "2", "--json"]
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
            wait_for(began, 300)
            assert len(list(rows.iterdir())) < BLOCKS
            kill_a_node_that_encodes(ray_cluster)
            output, _ = process.communicate(timeout=400)
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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class Served:
    """`serve run` with two replicas, and the folder that they share."""

    url: str
    store: IndexStore
    data: Path
    cluster: RayCluster

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def replicas(self) -> set[int]:
        return set(self.cluster.workers(REPLICA))


@pytest.fixture(scope="module")
def served(ray_cluster: RayCluster, tmp_path_factory) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("shared")
    store = IndexStore(data / "indexes")
    encoder = load_encoder("everyday", precision="fp32")
    store.publish("things", CategoryIndex.build(LABELS, encoder))
    port = free_port()
    arguments = {"data": str(data), "index": "things", "precision": "fp32"}
    size = {"min_replicas": 2, "max_replicas": 2, "cpus": 0.5}
    application: dict[str, object] = {"name": "clipdex", "route_prefix": "/"}
    application |= {"import_path": "service.ray_serve:app", "args": {**arguments, **size}}
    config = {
        "proxy_location": "HeadOnly",  # the nodes share this machine's ports
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [application],
    }
    (data / "serve.yaml").write_text(json.dumps(config), encoding="utf-8")
    program = Path(sys.executable).with_name("serve")
    command = [program, "run", f"--address={ray_cluster.address}", str(data / "serve.yaml")]
    with (data / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ENVIRONMENT},
        )
    try:
        served = Served(f"http://127.0.0.1:{port}", store, data, ray_cluster)

        def ready() -> bool:
            assert process.poll() is None, (data / "serve.log").read_text(errors="replace")
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        with served.client() as client:
            wait_for(ready, 300)
            wait_for(lambda: len(served.replicas()) == 2, 200)
        yield served
    finally:
        process.terminate()
        process.wait(60)


def ask(client: httpx.Client, image: Path) -> httpx.Response:
    return client.post("/v1/classify?top_k=3", content=image.read_bytes())


def test_two_replicas_answer_as_one_process_does(served):
    with (
        Running(
            served.data, lambda: load_encoder("everyday", precision="fp32"), index="things"
        ) as alone,
        served.client() as client,
    ):
        alone.ready()
        for image in SAMPLES:
            ours, theirs = ask(alone.client, image).json(), ask(client, image).json()
            for result in (ours, theirs):
                assert result.pop("model") == "everyday"
            one, two = (result.pop("results")[0]["matches"] for result in (ours, theirs))
            assert ours == theirs
            assert [match["label"] for match in one] == [match["label"] for match in two]
            scores = [[match["score"] for match in matches] for matches in (one, two)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)
        bad = alone.client.post("/v1/classify?top_k=x", content=b"?")
        same = client.post("/v1/classify?top_k=x", content=b"?")
        assert problem(bad, 422, "invalid_request") == problem(same, 422, "invalid_request")
        own_id = {"X-Request-ID": "my-own"}
        assert client.get("/healthz", headers=own_id).headers.get_list("x-request-id") == ["my-own"]
        # Each replica counts its own requests: a single one would have counted every one of these.
        counts = [count(client.get("/metrics").text) for _ in range(40)]
        assert max(counts) < 39


def count(metrics: str) -> int:
    """Requests for /metrics that the replica which answered had answered before."""
    found = re.search(r'clipdex_requests_total\{[^}]*path="/metrics"[^}]*\} (\S+)', metrics)
    return int(float(found[1])) if found else 0


def test_what_is_published_on_the_shared_folder_answers_in_every_replica(served, tmp_path):
    encoder = load_encoder("everyday", precision="fp32")
    version = served.store.publish("things", CategoryIndex.build(LABELS[:10], encoder))
    before = served.replicas()
    with served.client() as client:

        def says(field: str) -> set[object]:
            return {ask(client, SAMPLES[0]).json()[field] for _ in range(10)}

        assert says("adapter") == {None}
        wait_for(lambda: says("index_version") == {version}, 120)
        adapters = served.data / "adapters"
        make_adapter(served.data, tmp_path, index="things", encoder=encoder)
        store = AdapterStore(adapters)
        store.promote("words", 1, fingerprint=encoder.fingerprint, force=True)
        Assignments(adapters).assign("things", "words")
        wait_for(lambda: says("adapter") == {"words@1"}, 120)
        Assignments(adapters).unassign("things")
        wait_for(lambda: says("adapter") == {None}, 120)
    assert served.replicas() == before


def test_a_replica_killed_under_load_costs_no_client_more_than_a_retry(served):
    stop = threading.Event()
    failures: list[int] = []  # in a row, one entry for each image that failed at least once
    answered = []

    def load(image: Path) -> None:
        with served.client() as client:
            while not stop.is_set():
                failed = 0
                while not answers(client, image):
                    failed += 1
                if failed:
                    failures.append(failed)
                answered.append(time.monotonic())

    def answers(client: httpx.Client, image: Path) -> bool:
        try:
            return ask(client, image).status_code == 200
        except httpx.TransportError:
            return False

    before = served.replicas()
    threads = [threading.Thread(target=load, args=(image,)) for image in SAMPLES[:4]]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(answered) > 50, 120)
        kill([min(before)])
        killed = time.monotonic()
        wait_for(lambda: sum(at > killed for at in answered) > 50, 120)
        # Ray Serve replaces it; the new one loads beside and joins in.
        wait_for(lambda: len(served.replicas() - {min(before)}) == 2, 200)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [times for times in failures if times > 1] == []
