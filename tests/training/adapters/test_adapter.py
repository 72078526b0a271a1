from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.samples import features, images
from training import GDA, MLP, AdamW, Dataset, LinearProbe, Recipe, Run, TextHead, TipAdapter, fit
from training.adapters.adapter import load_adapter
from training.adapters.export import export, measure
from training.adapters.manifest import read_manifest
from training.adapters.store import AdapterStore
from training.errors import (
    AdapterBusyError,
    AdapterError,
    FingerprintError,
    GateError,
    UnknownAdapterError,
)

GOOD = Recipe(method=TextHead(anchor=0.0), optimizer=AdamW(lr=2e-2), epochs=8, batch_size=16)
MODEL = "local-dir:/some/model"


def hard(seed: int = 0) -> Dataset:
    return features(seed, shots=16, val=60, noise=1.0, text_noise=3.0)


@pytest.fixture(scope="module")
def good() -> Run:
    run = fit(GOOD, hard())
    assert measure(run, hard())["gate"]["passed"]
    return run


@pytest.fixture(scope="module")
def bad() -> Run:
    """Trained on labels that are turned by one: worse than zero-shot."""
    data = hard()
    turned = type(data.train)(data.train.inputs, (data.train.labels + 1) % 4)
    return fit(GOOD, Dataset(turned, data.val, data.classes, data.zero_shot))


def publish(store: AdapterStore, run: Run, name: str = "pets") -> int:
    return store.publish(name, lambda folder: export(folder, run, hard(), base_model=MODEL))


@pytest.mark.parametrize(
    "method", [TextHead(), LinearProbe(), GDA(), TipAdapter(alpha=1.0, beta=3.0)], ids=repr
)
def test_every_head_comes_back_to_the_bit(method, tmp_path: Path) -> None:
    run = fit(GOOD.replace(method=method), hard())
    export(tmp_path, run, hard(), base_model=MODEL)
    adapter = load_adapter(tmp_path, fingerprint="fake")
    x = hard().val.first_views()
    assert torch.equal(adapter.logits(x.numpy()), run.logits(x))
    assert adapter.manifest.classes == hard().classes


def test_the_folder_holds_what_the_design_says(good: Run, tmp_path: Path) -> None:
    export(tmp_path, good, hard(), base_model=MODEL)
    names = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert names == {
        "weights.safetensors",
        "manifest.json",
        "metrics.json",
        "golden.npz",
        "MODEL_CARD.md",
        "plots/history.svg",
    }
    manifest = read_manifest(tmp_path)
    assert manifest.base_model == MODEL
    assert manifest.fingerprint == "fake"
    assert manifest.data == hard().digest
    assert manifest.recipe == {"Recipe": manifest.recipe["Recipe"]}
    assert set(manifest.files) == names - {"manifest.json"}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["tuned"]["top1"] > metrics["zero_shot"]["top1"]
    assert metrics["gain"]["lower"] > 0
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert card.startswith("---\nbase_model: ")
    assert "paired bootstrap over 240 held-out images" in card


def test_a_flipped_byte_in_any_file_is_refused(good: Run, tmp_path: Path) -> None:
    """Proof 10."""
    whole = tmp_path / "whole"
    whole.mkdir()
    export(whole, good, hard(), base_model=MODEL)
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    dice = np.random.default_rng(0)
    for file in files:
        size = (whole / file).stat().st_size
        for position in {0, size - 1, *dice.integers(0, size, 6).tolist()}:
            copy = tmp_path / "copy"
            shutil.copytree(whole, copy)
            content = bytearray((copy / file).read_bytes())
            content[position] ^= 0x01
            (copy / file).write_bytes(content)
            with pytest.raises((AdapterError, FingerprintError)):
                load_adapter(copy, fingerprint="fake")
            shutil.rmtree(copy)


def test_missing_and_additional_files_are_refused(good: Run, tmp_path: Path) -> None:
    export(tmp_path, good, hard(), base_model=MODEL)
    (tmp_path / "extra.txt").write_text("hello")
    with pytest.raises(AdapterError, match=r"extra\.txt"):
        load_adapter(tmp_path, fingerprint="fake")
    (tmp_path / "extra.txt").unlink()
    (tmp_path / "golden.npz").unlink()
    with pytest.raises(AdapterError, match=r"golden\.npz"):
        load_adapter(tmp_path, fingerprint="fake")
    with pytest.raises(AdapterError, match=r"manifest\.json"):
        load_adapter(tmp_path / "nowhere", fingerprint="fake")


def test_another_models_fingerprint_is_refused(good: Run, tmp_path: Path) -> None:
    """Proof 10."""
    store = AdapterStore(tmp_path)
    version = publish(store, good)
    with pytest.raises(FingerprintError, match="train it again"):
        store.load("pets", version, fingerprint="another")
    for force in (False, True):
        with pytest.raises(FingerprintError):
            store.promote("pets", version, fingerprint="another", force=force)
    assert store.current("pets") is None


def test_answers_that_are_not_reproduced_are_refused(
    good: Run, tmp_path: Path, monkeypatch
) -> None:
    export(tmp_path, good, hard(), base_model=MODEL)
    from training.heads import CosineHead

    real = CosineHead.forward
    monkeypatch.setattr(CosineHead, "forward", lambda self, x: real(self, x) + 0.01)
    with pytest.raises(AdapterError, match="doesn't reproduce"):
        load_adapter(tmp_path, fingerprint="fake")


