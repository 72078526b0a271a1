from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from models.images import decode_image
from tests.training.samples import FakeEncoder, features, write_folder
from training import ImageFolder, Samples, Views, encode, pixels
from training.data import (
    balanced_order,
    class_weights,
    folds,
    near_groups,
    split,
    thumbnail,
    zero_shot,
)
from training.data.folder import read_image
from training.errors import DataError


def picture(seed: int, edge: int = 48) -> Image.Image:
    dice = np.random.default_rng(seed)
    coarse = dice.integers(0, 256, size=(6, 6, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((edge, edge), Image.Resampling.BICUBIC)


class TestNearDuplicates:
    def test_the_same_picture_in_other_clothes_is_found(self) -> None:
        base = picture(0)
        jpeg = io.BytesIO()
        base.save(jpeg, "JPEG", quality=60)
        variants = [
            base,
            Image.open(jpeg).convert("RGB"),
            base.resize((30, 30)),
            ImageEnhance.Brightness(base).enhance(0.85),
            base.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        ]
        groups = near_groups(np.stack([thumbnail(image) for image in variants]))
        assert len(set(groups.tolist())) == 1

    def test_other_pictures_are_not(self) -> None:
        thumbnails = np.stack([thumbnail(picture(seed)) for seed in range(60)])
        assert len(set(near_groups(thumbnails).tolist())) == 60

    def test_chains_join(self) -> None:
        t = thumbnail(picture(0))
        other = thumbnail(picture(1))
        steps = np.stack([t + share * 0.08 * (other - t) for share in range(4)]).astype(np.float32)
        assert len(set(near_groups(steps).tolist())) == 1


class TestSplit:
    def test_groups_never_cross_and_shares_hold(self) -> None:
        labels = np.repeat([0, 1, 2], [50, 30, 20]).tolist()
        groups = [i // 2 for i in range(100)]  # pairs of duplicates
        train, val = split(labels, groups, "abc", share=0.2, seed=0)
        assert sorted(train + val) == list(range(100))
        assert not {groups[i] for i in train} & {groups[i] for i in val}
        taken = np.bincount([labels[i] for i in val])
        assert taken.tolist() == [10, 6, 4]
        assert split(labels, groups, "abc", share=0.2, seed=0) == (train, val)
        assert split(labels, groups, "abc", share=0.2, seed=1) != (train, val)

    def test_every_class_is_on_both_sides(self) -> None:
        labels, groups = [0, 0, 1, 1, 1], [0, 1, 2, 3, 4]
        train, val = split(labels, groups, "ab", share=0.01, seed=0)
        assert {labels[i] for i in train} == {labels[i] for i in val} == {0, 1}
        train, val = split(labels, groups, "ab", share=0.99, seed=0)
        assert {labels[i] for i in train} == {labels[i] for i in val} == {0, 1}

    def test_all_impossible_classes_are_named(self) -> None:
        with pytest.raises(DataError, match=r"b \(one image\), c \(3 images, all near-dup.*d \(no"):
            split([0, 0, 1, 2, 2, 2], [0, 1, 2, 3, 3, 3], "abcd", share=0.2, seed=0)

    def test_folds_are_stratified_and_keep_groups(self) -> None:
        labels = np.repeat([0, 1], [12, 8])
        groups = np.arange(20) // 2
        pairs = folds(labels, groups, count=4, seed=0)
        assert len(pairs) == 4
        seen: list[int] = []
        for train, held_out in pairs:
            assert not set(groups[train]) & set(groups[held_out])
            assert set(labels[train]) == {0, 1}
            seen += held_out.tolist()
        assert sorted(seen) == list(range(20))
        assert len(folds(np.array([0, 0, 1, 1, 1]), None, count=5, seed=0)) == 2
        with pytest.raises(DataError, match="at least 2"):
            folds(np.array([0, 1, 1]), None, count=5, seed=0)


class TestImbalance:
    def test_weights_and_balanced_drawing(self) -> None:
        labels = torch.tensor([0] * 90 + [1] * 10)
        weights = class_weights(labels, 2)
        assert weights.tolist() == pytest.approx([100 / 180, 5.0])
        assert float(weights[labels].mean()) == pytest.approx(1.0)
        assert class_weights(labels, 3)[2] == 0
        rows = balanced_order(labels.repeat(20), 2, torch.Generator().manual_seed(0))
        share = float((labels.repeat(20)[rows] == 1).float().mean())
        assert share == pytest.approx(0.5, abs=4 * 0.5 / len(rows) ** 0.5)


class TestImageFolder:
    def test_reads_splits_and_repeats_itself(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "shots", {"cat": 10, "dog": 5})
        data = ImageFolder(root, val=0.2, seed=0)
        assert data.classes == ("cat", "dog")
        assert (len(data.train), len(data.val)) == (12, 3)
        assert ImageFolder(root, seed=0).val == data.val
        assert {image.path for image in data.train} | {image.path for image in data.val} == set(
            root.glob("*/*.png")
        )
        whole = ImageFolder(root, val=0.0)
        assert (len(whole.train), len(whole.val)) == (15, 0)

    def test_copies_are_dropped_and_near_copies_stay_together(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "shots", {"cat": 8, "dog": 8})
        first = picture(99)
        first.save(root / "cat" / "0.png")
        first.save(root / "cat" / "copy.bmp")
        first.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "cat" / "mirror.png")
        first.resize((40, 40)).save(root / "cat" / "larger.png")
        for seed in range(8):
            data = ImageFolder(root, val=0.4, seed=seed)
            assert [path.name for path in data.dropped] == ["copy.bmp"]
            sides = [
                {image.path.name for image in side if image.path.parent.name == "cat"}
                for side in (data.train, data.val)
            ]
            family = {"0.png", "mirror.png", "larger.png"}
            assert family <= sides[0] or family <= sides[1]

    def test_a_validation_folder_of_its_own(self, tmp_path: Path) -> None:
        train = write_folder(tmp_path / "train", {"cat": 6, "dog": 1})
        val = write_folder(tmp_path / "val", {"cat": 3, "dog": 3}, seed=5)
        shared = Image.open(val / "cat" / "0.png")
        shared.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(train / "cat" / "leak.png")
        data = ImageFolder(train, val=val)
        assert len(data.val) == 6
        assert [path.name for path in data.dropped] == ["leak.png"]
        assert len(data.train) == 7
        (val / "cow").mkdir()
        with pytest.raises(DataError, match="cow"):
            ImageFolder(train, val=val)

    def test_a_class_with_one_image(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "shots", {"cat": 4, "dog": 1})
        with pytest.raises(DataError, match=r"dog \(one image\)"):
            ImageFolder(root)

    def test_unreadable_files_are_listed_and_skipped_on_demand(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "shots", {"cat": 4, "dog": 4})
        (root / "cat" / "broken.jpg").write_bytes(b"no image")
        whole = (root / "dog" / "0.png").read_bytes()
        (root / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
        (root / "dog" / "notes.txt").write_text("hello")
        (root / "dog" / ".hidden").write_text("ignored")
        with pytest.raises(DataError, match="--skip-bad") as caught:
            ImageFolder(root)
        for name in ("broken.jpg", "cut.png", "notes.txt"):
            assert name in str(caught.value)
        data = ImageFolder(root, skip_bad=True)
        assert [path.name for path, _ in data.skipped] == ["broken.jpg", "cut.png", "notes.txt"]
        assert len(data.train) + len(data.val) == 8

    def test_sixteen_bits_are_read_as_the_service_reads_them(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path, {"cat": 3, "dog": 3})
        grey = np.arange(0, 65536, 257 * 4, dtype=np.uint16).reshape(8, 8)
        Image.fromarray(grey).save(folder / "cat" / "deep.png")
        read = read_image(folder / "cat" / "deep.png")
        served = decode_image((folder / "cat" / "deep.png").read_bytes())
        assert np.array_equal(np.asarray(read), np.asarray(served))
        assert len(np.unique(np.asarray(read))) == 64  # convert("RGB") made 63 of them white
        encoder = FakeEncoder()
        assert np.array_equal(encoder.encode_images([read]), encoder.encode_images([served]))

    def test_what_can_be_classified_can_be_taught(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path, {"cat": 3, "dog": 3})
        picture(5).save(folder / "cat" / "photo.ppm")
        picture(6).save(folder / "dog" / "photo.JFIF", "JPEG")
        read = {image.path.name for image in ImageFolder(folder, val=0).train}
        assert {"photo.ppm", "photo.JFIF"} <= read

    def test_postscript_called_png_is_refused_by_name(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path, {"cat": 3, "dog": 3})
        (folder / "cat" / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
        with pytest.raises(DataError, match=r"cat/x\.png \(images in EPS.* are not accepted"):
            ImageFolder(folder)

    def test_one_picture_under_two_labels(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "shots", {"cat": 4, "dog": 4})
        (root / "dog" / "same.png").write_bytes((root / "cat" / "1.png").read_bytes())
        with pytest.raises(DataError, match=r"two labels: cat/1\.png = dog/same\.png"):
            ImageFolder(root)

    def test_labels_that_differ_by_case_or_blanks(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "shots", {"red fox": 2, "Red  Fox": 2, "dog": 2})
        with pytest.raises(DataError, match="case or blanks"):
            ImageFolder(root)

    def test_folders_that_are_none(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no folder"):
            ImageFolder(tmp_path / "nowhere")
        with pytest.raises(DataError, match="at least two class folders, found 0"):
            ImageFolder(tmp_path)
        root = write_folder(tmp_path / "shots", {"cat": 3, "dog": 3})
        (root / "cow").mkdir()
        for val in (0.2, 0.0):
            with pytest.raises(DataError, match="cow"):
                ImageFolder(root, val=val)
        with pytest.raises(DataError, match="below 1"):
            ImageFolder(write_folder(tmp_path / "b", {"x": 2, "y": 2}), val=1.0)


class TestEncode:
    def test_shapes_views_and_text(self, tmp_path: Path) -> None:
        folder = ImageFolder(write_folder(tmp_path / "shots", {"cat": 5, "dog": 5}))
        data = encode(FakeEncoder(), folder, views=4, cache=None)
        assert data.train.inputs.shape == (8, 4, 48)
        assert data.val.inputs.shape == (2, 1, 48)
        assert data.classes == ("cat", "dog")
        assert torch.allclose(data.train.inputs.norm(dim=2), torch.ones(()), atol=1e-5)
        plain = encode(FakeEncoder(), folder, cache=None)
        assert torch.equal(data.train.first_views(), plain.train.first_views())
        assert not torch.equal(data.train.inputs[:, 1], data.train.inputs[:, 0])
        again = encode(FakeEncoder(), folder, views=4, cache=None)
        assert again.digest == data.digest
        other = encode(FakeEncoder(), folder, views=Views(count=4, seed=1), cache=None)
        assert not torch.equal(other.train.inputs[:, 1], data.train.inputs[:, 1])
        assert data.zero_shot is not None
        assert data.zero_shot.prompts == (("cat",), ("dog",))

    def test_cached_by_fingerprint_pictures_and_views(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "shots", {"cat": 5, "dog": 5})
        folder, cache = ImageFolder(root), tmp_path / "cache"
        first = FakeEncoder()
        data = encode(first, folder, views=2, cache=cache)
        assert first.encoded > 0
        second = FakeEncoder()
        assert encode(second, folder, views=2, cache=cache).digest == data.digest
        assert second.encoded == 0
        for changed in (
            lambda e: encode(e, folder, views=3, cache=cache),
            lambda e: encode(e, ImageFolder(root, seed=3), views=2, cache=cache),
        ):
            encoder = FakeEncoder()
            changed(encoder)
            assert encoder.encoded > 0
        stranger = FakeEncoder("fake-2")
        encode(stranger, folder, views=2, cache=cache)
        assert stranger.encoded > 0
        for file in cache.iterdir():
            file.write_bytes(b"broken")
        with pytest.raises(DataError, match="damaged"):
            encode(FakeEncoder(), folder, views=2, cache=cache)

    def test_progress_and_unwritable_cache(self, tmp_path: Path) -> None:
        folder = ImageFolder(write_folder(tmp_path / "shots", {"cat": 5, "dog": 5}))
        seen: list[tuple[int, int]] = []
        encode(FakeEncoder(), folder, cache=None, on_progress=lambda *now: seen.append(now))
        assert seen[-1] == (10, 10)
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match="cache=None"):
            encode(FakeEncoder(), folder, cache=tmp_path / "file")
        with pytest.raises(DataError, match="views"):
            encode(FakeEncoder(), folder, views=0, cache=None)

    def test_text_vectors_are_the_mean_of_the_prompts(self) -> None:
        encoder = FakeEncoder()
        found = zero_shot(
            encoder, ["cat", "dog"], templates=["a {}", "one {}"], prompts={"dog": ["a good boy"]}
        )
        vectors = encoder.encode_texts(["a cat", "one cat", "a good boy"])
        mean = vectors[:2].mean(axis=0)
        assert np.allclose(found.text[0], mean / np.linalg.norm(mean), atol=1e-6)
        assert np.allclose(found.text[1], vectors[2], atol=1e-6)
        with pytest.raises(DataError, match="prompt"):
            zero_shot(encoder, ["cat", "dog"], templates=[])


def test_pixels(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "shots", {"cat": 5, "dog": 5})
    Image.new("L", (50, 20), 128).save(root / "cat" / "grey.png")
    data = pixels(ImageFolder(root), size=16)
    assert data.train.inputs.shape[1:] == (3, 16, 16)
    assert data.has_images
    assert 0 <= float(data.train.inputs.min()) <= float(data.train.inputs.max()) <= 1


class TestDataset:
    def test_folds_of_the_support_set(self) -> None:
        data = features(shots=4, views=3)
        fold = data.fold([0, 1, 4, 8, 12], [2, 3])
        assert fold.train.inputs.shape == (5, 3, 16)
        assert fold.val.inputs.shape == (2, 1, 16)
        assert torch.equal(fold.val.labels, data.train.labels[[2, 3]])

    def test_counts_views_and_digest(self) -> None:
        data = features(shots=4, views=3)
        assert data.counts == [4] * 4
        assert data.only_train([0, 1, 4, 5, 6, 8, 12]).shots == 1
        rows, labels = data.train.all_views()
        assert rows.shape == (48, 16)
        assert labels.tolist() == [c for c in range(4) for _ in range(12)]
        assert data.digest == features(shots=4, views=3).digest
        assert data.digest != features(seed=1, shots=4, views=3).digest

    def test_mistakes(self) -> None:
        data = features()
        with pytest.raises(DataError, match="2 classes"):
            type(data)(data.train, data.val, ("one",))
        bad = Samples(data.val.inputs, data.val.labels + 1)
        with pytest.raises(DataError, match=r"0\.\.3"):
            type(data)(data.train, bad, data.classes)
