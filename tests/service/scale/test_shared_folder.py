"""Several servers on one data folder, as replicas are."""

from __future__ import annotations

from contextlib import ExitStack

from indexer import CategoryIndex, IndexStore
from indexer.errors import ConflictError
from tests.service.fakes import ColourEncoder, picture
from tests.service.servers import Running, wait_for


def test_a_server_outlives_another_one_that_publishes_the_default_index(tmp_path):
    store = IndexStore(tmp_path / "indexes")
    with ExitStack() as elsewhere:
        elsewhere.enter_context(store.writing("default"))
        with Running(tmp_path) as late:
            jobs = late.services.jobs
            wait_for(lambda: any(isinstance(job.error, ConflictError) for job in jobs.list()))
            assert late.client.get("/readyz").json()["status"] == "preparing"
            elsewhere.close()
            late.ready()
    assert store.versions("default") == (1,)


def test_a_version_published_elsewhere_answers_in_every_server_without_a_restart(tmp_path):
    store = IndexStore(tmp_path / "indexes")
    store.publish("things", CategoryIndex.build(["red", "blue"], ColourEncoder()))

    def versions(*servers: Running) -> set[int]:
        answers = [one.client.post("/v1/classify", content=picture("green")) for one in servers]
        return {answer.json()["index_version"] for answer in answers}

    with Running(tmp_path, index="things") as one, Running(tmp_path, index="things") as two:
        servers = one.ready(), two.ready()
        assert versions(*servers) == {1}
        store.publish("things", CategoryIndex.build(["red", "green"], ColourEncoder()))
        wait_for(lambda: versions(*servers) == {2})
        store.rollback("things", 1)
        wait_for(lambda: versions(*servers) == {1})
