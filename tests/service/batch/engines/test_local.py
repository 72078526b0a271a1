from __future__ import annotations

import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from indexer import Policy
from indexer.errors import PolicyError
from service.batch import BlockResult, Item, LocalEngine, answer_block, blocks, prepare
from service.batch.answer_cache import DiskCache, MemoryCache
from service.batch.engines.local import ahead
from service.batch.errors import ItemError
from service.batch.storage import read_bytes
from tests.service.batch.makers import MoodyEncoder, classifier, drawing, drawings
from tests.service.fakes import SIZE, ColourEncoder


def items(paths):
    return [Item(path, path) for path in paths]


def run(paths, made=None, *, size=16, ordered=True, seen=None, readers=3):
    engine = LocalEngine(
        made or classifier(), seen or MemoryCache(), ordered=ordered, readers=readers
    )
    return list(engine.results(blocks(items(paths), size=size)))


def rows_of(results):
    return [row for result in results for row in result.rows]


def test_one_row_an_image_in_input_order(tmp_path):
    paths = drawings(tmp_path, 50)
    results = run(paths)
    assert [result.number for result in results] == [0, 1, 2, 3]
    rows = rows_of(results)
    assert [row["file"] for row in rows] == paths
    assert [row["label"] for row in rows[:6]] == [
        "red",
        "green",
        "blue",
        "yellow",
        "white",
        "black",
    ]
    assert rows[0]["score"] == rows[0]["matches"][0]["score"]
    assert len(rows[0]["matches"]) == 2
    assert rows[0]["error"] is None
    assert (rows[0]["model"], rows[0]["index"], rows[0]["index_version"]) == ("colours", None, None)


def test_what_cannot_be_read_is_a_row_with_an_error(tmp_path):
    good = drawings(tmp_path, 3)
    whole = drawing(1)
    files = {"cut.png": whole[:-30], "text.png": b"nonsense", "empty.png": b""}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    bad = [*files, "fifo.png", "folder.png", "missing.png"]
    paths = [good[0], *(str(tmp_path / name) for name in bad), *good[1:]]
    rows = rows_of(run(paths))
    errors = {Path(row["file"]).name: row["error"] for row in rows if row["error"]}
    assert list(errors) == bad
    assert "truncated" in errors["cut.png"]
    assert "not an image" in errors["text.png"]
    assert "empty" in errors["empty.png"]
    assert "no regular file" in errors["fifo.png"]
    assert "no such file" in errors["missing.png"]
    failed = rows[1]
    assert (failed["label"], failed["score"], failed["matches"]) == (None, None, [])
    assert [row["label"] for row in rows if not row["error"]] == ["red", "green", "blue"]


def test_an_image_larger_than_allowed_is_refused(tmp_path):
    path = tmp_path / "huge.png"
    from PIL import Image

    Image.new("1", (101, 100)).save(path)
    (row,) = rows_of(run([str(path)]))
    assert "101 x 100" in row["error"]


def test_a_file_beyond_all_measure_is_not_read(tmp_path):
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(300 << 20)
    with pytest.raises(ItemError, match="314,572,800 bytes"):
        read_bytes(str(path))


def test_copies_are_encoded_once(tmp_path):
    encoder = ColourEncoder()
    originals = drawings(tmp_path, 10)
    for at in range(40):
        (tmp_path / f"copy{at}.png").write_bytes(drawing(at % 10))
    paths = [*originals, *(str(tmp_path / f"copy{at}.png") for at in range(40))]
    results = run(paths, classifier(encoder), size=8)
    assert sum(encoder.batches) == 10
    assert sum(result.duplicates for result in results) == 40
    rows = rows_of(results)
    assert [row["file"] for row in rows] == paths
    assert rows[10]["matches"] == rows[0]["matches"]


def test_memory_for_contents_is_bounded():
    seen = MemoryCache(kept=2)
    assert [seen.claim(key)[1] for key in (b"a", b"b", b"a", b"c", b"b", b"a")] == [
        True,
        True,
        False,
        True,
        False,
        True,
    ]


def test_contents_on_disk_outlive_the_process(tmp_path):
    encoder = ColourEncoder()
    paths = drawings(tmp_path / "in", 20)
    made = classifier(encoder, embeddings=True)
    seen = DiskCache(tmp_path / "seen")
    first = run(paths, made, seen=seen)
    seen.close()
    seen = DiskCache(tmp_path / "seen")
    second = run(paths, made, seen=seen)
    seen.close()
    assert sum(encoder.batches) == 20
    assert rows_of(second) == rows_of(first)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.vectors, other.vectors)


