"""Bad uploads: each gets its clear error before anything is trained, naming every offender."""

from __future__ import annotations

import io
import json
import os
import stat
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.service.finetuning.shots import SHOTS, begin, colour_server, packed, send, shot, shots
from tests.service.servers import Running, problem

GOOD = shots(2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """It queues jobs, but runs none."""
    root = tmp_path_factory.mktemp("allowed")
    with colour_server(
        tmp_path_factory.mktemp("intake"),
        finetune_jobs=0,
        finetune_roots=(root,),
        finetune_upload_mb=2,
        finetune_unpacked_mb=4,
    ) as running:
        yield begin(running)


def zipped(write: Callable[[zipfile.ZipFile], None], files: dict[str, bytes] = GOOD) -> bytes:
    """A zip of good files, and of what `write` adds."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of names that stand there twice
            write(archive)
    return out.getvalue()


def with_entry(name: str, data: bytes = b"x", *, mode: int = 0) -> bytes:
    def write(archive: zipfile.ZipFile) -> None:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, data)

    return zipped(write)


def encrypted() -> bytes:
    """The flag is what counts; it stands in two places."""
    data = bytearray(with_entry("zorp/secret.png", shot("red", 9)))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(mark) + offset] |= 1
    return bytes(data)


def damaged() -> bytes:
    data = bytearray(packed({**GOOD, "zorp/torn.png": shot("red", 9)}))
    at = data.rindex(b"IDAT")
    data[at + 8 : at + 16] = b"\0" * 8
    return bytes(data)


def with_large_directory(*, zip64: bool) -> bytes:
    """The size of the directory is a lie, but whoever believes it reads 40 MB of entries."""
    data = bytearray(packed(GOOD))
    at = data.rindex(b"PK\5\6")
    struct.pack_into("<L", data, at + 12, 0xFFFFFFFF if zip64 else 40_000_000)
    if zip64:
        record = bytearray(56)
        record[:4] = b"PK\6\6"
        struct.pack_into("<Q", record, 40, 40_000_000)
        pointer = b"PK\6\7" + struct.pack("<LQL", 0, at, 1)
        data[at:at] = bytes(record) + pointer
    return bytes(data)


NAMES_OUTSIDE = ["../up.png", "zorp/../../up.png", "/etc/up.png", "zorp\\..\\up.png", "C:/up.png"]
PNG = shot("red", 0)
REFUSED: dict[str, tuple[bytes, list[str]]] = {
    **{
        f"zip slip {name}": (with_entry(name, PNG), [name.replace("\\", "\\\\"), "leads out"])
        for name in NAMES_OUTSIDE
    },
    "a link": (with_entry("zorp/l.png", b"/etc/passwd", mode=stat.S_IFLNK | 0o777), ["is a link"]),
    "a device": (with_entry("zorp/d.png", mode=stat.S_IFCHR | 0o666), ["neither a file nor"]),
    "a bomb by ratio": (with_entry("zorp/b.png", bytes(3_000_000)), ["less than 1/200"]),
    "a bomb by total": (with_entry("zorp/b.bmp", bytes(9_000_000)), ["unpacks to 9 MB"]),
    "a nested archive": (with_entry("zorp/more.zip", packed(GOOD)), ["archive in the archive"]),
    "a nested tarball": (with_entry("zorp/more.tar.gz"), ["archive in the archive"]),
    "an encrypted entry": (encrypted(), ["'zorp/secret.png' is encrypted"]),
    "the same name twice": (
        with_entry("zorp/0.png", PNG),
        ["'zorp/0.png' is in the archive twice"],
    ),
    "control characters": (with_entry("zorp/a\nb.png", PNG), ["control characters"]),
    "a huge directory": (with_large_directory(zip64=False), ["directory has 40 MB"]),
    "a huge directory in zip64": (with_large_directory(zip64=True), ["directory has 40 MB"]),
    "no zip": (b"PK but no zip", ["no zip archive"]),
    "a torn zip": (packed(GOOD)[:-40], ["no zip archive"]),
    "an empty zip": (packed({}), ["at least two classes", "there is none"]),
    "one class": (packed({k: v for k, v in GOOD.items() if "zorp" in k}), ["only 'zorp'"]),
    "one image": (packed({**GOOD, "lone/1.png": shot("white", 1)}), ["'lone' has one image"]),
    "copies of one image": (
        packed({**GOOD, "lone/1.png": PNG, "lone/2.png": PNG}),
        ["'lone' has one image"],
    ),
    "two labels": (
        packed({**GOOD, "quix/same.png": GOOD["zorp/0.png"]}),
        ["the same image under two labels: 'quix/same.png', 'zorp/0.png'"],
    ),
    "two labels, encoded otherwise": (
        packed({**GOOD, "quix/same.bmp": shot("red", 0, kind="BMP")}),
        ["under two labels", "quix/same.bmp"],
    ),
    "no image": (packed({**GOOD, "zorp/x.png": b"text"}), ["'zorp/x.png': not an image"]),
    "half an image": (packed({**GOOD, "zorp/x.png": PNG[:60]}), ["'zorp/x.png': the image is"]),
    "an empty image": (packed({**GOOD, "zorp/x.png": b""}), ["'zorp/x.png': the image is empty"]),
    "a torn entry": (damaged(), ["'zorp/torn.png'"]),
    "no image's ending": (packed({**GOOD, "zorp/x.txt": b"x"}), ["'zorp/x.txt': not an image"]),
    "labels alike": (
        packed({**GOOD, "Zorp/1.png": shot("red", 8), "Zorp/2.png": shot("red", 9)}),
        ["differ by case or blanks only: 'Zorp', 'zorp'"],
    ),
    "blanks alike": (
        packed({**GOOD, "a  b/1.png": PNG, "a  b/2.png": PNG, "a b/1.png": PNG, "a b/2.png": PNG}),
        ["'a  b', 'a b'"],
    ),
    "a blank at the end": (packed({**GOOD, "zap /1.png": PNG}), ["begins or ends with a blank"]),
    "an unprintable label": (
        packed({**GOOD, "za\u200bp/1.png": PNG}),
        ["the label 'za\\u200bp' has characters that can't be printed"],
    ),
    "a long label": (packed({**GOOD, "zap" * 80 + "/1.png": PNG}), ["is longer than 200 bytes"]),
    "outside of a class": (packed({**GOOD, "stray.png": PNG}), ["'stray.png' doesn't lie in a"]),
    "too deep": (packed({**GOOD, "zorp/more/1.png": PNG}), ["'zorp/more/1.png' doesn't lie in"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(server: Running, name: str):
    archive, said = REFUSED[name]
    before = everything(server)
    error = problem(send(server.client, archive), 400, "invalid_upload")
    for words in said:
        assert words in error["message"]
    assert everything(server) == before


def test_every_offender_is_named_at_once(server: Running):
    files = {
        **GOOD,
        "zorp/torn.png": PNG[:50],
        "blim/text.png": b"text",
        "lone/1.png": shot("white", 1),
        "ZORP/1.png": shot("red", 7),
        "ZORP/2.png": shot("red", 8),
        "quix/same.png": GOOD["zorp/0.png"],
        "stray.png": PNG,
    }
    message = problem(send(server.client, packed(files)), 400, "invalid_upload")["message"]
    assert message.startswith("6 problems with the images: ")
    for name in ("zorp/torn.png", "blim/text.png", "'lone'", "'ZORP', 'zorp'", "stray.png"):
        assert name in message
    outside = zipped(lambda archive: [archive.writestr(n, b"x") for n in NAMES_OUTSIDE] and None)
    message = problem(send(server.client, outside), 400, "invalid_upload")["message"]
    assert message.count("leads out") == len(NAMES_OUTSIDE)


def test_what_can_be_read_is_taken_when_that_is_asked_for(server: Running):
    files = {**GOOD, "zorp/torn.png": PNG[:50], "notes.txt": b"x", "stray.png": PNG}
    answer = send(server.client, packed(files), skip_bad=True)
    assert answer.status_code == 202, answer.text
    assert answer.json()["options"]["images"] == len(GOOD)
    slip = with_entry("../up.png", PNG)
    problem(send(server.client, slip, skip_bad=True), 400, "invalid_upload")


def test_file_managers_leavings_and_a_folder_around_it_all(server: Running):
    files = {f"my shots/{name}": data for name, data in GOOD.items()}
    files |= {"my shots/.DS_Store": b"x", "__MACOSX/my shots/zorp/._0.png": b"x"}
    answer = send(server.client, packed(files))
    assert answer.status_code == 202, answer.text
    images = server.settings.finetunes / answer.json()["id"] / "images"
    assert sorted(path.name for path in images.iterdir()) == sorted(SHOTS)
    names = sorted(path.name for path in (images / "zorp").iterdir())
    assert [name.partition("-")[2] for name in names] == ["0.png", "1.png"]


def test_a_bare_zip_and_its_limit(server: Running):
    head = {"Content-Type": "application/zip"}
    url = "/v1/finetunes?method=gda&name=bare"
    answer = server.client.post(url, content=packed(GOOD), headers=head)
    assert answer.status_code == 202, answer.text
    assert answer.json()["options"]["name"] == "bare"
    large = os.urandom(2_100_000)
    problem(server.client.post(url, content=large, headers=head), 413, "body_too_large")


def test_nothing_is_written_outside_the_data_folder(server: Running, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    large = io.BytesIO()
    Image.fromarray(noise).save(large, "PNG")
    answer = send(server.client, packed({**GOOD, "zorp/large.png": large.getvalue()}))
    assert answer.status_code == 202, answer.text
    broken = server.client.post(
        "/v1/finetunes", content=b"x", headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    problem(broken, 400, "invalid_request")


TABLES = {
    "csv": "file,label\n" + "".join(f"{n.replace('/', '_')},{n.split('/')[0]}\n" for n in GOOD),
    "jsonl": "".join(
        json.dumps({"file": name.replace("/", "_"), "label": name.split("/")[0]}) + "\n"
        for name in GOOD
    ),
}


def send_table(server: Running, table: str, ending: str, files: dict[str, bytes] = GOOD):
    parts = [("manifest", (f"labels.{ending}", table.encode()))]
    parts += [("files", (name.replace("/", "_"), data)) for name, data in files.items()]
    return server.client.post("/v1/finetunes", files=parts)


@pytest.mark.parametrize("ending", TABLES)
def test_a_table_beside_the_images(server: Running, ending: str):
    answer = send_table(server, TABLES[ending], ending)
    assert answer.status_code == 202, answer.text
    images = server.settings.finetunes / answer.json()["id"] / "images"
    found = {path.relative_to(images).parts[0]: path for path in images.glob("*/*")}
    assert sorted(found) == sorted(SHOTS)


@pytest.mark.parametrize(
    ("table", "ending", "said"),
    [
        (
            TABLES["csv"] + "gone.png,zorp\n",
            "csv",
            "line 8 names 'gone.png', which wasn't uploaded",
        ),
        (TABLES["csv"] + "zorp_0.png,quix\n", "csv", "'zorp_0.png' stands under two labels"),
        (TABLES["csv"].replace("zorp_0.png,zorp\n", ""), "csv", "'zorp_0.png' isn't in labels.csv"),
        (TABLES["csv"].replace("file,", "path,"), "csv", "has no column 'file'"),
        (TABLES["csv"] + ",zorp\n", "csv", "line 8 lacks a file or a label"),
        (TABLES["jsonl"] + "nonsense\n", "jsonl", "line 7 isn't JSON"),
        (TABLES["jsonl"] + "[]\n", "jsonl", "line 7 is no JSON object"),
        (TABLES["csv"].replace(",zorp", ",../../up"), "csv", "may not begin with a dot or hold"),
        (TABLES["csv"], "txt", "must end with .csv or .jsonl"),
    ],
)
def test_bad_tables(server: Running, table: str, ending: str, said: str):
    error = problem(send_table(server, table, ending), 400, "invalid_upload")
    assert said in error["message"]


def test_a_folder_under_an_allowed_root(server: Running, tmp_path: Path):
    root = server.settings.finetune_roots[0]
    for name, data in GOOD.items():
        path = root / "shots" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for place in ("shots", str(root / "shots")):
        answer = server.client.post("/v1/finetunes", json={"folder": place, "method": "gda"})
        assert answer.status_code == 202, answer.text
    (tmp_path / "zorp").mkdir()
    (root / "out").symlink_to(tmp_path)
    for place in (str(tmp_path), "../", "out", "nowhere", "shots/zorp/0.png", "a\0b"):
        answer = server.client.post("/v1/finetunes", json={"folder": place})
        assert problem(answer, 403, "folder_not_allowed")["param"] == "folder"
    (root / "shots" / "quix" / "linked.png").symlink_to("/etc/hostname")
    (root / "shots" / "linked").symlink_to(tmp_path)
    answer = server.client.post("/v1/finetunes", json={"folder": "shots"})
    message = problem(answer, 400, "invalid_upload")["message"]
    assert "'quix/linked.png' is a link" in message
    assert "'linked' is a link" in message


def test_no_folder_without_a_root(tmp_path: Path):
    with colour_server(tmp_path, finetune_jobs=0) as server:
        begin(server)
        answer = server.client.post("/v1/finetunes", json={"folder": "/"})
        problem(answer, 403, "folder_not_allowed")


def test_one_source_at_a_time(server: Running):
    both = {"archive": ("a.zip", packed(GOOD)), "manifest": ("m.csv", b"")}
    error = problem(server.client.post("/v1/finetunes", files=both), 422, "invalid_request")
    assert error["param"] == "archive"
    odd = {"images": ("a.zip", packed(GOOD))}
    error = problem(server.client.post("/v1/finetunes", files=odd), 422, "invalid_request")
    assert error["param"] == "images"


def everything(server: Running) -> list[str]:
    """What the data folder holds of jobs."""
    return sorted(path.name for path in server.settings.finetunes.glob("*") if path.is_dir())
