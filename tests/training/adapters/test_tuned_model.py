"""Adapters that change the model: on disk, verified, exported, loaded by open_clip alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from models import Encoder, load_encoder
from models.openclip import import_open_clip
from models.sources.names import EMBEDDED_FOLDER
from storage.durable import sha256_of
from tests.training.samples import write_folder
from tests.training.tower.test_tower import quick
from training import Dataset, Recipe
from training.adapters.export import export_model
from training.adapters.manifest import read_manifest
from training.adapters.store import AdapterStore
from training.adapters.tuned_model import TunedModel
from training.errors import AdapterError, ExportError, FingerprintError, GateError
from training.finetune import HEAD_RECIPE, METHODS, Finetuned, Sources, finetune_folder
from training.heads import ProjectionHead


@pytest.fixture(scope="module")
def torch_encoder() -> Encoder:
    return load_encoder("everyday", backend="torch", precision="fp32")


@pytest.fixture(scope="module")
def data(torch_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    names = ("cat", "dog", "cow", "hen")
    root = write_folder(tmp_path_factory.mktemp("animals"), dict.fromkeys(names, 6))
    return Sources(root, val=0.34, views=2, cache=None).read(torch_encoder)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> AdapterStore:
    return AdapterStore(tmp_path_factory.mktemp("store"))


def finetune(
    encoder: Encoder, data: Dataset, store: AdapterStore, method: str, recipe: Recipe | None
) -> Finetuned:
    store.root.mkdir(exist_ok=True)
    report = store.root / f".{method}.html"
    return finetune_folder(
        encoder, data, store=store, name=method, method=method, recipe=recipe, report=report
    )


@pytest.fixture(scope="module")
def full(torch_encoder: Encoder, data: Dataset, store: AdapterStore) -> Finetuned:
    return finetune(torch_encoder, data, store, "full", quick("full"))


def test_the_folder_of_a_tuned_model(
    torch_encoder: Encoder, full: Finetuned, store: AdapterStore
) -> None:
    assert (full.changes, full.method, full.version) == ("weights", "full", 1)
    folder = store.folder("full", 1)
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert names == {
        "MODEL_CARD.md",
        "golden.npz",
        "manifest.json",
        "metrics.json",
        "model/merges.txt.gz",
        "model/open_clip_config.json",
        "model/open_clip_model.safetensors",
        "plots/history.svg",
        "report.html",
    }
    manifest = read_manifest(folder)
    assert (manifest.changes, manifest.kind) == ("weights", "clip")
    assert manifest.fingerprint == torch_encoder.fingerprint
    assert manifest.why.startswith("full: ")
    assert manifest.split["train"] != manifest.split["val"]
    assert len(manifest.preprocess) == 64
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["retention"]["kind"] == "left-out classes"
    assert len(metrics["sweep"]) == 11
    assert "Against zero-shot" in (folder / "report.html").read_text()


def test_it_loads_as_a_model_of_its_own(
    torch_encoder: Encoder, full: Finetuned, data: Dataset, store: AdapterStore
) -> None:
    model = store.load("full", 1, fingerprint=torch_encoder.fingerprint)
    assert isinstance(model, TunedModel)
    tuned = load_encoder(model.model_id, backend="torch", precision="fp32")
    assert tuned.fingerprint != torch_encoder.fingerprint
    words = ["a cat", "a picture of a dog"]
    assert np.array_equal(tuned.encode_texts(words), torch_encoder.encode_texts(words))
    from training.data import read_image

    pictures = [read_image(Path(name)) for name in data.val.names]
    logits = tuned.encode_images(pictures) @ data.zero_shot.text.numpy().T
    top1 = float((logits.argmax(1) == data.val.labels.numpy()).mean())
    assert top1 == pytest.approx(full.metrics["tuned"]["top1"])


def test_open_clip_alone_loads_the_export(
    torch_encoder: Encoder, full: Finetuned, store: AdapterStore, tmp_path: Path
) -> None:
    folder = export_model(
        store, "full", 1, tmp_path / "model", fingerprint=torch_encoder.fingerprint
    )
    open_clip = import_open_clip()
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a cat"])
    own = load_encoder(f"local-dir:{folder}", backend="torch", precision="fp32")
    with torch.no_grad():
        text = model.eval().encode_text(tokens, normalize=True).numpy()
    assert np.allclose(text, own.encode_texts(["a cat"]), atol=1e-5)
    picture = EMBEDDED_FOLDER / "loss.png"
    from PIL import Image

    with Image.open(picture) as image:
        rgb = image.convert("RGB")
    with torch.no_grad():
        vector = model.encode_image(preprocess(rgb)[None], normalize=True).numpy()
    assert np.allclose(vector, own.encode_images([rgb]), atol=1e-5)
    assert (folder / "README.md").read_text().startswith("---\n")
    with pytest.raises(ExportError, match="in use"):
        export_model(store, "full", 1, folder, fingerprint=torch_encoder.fingerprint)


def test_damage_and_strangers_are_refused(
    torch_encoder: Encoder, full: Finetuned, store: AdapterStore, tmp_path: Path
) -> None:
    with pytest.raises(FingerprintError):
        store.load("full", 1, fingerprint="another")
    copy = AdapterStore(tmp_path)
    shutil.copytree(store.root / "full", tmp_path / "full")
    weights = copy.folder("full", 1) / "model" / "open_clip_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(AdapterError, match=r"open_clip_model\.safetensors has been changed"):
        copy.load("full", 1, fingerprint=torch_encoder.fingerprint)


def test_a_model_that_answers_otherwise_is_refused(
    torch_encoder: Encoder, full: Finetuned, store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.adapters import tuned_model

    real = tuned_model.scaled
    monkeypatch.setattr(tuned_model, "scaled", lambda pixels: 1 - real(pixels))
    with pytest.raises(AdapterError, match="doesn't reproduce"):
        store.load("full", 1, fingerprint=torch_encoder.fingerprint)


def test_a_gate_that_knows_no_retention_refuses(
    torch_encoder: Encoder, data: Dataset, store: AdapterStore
) -> None:
    few = data.among([0, 1, 2])
    done = finetune(torch_encoder, few, store, "lora", quick("lora", epochs=1))
    assert done.metrics["retention"]["kind"] == "unknown"
    assert any(failure.startswith("retention: ") for failure in done.metrics["gate"]["failures"])
    with pytest.raises(GateError, match="give a folder of other categories"):
        store.promote("lora", done.version, fingerprint=torch_encoder.fingerprint)
    store.promote("lora", done.version, fingerprint=torch_encoder.fingerprint, force=True)
    assert store.log("lora")[0]["forced_past"]


@pytest.mark.parametrize("method", METHODS)
def test_every_head_leaves_both_towers_to_the_bit(
    torch_encoder: Encoder, data: Dataset, store: AdapterStore, method: str
) -> None:
    weights = EMBEDDED_FOLDER / "open_clip_model.safetensors"
    digest = sha256_of(weights)
    from training.data import read_image

    pictures = [read_image(Path(name)) for name in data.val.names]
    images, texts = torch_encoder.encode_images(pictures), torch_encoder.encode_texts(["a cat"])
    recipe = HEAD_RECIPE.replace(method=METHODS[method], epochs=2)
    done = finetune(torch_encoder, data, store, method, recipe)
    assert (done.changes, done.method) == ("head", method)
    assert np.array_equal(torch_encoder.encode_images(pictures), images)
    assert np.array_equal(torch_encoder.encode_texts(["a cat"]), texts)
    assert sha256_of(weights) == digest
    adapter = store.load(method, done.version, fingerprint=torch_encoder.fingerprint)
    assert adapter.manifest.changes == "head"
    assert adapter.logits(images).shape == (len(pictures), 4)
    if method != "prolip":
        assert torch.equal(adapter.project(images), torch.from_numpy(images))
        with pytest.raises(ExportError, match="nothing to merge"):
            export_model(
                store, method, 1, store.root / "nowhere", fingerprint=torch_encoder.fingerprint
            )
    card = ModelCard((store.folder(method, 1) / "MODEL_CARD.md").read_text())
    assert card.data.eval_results[0].metric_value == round(done.metrics["tuned"]["top1"], 4)
    assert card.data.base_model == "everyday"


def test_prolip_folds_into_the_projection(
    torch_encoder: Encoder, data: Dataset, store: AdapterStore, tmp_path: Path
) -> None:
    recipe = HEAD_RECIPE.replace(method=METHODS["prolip"], epochs=5)
    done = finetune_folder(
        torch_encoder, data, store=store, name="folded", recipe=recipe, report=tmp_path / "r.html"
    )
    adapter = store.load("folded", done.version, fingerprint=torch_encoder.fingerprint)
    assert isinstance(adapter.head, ProjectionHead)
    assert done.metrics["retention"]["kind"] == "left-out classes"
    folder = export_model(
        store, "folded", 1, tmp_path / "model", fingerprint=torch_encoder.fingerprint
    )
    own = load_encoder(f"local-dir:{folder}", backend="torch", precision="fp32")
    from training.data import read_image

    pictures = [read_image(Path(name)) for name in data.val.names]
    moved = adapter.project(torch_encoder.encode_images(pictures)).numpy()
    assert not np.allclose(moved, torch_encoder.encode_images(pictures), atol=1e-3)
    assert np.allclose(own.encode_images(pictures), moved, atol=1e-5)
