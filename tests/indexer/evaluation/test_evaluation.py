from __future__ import annotations

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from indexer import (
    Category,
    CategoryIndex,
    ImageFolderError,
    calibrate,
    embed_images,
    evaluate,
    read_labelled_images,
)
from indexer.evaluation.labelled_images import EmbeddedImages
from tests.indexer.clustered import unit
from tests.indexer.fakes import HashEncoder

LABELS = [f"label {n}" for n in range(80)]


def noisy(encoder, labels, *, step, seed=0):
    """Images whose vectors lie near their label's."""
    chance = np.random.default_rng(seed)
    vectors = encoder.encode_texts(labels)
    vectors = unit(vectors + step * chance.standard_normal(vectors.shape))
    paths = tuple(f"{n}.png" for n in range(len(labels)))
    return EmbeddedImages(None, paths, tuple(labels), vectors, ())


@pytest.fixture
def encoder():
    return HashEncoder(logit_scale=5.0)


@pytest.fixture
def index(encoder):
    return CategoryIndex.build(LABELS, encoder, templates="plain")


def test_what_is_right_and_what_is_wrong(encoder, index):
    images = EmbeddedImages(
        None,
        ("a.png", "b.png", "c.png"),
        ("label 0", "label 1", "label 1"),
        encoder.encode_texts(["label 0", "label 1", "label 2"]),
        (),
    )
    result = evaluate(index, images)
    assert result.top1 == pytest.approx(2 / 3)
    by_label = {one.label: one for one in result.classes}
    assert (by_label["label 1"].recall, by_label["label 1"].precision) == (0.5, 1.0)
    assert [(c.label, c.answer, c.images) for c in result.confusions] == [("label 1", "label 2", 1)]
    assert [(m.path, m.label, m.answer) for m in result.mistakes] == [
        ("c.png", "label 1", "label 2")
    ]


def test_labels_that_the_index_lacks_are_named(encoder, index):
    images = noisy(encoder, ["label 1", "zebra"], step=0)
    with pytest.raises(ImageFolderError, match="no category 'zebra'"):
        evaluate(index, images)


def test_images_of_nothing_are_right_when_background_wins(encoder):
    index = CategoryIndex.build(
        ["cat", Category("wall", background=True)], encoder, templates="plain"
    )
    images = EmbeddedImages(
        None,
        ("a.png", "b.png"),
        ("unknown", "unknown"),
        encoder.encode_texts(["wall", "cat"]),
        (),
    )
    assert [mistake.path for mistake in evaluate(index, images).mistakes] == ["b.png"]


@pytest.mark.parametrize("bias", [None, -2.0])
def test_a_calibration_makes_probabilities_honest(bias):
    encoder = HashEncoder(logit_scale=5.0, logit_bias=bias)
    index = CategoryIndex.build(LABELS, encoder, templates="plain")
    outcome = calibrate(index, noisy(encoder, LABELS * 12, step=0.22))
    fitted = outcome.calibration
    assert fitted.images == 480
    assert outcome.after.top1 == outcome.before.top1
    assert (fitted.ece_before, fitted.ece_after) == (outcome.before.ece, outcome.after.ece)
    if bias is None:
        assert fitted.temperature < 1  # a scale of 5 is far too modest for these vectors
        assert outcome.after.ece < outcome.before.ece / 2
    else:
        assert fitted.temperature == 1


def test_thresholds_hold_on_images_that_were_not_fitted_to(encoder, index):
    outcome = calibrate(index, noisy(encoder, LABELS * 12, step=0.3))
    least = {t.precision: t.min_probability for t in outcome.calibration.thresholds}[0.9]
    calibrated = index.calibrated(outcome.calibration)
    fresh = noisy(encoder, LABELS * 6, step=0.3, seed=9)
    answered = [
        (line[0].label == label)
        for line, label in zip(calibrated.search(fresh.vectors, 1), fresh.labels, strict=True)
        if line[0].probability >= least
    ]
    assert len(answered) > 50
    assert np.mean(answered) > 0.85


def test_a_calibration_is_kept_with_the_index(encoder, index, tmp_path):
    outcome = calibrate(index, noisy(encoder, LABELS * 2, step=0.2))
    index.calibrated(outcome.calibration).save(tmp_path / "index")
    loaded = CategoryIndex.load(tmp_path / "index")
    assert loaded.manifest.calibration == outcome.calibration


def test_too_few_images_for_a_calibration(encoder, index):
    with pytest.raises(ImageFolderError, match="at least 40 images, not 39"):
        calibrate(index, noisy(encoder, LABELS[:39], step=0.1))


def picture(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)


def test_a_folder_with_one_subfolder_a_label(tmp_path, encoder):
    picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "dog" / "deep" / "2.png", "blue")
    (tmp_path / "dog" / "bad.png").write_bytes(b"no image")
    images = read_labelled_images(tmp_path)
    assert dict(zip(images.paths, images.labels, strict=True)) == {
        "cat/1.png": "cat",
        "dog/bad.png": "dog",
        "dog/deep/2.png": "dog",
    }
    embedded = embed_images(images, encoder)
    assert embedded.labels == ("cat", "dog")
    assert embedded.vectors.shape == (2, encoder.dim)
    assert [skipped.path for skipped in embedded.skipped] == ["dog/bad.png"]


def test_lists_in_csv_and_parquet(tmp_path):
    picture(tmp_path / "a.png")
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label"], ["a.png", "a, b"]])
    pq.write_table(pa.table({"path": ["a.png"], "label": ["a, b"]}), tmp_path / "list.parquet")
    for name in ("list.csv", "list.parquet"):
        images = read_labelled_images(tmp_path / name)
        assert (images.root, images.paths, images.labels) == (tmp_path, ("a.png",), ("a, b",))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "file,label\na,b\n", "columns 'path' and 'label'"),
        ("a.csv", "path,label\n", "lists no images"),
        ("a.csv", "path,label\na.png,\n", "is empty"),
        ("a.txt", "", "neither a folder"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ImageFolderError, match=says):
        read_labelled_images(tmp_path / name)


def test_loose_images_have_no_label(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(ImageFolderError, match="lies in no subfolder"):
        read_labelled_images(tmp_path)
