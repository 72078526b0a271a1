"""Proof 8: a run that was killed and resumed equals an uninterrupted one, to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.samples import features, images
from training import (
    MLP,
    AdamW,
    Callback,
    ChannelStandard,
    Cosine,
    CrossEntropy,
    CutMix,
    Cutout,
    Dataset,
    ElasticNet,
    Flip,
    Mixup,
    Momentum,
    Patience,
    Recipe,
    RunView,
    SmallCNN,
    TextHead,
    fit,
)
from training.errors import CheckpointError
from training.history import History
from training.loop.checkpoint import FILE, load_checkpoint
from training.randomness import capture

STEPS = 20
# 24 images in batches of 6: 4 steps an epoch, 5 epochs; features likewise
IMAGES = Recipe(
    method=SmallCNN(width=4, dropout=0.3, stochastic_depth=0.2),
    loss=CrossEntropy(label_smoothing=0.1),
    optimizer=AdamW(lr=1e-2),
    schedule=Cosine(warmup=0.2),
    penalty=ElasticNet(l1=1e-5, l2=1e-4),
    augment=[Mixup(0.4), CutMix(), Cutout(0.3), Flip()],
    preprocess=ChannelStandard(),
    stop=Patience("val/accuracy", 50),
    ema=0.9,
    clip=1.0,
    epochs=5,
    batch_size=6,
)
FEATURES = Recipe(
    method=TextHead(dropout=0.2),
    optimizer=Momentum(lr=1e-2),
    augment=[Mixup(0.4)],
    balance="sampler",
    epochs=5,
    batch_size=8,
)


def small() -> Dataset:
    return images(edge=8)


class Killed(BaseException):
    """As sudden as a kill, but the test lives on."""


class KillAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, run: RunView) -> None:
        if run.step == self.step:
            raise Killed


class KillAtCheckpoint(KillAfter):
    def on_step_end(self, run: RunView) -> None: ...

    def on_checkpoint(self, run: RunView) -> None:
        if run.step == self.step:
            raise Killed


def everything(run_dir: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    checkpoint = load_checkpoint(run_dir)
    assert checkpoint is not None
    return checkpoint.tensors, checkpoint.state


def assert_same(reference: Path, resumed: Path) -> None:
    """Weights, best weights, averages, optimiser, random states, order, history: bit for bit."""
    (tensors, state), (others, other_state) = everything(reference), everything(resumed)
    assert set(tensors) == set(others)
    assert {"random/torch", "order"} <= set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name
    assert state == other_state
    assert (reference / "history.json").read_text() == (resumed / "history.json").read_text()


@pytest.fixture(scope="module", params=["images", "features"])
def case(request, tmp_path_factory):
    recipe, data = (IMAGES, small()) if request.param == "images" else (FEATURES, features(val=10))
    folder = tmp_path_factory.mktemp("reference")
    run = fit(recipe, data, run_dir=folder, checkpoint_every=1)
    assert len(run.history.loss) == STEPS
    return recipe, data, folder, run


def test_kill_after_every_step(case, tmp_path: Path) -> None:
    recipe, data, reference, whole = case
    every = 1 if data.has_images else 3  # 3: what came after the last checkpoint is done again
    for step in range(1, STEPS + 1):
        folder = tmp_path / str(step)
        with pytest.raises(Killed):
            fit(recipe, data, callbacks=[KillAfter(step)], run_dir=folder, checkpoint_every=every)
        torch.rand(step), np.random.rand(step)  # the world outside goes on meanwhile
        resumed = fit(recipe, data, run_dir=folder, checkpoint_every=every)
        assert_same(reference, folder)
        for name, tensor in whole.network.state_dict().items():
            assert torch.equal(tensor, resumed.network.state_dict()[name])
        assert resumed.metrics == whole.metrics
        if every == 1:
            assert resumed.resumed_at == step


def test_kill_right_after_each_checkpoint_between_step_and_epoch_end(case, tmp_path: Path) -> None:
    recipe, data, reference, _ = case
    for step in (4, 8, STEPS):
        folder = tmp_path / str(step)
        with pytest.raises(Killed):
            fit(
                recipe,
                data,
                callbacks=[KillAtCheckpoint(step)],
                run_dir=folder,
                checkpoint_every=1,
            )
        fit(recipe, data, run_dir=folder, checkpoint_every=1)
        assert_same(reference, folder)


def test_kill_again_and_again(case, tmp_path: Path) -> None:
    recipe, data, reference, _ = case
    for step in (2, 3, 9, 17):
        with pytest.raises(Killed):
            fit(recipe, data, callbacks=[KillAfter(step)], run_dir=tmp_path, checkpoint_every=1)
    fit(recipe, data, run_dir=tmp_path, checkpoint_every=1)
    assert_same(reference, tmp_path)


CHILD = """
import sys
import torch
torch.set_num_threads(1)
from tests.training.loop.test_resume import IMAGES, KillSelf, small
from training import fit
fit(IMAGES, small(), callbacks=[KillSelf(7)], run_dir=sys.argv[1], checkpoint_every=2)
"""


class KillSelf(KillAfter):
    def on_step_end(self, run: RunView) -> None:
        if run.step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_real_sigkill_in_another_process(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "killed")], cwd=Path(__file__).parents[3]
    )
    assert child.returncode == -signal.SIGKILL
    resumed = fit(IMAGES, small(), run_dir=tmp_path / "killed", checkpoint_every=2)
    assert resumed.resumed_at == 6
    fit(IMAGES, small(), run_dir=tmp_path / "whole", checkpoint_every=2)
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_half_precision_carries_its_scaler(tmp_path: Path) -> None:
    recipe = Recipe(method=MLP(hidden=(8,)), precision="fp16", epochs=2, batch_size=6)
    fit(recipe, small(), run_dir=tmp_path / "whole", checkpoint_every=1)
    with pytest.raises(Killed):
        fit(recipe, small(), callbacks=[KillAfter(3)], run_dir=tmp_path / "k", checkpoint_every=1)
    fit(recipe, small(), run_dir=tmp_path / "k", checkpoint_every=1)
    assert_same(tmp_path / "whole", tmp_path / "k")
    state = everything(tmp_path / "k")[1]
    assert state["scaler"]["scale"] > 1  # type: ignore[index]


def test_bf16_trains(tmp_path: Path) -> None:
    run = fit(Recipe(method=MLP(hidden=(8,)), precision="bf16", epochs=3), small())
    assert np.isfinite(run.metrics["train/loss"])


def test_a_finished_run_is_not_trained_again(case) -> None:
    recipe, data, reference, whole = case
    again = fit(recipe, data, run_dir=reference, checkpoint_every=1)
    assert again.resumed_at == STEPS
    assert again.metrics == whole.metrics
    assert again.history == whole.history


def test_early_stopping_survives_a_resume(tmp_path: Path) -> None:
    recipe = FEATURES.replace(stop=Patience("val/loss", 2, min_delta=10.0), epochs=20)
    whole = fit(recipe, features(), run_dir=tmp_path / "whole")
    assert whole.history.stopped is not None
    assert len(whole.history.epochs) == 3
    assert whole.best_epoch == 0
    with pytest.raises(Killed):
        fit(recipe, features(), callbacks=[KillAfter(9)], run_dir=tmp_path / "killed")
    fit(recipe, features(), run_dir=tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_the_callers_random_states_are_left_alone() -> None:
    before = capture()
    fit(FEATURES, features())
    assert capture() == before
    with pytest.raises(Killed):
        fit(FEATURES, features(), callbacks=[KillAfter(2)])
    assert capture() == before


def test_checkpoints_of_others_are_refused(tmp_path: Path) -> None:
    fit(FEATURES, features(), run_dir=tmp_path)
    with pytest.raises(CheckpointError, match="another recipe"):
        fit(FEATURES.replace(seed=1), features(), run_dir=tmp_path)
    with pytest.raises(CheckpointError, match="another data"):
        fit(FEATURES, features(seed=1), run_dir=tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        fit(FEATURES, features(), run_dir=tmp_path / "none", resume="must")
    fresh = fit(FEATURES.replace(seed=1), features(), run_dir=tmp_path, resume="never")
    assert fresh.resumed_at is None


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    fit(FEATURES, features(), run_dir=tmp_path)
    file = tmp_path / FILE
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        fit(FEATURES, features(), run_dir=tmp_path)


def test_a_half_written_checkpoint_leaves_the_old_one(tmp_path: Path, monkeypatch) -> None:
    fit(FEATURES, features(), run_dir=tmp_path)
    before = everything(tmp_path)[1]

    def full_disk(*_: object, **__: object) -> None:
        (tmp_path / f".{FILE}.tmp").write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("training.loop.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        fit(FEATURES.replace(epochs=9), features(), run_dir=tmp_path, resume="never")
    assert everything(tmp_path)[1] == before


def test_history_there_and_back() -> None:
    history = fit(FEATURES, features()).history
    assert History.from_json(history.to_json()) == history
    odd = replace(history, loss=[float("nan"), float("inf")])
    assert History.from_json(odd.to_json()).loss[1] == float("inf")