def test_embeddings_are_there_if_asked_for(tmp_path):
    paths = drawings(tmp_path, 3)
    (tmp_path / "bad.png").write_bytes(b"x")
    (result,) = run([*paths, str(tmp_path / "bad.png")], classifier(embeddings=True))
    assert result.vectors.shape == (4, 16)
    assert result.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(result.vectors[:3], axis=1), 1, atol=1e-6)
    assert np.isnan(result.vectors[3]).all()
    (result,) = run(paths)
    assert result.vectors is None


def test_rows_do_not_depend_on_timing_or_threads(tmp_path):
    """Where vectors depend on the batch, only the same batches give the same rows."""
    paths = drawings(tmp_path, 200)
    for at in range(0, 200, 7):
        (tmp_path / f"{at:05}.png").write_bytes(drawing(at // 20))
    (tmp_path / "00011.png").write_bytes(b"no image")
    made = classifier(MoodyEncoder())
    expected = rows_of(run(paths, made, size=64, readers=1))
    for readers in (2, 8):
        assert rows_of(run(paths, made, size=64, readers=readers)) == expected


def test_a_block_alone_has_the_rows_of_the_engine(tmp_path):
    paths = drawings(tmp_path, 100)
    made = classifier(MoodyEncoder(), embeddings=True)
    results = run(paths, made, size=64)
    for block, expected in zip(blocks(items(paths), size=64), results, strict=True):
        prepared = [made.prepare(item) for item in block.items]
        result = answer_block(made, block.number, prepared)
        assert result.rows == expected.rows
        np.testing.assert_array_equal(result.vectors, expected.vectors)


def test_stages_can_be_sent_to_other_processes(tmp_path):
    (block,) = blocks(items(drawings(tmp_path, 2)))
    encoder = ColourEncoder()
    prepared = prepare(
        block.items[0], preprocess=encoder.preprocess, image_size=(SIZE, SIZE), max_pixels=1000
    )
    result = run(drawings(tmp_path, 2))[0]
    again = pickle.loads(pickle.dumps((block, prepared, result)))
    assert again[0] == block
    np.testing.assert_array_equal(again[1].pixels, prepared.pixels)
    assert isinstance(again[2], BlockResult)
    assert again[2].rows == result.rows


def test_unordered_gives_every_row_once_and_does_not_wait_for_the_slow(tmp_path):
    paths = drawings(tmp_path, 200)
    slow = tmp_path / "00000.png"
    slow.unlink()
    os.mkfifo(slow)
    made = classifier()
    ready = threading.Event()
    plain = made.prepare

    def prepare_slowly(item):
        if item.name == paths[0]:
            assert ready.wait(30)
        return plain(item)

    made.prepare = prepare_slowly
    seen = []
    engine = LocalEngine(made, MemoryCache(), ordered=False, readers=2)
    for result in engine.results(blocks(items(paths), size=8)):
        seen.append(result.number)
        ready.set()  # only now the first image can be had
    assert sorted(seen) == list(range(25))
    assert seen[0] != 0


def test_only_a_window_of_images_is_begun(tmp_path):
    """Whatever the number of images: no more are prepared than the encoder may soon want."""
    paths = drawings(tmp_path, 1) * 5000
    begun = 0
    most_ahead = 0
    made = classifier()
    plain = made.prepare

    def counted(item):
        nonlocal begun
        begun += 1
        return plain(item)

    made.prepare = counted
    engine = LocalEngine(made, MemoryCache(), readers=2)
    done = 0
    for result in engine.results(blocks(items(paths), size=32)):
        most_ahead = max(most_ahead, begun - done)
        done += len(result.rows)
    assert done == 5000
    assert most_ahead <= 2 * 32 + 2 + 4 * 32


def test_a_policy_that_cannot_be_applied_is_told_before_anything_is_read():
    with pytest.raises(PolicyError, match="calibrated"):
        classifier(policy=Policy(precision=0.9))


def test_unknown_images_have_no_label(tmp_path):
    (row,) = rows_of(run(drawings(tmp_path, 1), classifier(policy=Policy(min_probability=1.0))))
    assert row["unknown"] is True
    assert row["label"] is None
    assert row["matches"][0]["label"] == "red"
    assert row["score"] == row["matches"][0]["score"]


def test_a_bug_is_no_row(tmp_path):
    encoder = ColourEncoder()
    made = classifier(encoder)

    def fail(_):
        raise RuntimeError("the encoder is broken")

    encoder.on_batch = fail
    with pytest.raises(RuntimeError, match="broken"):
        run(drawings(tmp_path, 3), made)


@pytest.mark.parametrize("ordered", [True, False])
def test_ahead_keeps_its_window(ordered):
    running = []

    def work(value):
        running.append(value)
        time.sleep(0.001)
        return value

    with ThreadPoolExecutor(4) as pool:
        got = []
        for value in ahead(work, range(100), pool=pool, window=5, ordered=ordered):
            got.append(value)
            assert len(running) <= len(got) + 4
    assert sorted(got) == list(range(100))
    assert not ordered or got == list(range(100))
