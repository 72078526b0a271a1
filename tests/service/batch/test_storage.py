"""Remote storage: a real S3 server on this machine, and what happens where there is none."""

from __future__ import annotations

import io
import socket
import tarfile

import pytest

from service.batch import LocalEngine, blocks, list_items
from service.batch.answer_cache import MemoryCache
from service.batch.errors import InputError, ItemError, StorageUnreachableError
from service.batch.storage import read_bytes
from tests.service.batch.makers import classifier, drawing


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """A bucket with pictures, a list of them and a shard; its address is in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    nowhere = tmp_path_factory.mktemp("no-aws") / "config"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "for-the-test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "for-the-test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", str(nowhere))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1")
        import s3fs

        files = s3fs.S3FileSystem()
        files.mkdir("photos")
        for at in range(4):
            files.pipe(f"photos/in/{at}.png", drawing(at))
        files.pipe("photos/in/deep/5.png", drawing(5))
        files.pipe("photos/in/notes.txt.bak", b"no image")
        files.pipe("photos/in/broken.png", drawing(1)[:-30])
        files.pipe("photos/list.csv", b"path\nin/2.png\nin/nix.png\n")
        files.pipe("photos/shard.tar", shard({"a.png": drawing(0), "b.png": drawing(2)}))
        yield "s3://photos"
    server.stop()


def shard(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def names(place):
    return [item.name.removeprefix("s3://photos/") for item in list_items([place])]


def test_folders_patterns_lists_and_shards_in_a_bucket(s3):
    folder = ["in/0.png", "in/1.png", "in/2.png", "in/3.png", "in/broken.png", "in/deep/5.png"]
    assert names(f"{s3}/in") == folder
    assert names(f"{s3}/in/[01].png") == ["in/0.png", "in/1.png"]
    assert names(f"{s3}/**/5.png") == ["in/deep/5.png"]
    assert names(f"{s3}/list.csv") == ["in/2.png", "in/nix.png"]
    assert names(f"{s3}/shard.tar") == ["shard.tar/a.png", "shard.tar/b.png"]
    assert names(f"{s3}/in/1.png") == ["in/1.png"]
    with pytest.raises(InputError, match="doesn't exist"):
        names(f"{s3}/nix.png")


def test_images_in_a_bucket_are_read_and_classified(s3):
    items = list_items([f"{s3}/in", f"{s3}/list.csv", f"{s3}/shard.tar"])
    engine = LocalEngine(classifier(), MemoryCache(), readers=4)
    rows = [row for result in engine.results(blocks(items)) for row in result.rows]
    labels = {row["file"].removeprefix("s3://photos/"): row["label"] for row in rows}
    assert labels == {
        "in/0.png": "red",
        "in/1.png": "green",
        "in/2.png": "blue",
        "in/3.png": "yellow",
        "in/broken.png": None,
        "in/deep/5.png": "black",
        "in/nix.png": None,
        "shard.tar/a.png": "red",
        "shard.tar/b.png": "blue",
    }
    errors = {row["file"][-10:]: row["error"] for row in rows if row["error"]}
    assert "truncated" in errors["broken.png"]
    assert "can't be read" in errors["in/nix.png"]


def test_storage_that_cannot_be_reached_stops_the_run(s3, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    import s3fs

    # A run's own file system is made from the environment; this one asks at a closed door, once.
    dead = s3fs.S3FileSystem(
        endpoint_url=f"http://127.0.0.1:{port}",
        config_kwargs={"retries": {"max_attempts": 1}},
        skip_instance_cache=True,
    )
    dead.retries = 1
    monkeypatch.setattr("service.batch.storage.file_system", lambda url: (dead, url))
    with pytest.raises(StorageUnreachableError, match="run the same command again"):
        read_bytes(f"{s3}/in/0.png", size=10)


def test_a_protocol_whose_package_is_missing_names_the_extra():
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"pip install .*\[gs\]"):
            list(list_items(["gs://bucket/a.png"]))
    else:
        pytest.skip("gcsfs is installed here")


def test_a_protocol_that_nobody_knows():
    with pytest.raises(InputError, match="nix"):
        list(list_items(["nix://bucket/a.png"]))


def test_memory_is_a_file_system_too():
    """Whatever fsspec opens, with nothing installed beside it."""
    import fsspec

    files = fsspec.filesystem("memory")
    files.pipe("/pictures/a.png", drawing(0))
    (item,) = list_items(["memory://pictures"])
    assert read_bytes(item.place, item.start, item.size) == drawing(0)
    with pytest.raises(ItemError, match="can't be read"):
        read_bytes("memory://pictures/nix.png")