def test_an_adapter_worse_than_zero_shot_can_not_be_promoted(bad: Run, tmp_path: Path) -> None:
    """Proof 10."""
    store = AdapterStore(tmp_path)
    version = publish(store, bad)
    with pytest.raises(GateError, match="gain: tuned - zero-shot is -"):
        store.promote("pets", version, fingerprint="fake")
    assert store.current("pets") is None
    assert store.log("pets") == []
    store.promote("pets", version, fingerprint="fake", force=True)
    assert store.current("pets") == version
    assert store.log("pets")[0]["forced_past"][0].startswith("gain")


def test_without_a_held_out_split_the_gate_judges_out_of_fold(good: Run, tmp_path: Path) -> None:
    data = hard()
    blind = Dataset(data.train, data.val.pick([]), data.classes, data.zero_shot)
    store = AdapterStore(tmp_path)
    store.publish("pets", lambda folder: export(folder, good, blind, base_model=MODEL))
    measured = store.load("pets", 1, fingerprint="fake").metrics
    assert measured["measured"] == "out of fold"
    assert "failures" in measured["gate"]


def test_with_one_image_a_class_and_none_held_out_nothing_becomes_current(
    good: Run, tmp_path: Path
) -> None:
    data = hard()
    first = [data.train.labels.tolist().index(label) for label in range(len(data.classes))]
    blind = Dataset(data.train.pick(first), data.val.pick([]), data.classes, data.zero_shot)
    store = AdapterStore(tmp_path)
    store.publish("pets", lambda folder: export(folder, good, blind, base_model=MODEL))
    with pytest.raises(GateError, match="never asked"):
        store.promote("pets", 1, fingerprint="fake")
    assert store.current("pets") is None


def test_rollback_restores_identical_answers(good: Run, tmp_path: Path) -> None:
    """Proof 10."""
    store, x = AdapterStore(tmp_path), hard().val.first_views()
    publish(store, good)
    store.promote("pets", 1, fingerprint="fake")
    first = store.load("pets", fingerprint="fake").logits(x)
    publish(store, fit(GOOD.replace(seed=1, epochs=6), hard()))
    store.promote("pets", 2, fingerprint="fake")
    second = store.load("pets", fingerprint="fake").logits(x)
    assert not torch.equal(first, second)
    assert store.rollback("pets", fingerprint="fake") == 1
    assert torch.equal(store.load("pets", fingerprint="fake").logits(x), first)
    assert [move["action"] for move in store.log("pets")] == ["promote", "promote", "rollback"]
    with pytest.raises(UnknownAdapterError, match="no earlier"):
        store.rollback("pets", fingerprint="fake")
    assert store.rollback("pets", 2, fingerprint="fake") == 2
    assert torch.equal(store.load("pets", fingerprint="fake").logits(x), second)
    publish(store, good)
    with pytest.raises(UnknownAdapterError, match="never live"):
        store.rollback("pets", 3, fingerprint="fake")


def test_several_steps_back(good: Run, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path)
    for version in (1, 2, 3):
        assert publish(store, good) == version
        store.promote("pets", version, fingerprint="fake")
    assert [store.rollback("pets", fingerprint="fake") for _ in range(2)] == [2, 1]
    store.promote("pets", 3, fingerprint="fake")
    assert store.rollback("pets", fingerprint="fake") == 1


def test_a_rollback_never_serves_damage(good: Run, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path)
    for version in (1, 2):
        publish(store, good)
        store.promote("pets", version, fingerprint="fake")
    (tmp_path / "pets" / "1" / "weights.safetensors").write_bytes(b"broken")
    with pytest.raises(AdapterError):
        store.rollback("pets", fingerprint="fake")
    assert store.current("pets") == 2


def test_names_versions_and_what_is_not_there(good: Run, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "adapters")
    assert store.names() == ()
    with pytest.raises(UnknownAdapterError, match="none yet"):
        store.load("pets", fingerprint="fake")
    publish(store, good)
    publish(store, good)
    assert store.names() == ("pets",)
    info = store.info("pets")
    assert (info.versions, info.current) == ((1, 2), None)
    with pytest.raises(UnknownAdapterError, match="has not been promoted"):
        store.load("pets", fingerprint="fake")
    with pytest.raises(UnknownAdapterError, match="no version 7; kept are 1, 2"):
        store.promote("pets", 7, fingerprint="fake")
    for wrong in ("", "../pets", ".hidden", "a/b", "x" * 65):
        with pytest.raises(UnknownAdapterError, match="can't name"):
            store.load(wrong, fingerprint="fake")


def test_a_writer_that_dies_leaves_no_version(good: Run, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path)

    def die(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.publish("pets", die)
    assert store.names() == ()
    assert publish(store, good) == 1
    assert [path.name for path in (tmp_path / "pets").iterdir()] == ["1"]


def test_two_writers_exclude_each_other(good: Run, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path, patience=0)

    def nested(_: Path) -> None:
        with pytest.raises(AdapterBusyError, match="someone else"):
            publish(store, good)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.publish("pets", nested)


def test_a_run_without_a_head_is_no_adapter(tmp_path: Path) -> None:
    run = fit(Recipe(method=MLP(hidden=(4,)), epochs=1), images())
    with pytest.raises(AdapterError, match="MLPNetwork is no head"):
        export(tmp_path, run, images(), base_model=MODEL)


def test_deleted_as_a_whole(good: Run, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path)
    publish(store, good)
    store.promote("pets", 1, fingerprint="fake", force=True)
    store.delete("pets")
    assert store.names() == ()
    assert [path.name for path in tmp_path.iterdir()] == [".locks"]
    with pytest.raises(UnknownAdapterError):
        store.delete("pets")
    assert publish(store, good) == 1
    assert store.current("pets") is None
