"""Backends agree with the reference or don't serve; what is cached is checked; torch stays away."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from models import BackendError, Encoder, UserError, load_encoder
from models.image.backends import Candidate, find_candidates, precision_class
from models.image.parity import (
    MIN_COSINE,
    min_cosine,
    read_reference,
    synthetic_images,
    write_reference,
)
from models.machine import cpu_has_bf16
from models.sources.cache import Cache
from tests.models.conftest import pictures

ROOT = Path(__file__).parents[3]
needs_bf16 = pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16 instructions")
needs_nncf = pytest.mark.skipif(find_spec("nncf") is None, reason="nncf is not installed")


def load(folder: Path, cache_dir: Path, backend: str = "auto", precision: str = "auto") -> Encoder:
    return load_encoder(
        f"local-dir:{folder}",
        backend=backend,
        device="cpu",
        precision=precision,
        cache_dir=cache_dir,
    )


def only(cache_dir: Path, pattern: str) -> Path:
    (folder,) = cache_dir.glob(f"models/*/{pattern}")
    return folder


WAYS = [
    ("openvino", "fp32"),
    pytest.param("openvino", "bf16", marks=needs_bf16),
    pytest.param("torch", "bf16", marks=needs_bf16),
    pytest.param("openvino", "int8", marks=needs_nncf),
]


@pytest.mark.parametrize("name", ["clip", "resnet", "timm", "siglip", "coca"])
def test_openvino_computes_what_torch_does(
    name: str, clip_dir: Callable[[str], Path], cache_dir: Path
) -> None:
    ours = load(clip_dir(name), cache_dir, "openvino", "fp32")
    reference = load(clip_dir(name), cache_dir, "torch", "fp32")
    assert (ours.backend, ours.precision) == ("openvino", "fp32")
    for count in (1, 5, 3, 37):  # one graph for every batch size, and more than a batch
        images = (pictures(6) * 7)[:count]
        got, wanted = ours.encode_images(images), reference.encode_images(images)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert ours.fingerprint == reference.fingerprint


@pytest.mark.parametrize(("backend", "precision"), WAYS)
def test_lower_precisions_stay_within_their_bound(
    backend: str, precision: str, clip_dir: Callable[[str], Path], cache_dir: Path
) -> None:
    ours = load(clip_dir("clip"), cache_dir, backend, precision)
    reference = load(clip_dir("clip"), cache_dir, "torch", "fp32")
    assert (ours.backend, ours.precision) == (backend, precision)
    vectors, wanted = ours.encode_images(pictures()), reference.encode_images(pictures())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert min_cosine(vectors, wanted) >= MIN_COSINE[precision]
    texts = ["a cat", "a much longer description of a dog"]
    assert min_cosine(ours.encode_texts(texts), reference.encode_texts(texts)) >= 0.999
    same_class = precision != "int8"
    assert (ours.fingerprint == reference.fingerprint) == same_class


def test_precision_classes() -> None:
    assert precision_class("fp32") == precision_class("bf16") == precision_class("fp16")
    assert precision_class("int8") != precision_class("fp32")


class TestCandidates:
    def test_auto_never_means_int8(self) -> None:
        found = find_candidates("auto", "cpu", "auto")
        assert Candidate("torch", "cpu", "fp32") in found
        assert Candidate("openvino", "cpu", "fp32") in found
        assert not any(c.precision == "int8" for c in found)

    def test_bf16_only_where_the_cpu_has_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("models.image.backends.cpu_has_bf16", lambda: False)
        assert {c.precision for c in find_candidates("auto", "cpu", "auto")} == {"fp32"}
        with pytest.raises(UserError, match="no bf16 instructions"):
            find_candidates("openvino", "cpu", "bf16")
        monkeypatch.setattr("models.image.backends.cpu_has_bf16", lambda: True)
        assert {c.precision for c in find_candidates("auto", "cpu", "auto")} == {"bf16", "fp32"}

    def test_int8_without_nncf(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("models.image.backends.find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"pip install .*\[int8\]"):
            find_candidates("auto", "cpu", "int8")


class TestGuard:
    def test_a_backend_that_computes_something_else_is_refused_and_the_next_taken(
        self,
        clip_dir: Callable[[str], Path],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The cache holds a graph that is sound, but another model's."""
        load(clip_dir("clip"), tmp_path / "one", "openvino", "fp32")
        load(clip_dir("quick-gelu"), tmp_path / "two", "openvino", "fp32")
        ours, others = only(tmp_path / "one", "openvino-*"), only(tmp_path / "two", "openvino-*")
        # Two random models that differ in their activation alone are close; this one is far off.
        graph = (others / "image.bin").read_bytes()
        weights = np.frombuffer(graph[: len(graph) // 4 * 4], np.float32)

        def fake(folder: Path) -> None:
            (folder / "image.xml").write_bytes((others / "image.xml").read_bytes())
            (folder / "image.bin").write_bytes(np.roll(weights, 64).tobytes())

        Cache(tmp_path / "one").build_folder(str(ours.relative_to(tmp_path / "one")), fake)
        with caplog.at_level(logging.WARNING):
            encoder = load(clip_dir("clip"), tmp_path / "one", "auto", "fp32")
        assert encoder.backend == "torch"
        assert "refused: openvino on cpu in fp32" in caplog.text
        with pytest.raises(BackendError, match="none of openvino on cpu in fp32"):
            load(clip_dir("clip"), tmp_path / "one", "openvino", "fp32")

    def test_texts_are_guarded_too(self, clip_dir: Callable[[str], Path], tmp_path: Path) -> None:
        load(clip_dir("clip"), tmp_path, "torch", "fp32")
        folder = only(tmp_path, "reference-*")
        reference = read_reference(folder)
        wrong = replace(reference, text_vectors=np.roll(reference.text_vectors, 1, axis=0))
        Cache(tmp_path).build_folder(
            str(folder.relative_to(tmp_path)), lambda new: write_reference(wrong, new)
        )
        encoder = load(clip_dir("clip"), tmp_path, "torch", "fp32")
        with pytest.raises(BackendError, match="other text vectors"):
            encoder.encode_texts(["a cat"])

    def test_not_a_number_never_passes(self) -> None:
        vectors = np.eye(3, dtype=np.float32)
        assert min_cosine(vectors, vectors) == 1.0
        assert min_cosine(np.full_like(vectors, np.nan), vectors) == -1.0


class TestCache:
    def test_the_choice_is_measured_once(
        self, clip_dir: Callable[[str], Path], tmp_path: Path
    ) -> None:
        first = load(clip_dir("clip"), tmp_path)
        (speed,) = tmp_path.glob("models/*/speed-*.json")
        record = json.loads(speed.read_text())
        assert str(Candidate(first.backend, "cpu", first.precision)) == min(
            record["seconds"], key=record["seconds"].get
        )
        record["seconds"] = dict.fromkeys(record["seconds"], 1.0)
        record["seconds"]["torch on cpu in fp32"] = 0.5
        speed.write_text(json.dumps(record))
        again = load(clip_dir("clip"), tmp_path)
        assert (again.backend, again.precision) == ("torch", "fp32")

    @pytest.mark.parametrize("damage", ["flip a bit", "cut it", "delete it", "forget the manifest"])
    def test_what_is_damaged_is_made_again(
        self,
        damage: str,
        clip_dir: Callable[[str], Path],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        wanted = load(clip_dir("clip"), tmp_path, "openvino", "fp32").encode_images(pictures())
        folder = only(tmp_path, "openvino-*")
        file = folder / "image.bin"
        data = bytearray(file.read_bytes())
        if damage == "flip a bit":
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
        elif damage == "cut it":
            file.write_bytes(data[:-100])
        elif damage == "delete it":
            file.unlink()
        else:
            (folder / "files.json").unlink()
        encoder = load(clip_dir("clip"), tmp_path, "openvino", "fp32")
        assert "is damaged and will be made again" in caplog.text
        np.testing.assert_allclose(encoder.encode_images(pictures()), wanted, atol=1e-6)
        assert Cache(tmp_path).find_folder(str(folder.relative_to(tmp_path))) == folder

    def test_what_another_version_made_is_replaced(
        self, clip_dir: Callable[[str], Path], tmp_path: Path
    ) -> None:
        load(clip_dir("clip"), tmp_path, "openvino", "fp32")
        folder = only(tmp_path, "openvino-*")
        folder.rename(folder.with_name("openvino-1.2.3-4.5.6-7.8.9-1"))
        load(clip_dir("clip"), tmp_path, "openvino", "fp32")
        assert only(tmp_path, "openvino-*") == folder

    def test_a_failed_build_leaves_nothing(self, tmp_path: Path) -> None:
        def build(folder: Path) -> None:
            (folder / "half").write_text("written")
            raise RuntimeError("the disk is full")

        with pytest.raises(RuntimeError):
            Cache(tmp_path).build_folder("models/x/thing", build)
        assert list((tmp_path / "models/x").iterdir()) == []

    def test_many_may_build_the_same(self, tmp_path: Path) -> None:
        def build(folder: Path) -> None:
            (folder / "file").write_bytes(b"the same for all")

        threads = [
            threading.Thread(target=Cache(tmp_path).build_folder, args=("models/thing", build))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Cache(tmp_path).find_folder("models/thing") is not None
        assert [path.name for path in (tmp_path / "models").iterdir()] == ["thing"]

    def test_a_digest_is_remembered_until_the_file_changes(self, tmp_path: Path) -> None:
        file = tmp_path / "weights"
        file.write_bytes(b"one")
        cache = Cache(tmp_path / "cache")
        first = cache.digest(file)
        (record,) = (tmp_path / "cache/digests").iterdir()
        record.write_text(record.read_text().replace(first, "f" * 64))
        assert cache.digest(file) == "f" * 64
        file.write_bytes(b"two, and longer")
        assert cache.digest(file) not in (first, "f" * 64)

    def test_a_cache_that_cannot_be_written_is_replaced_with_a_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        cache = Cache(tmp_path / "file" / "cache")
        assert "cannot be written" in caplog.text
        assert cache.root.is_dir()


def test_synthetic_images_are_the_same_everywhere_and_differ() -> None:
    one, two = synthetic_images(8, seed=1), synthetic_images(8, seed=1)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))
    assert len({image.tobytes() for image in one + synthetic_images(8, seed=2)}) == 16


def test_classifying_from_a_warm_cache_imports_neither_torch_nor_open_clip(
    clip_dir: Callable[[str], Path], tmp_path: Path
) -> None:
    """Pillow, NumPy, OpenVINO and FAISS do it all; text, when it comes, brings the rest."""
    encoder = load(clip_dir("clip"), tmp_path, "openvino", "fp32")
    np.save(tmp_path / "labels.npy", encoder.encode_texts(["a cat", "a dog", "a bird"]))
    pictures(1)[0].save(tmp_path / "image.png")
    code = f"""
        import sys
        from pathlib import Path
        import faiss, numpy as np
        from models import decode_image, load_encoder
        folder = Path({str(tmp_path)!r})
        encoder = load_encoder("local-dir:{clip_dir("clip")}", backend="openvino",
                               precision="fp32", cache_dir=folder)
        index = faiss.IndexFlatIP(encoder.dim)
        index.add(np.load(folder / "labels.npy"))
        image = decode_image((folder / "image.png").read_bytes(), target=encoder.image_size)
        scores, rows = index.search(encoder.encode_images([image]), 3)
        assert sorted(rows[0]) == [0, 1, 2] and encoder.fingerprint
        heavy = {{"torch", "torchvision", "open_clip", "timm", "transformers", "nncf",
                  "huggingface_hub", "openvino_telemetry"}}
        print(sorted(name for name in heavy if sys.modules.get(name)))
        encoder.encode_texts(["a cat"])
        import open_clip
        print(sorted({{"torch", "open_clip"}} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "['open_clip', 'torch']"]


def test_open_clip_imports_after_a_warm_load(
    clip_dir: Callable[[str], Path], cache_dir: Path
) -> None:
    """Even though that load declared nothing: the declaration waits for torchvision's import."""
    load(clip_dir("clip"), cache_dir, "openvino", "fp32")
    code = f"""
        import sys
        from models import load_encoder
        load_encoder("local-dir:{clip_dir("clip")}", backend="openvino", precision="fp32",
                     cache_dir={str(cache_dir)!r})
        assert "torch" not in sys.modules
        import importlib.util
        assert importlib.util.find_spec("torchvision").origin
        assert "torch" not in sys.modules
        import open_clip, torchvision
        print(type(torchvision.__spec__.loader).__name__)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "SourceFileLoader"
