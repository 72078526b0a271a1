"""Two gloo processes under torchrun take the steps that one process takes with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.training.samples import features, images, write_folder
from training import AdamW, Callback, Mixup, Recipe, RunView, SmallCNN, TextHead, fit
from training.errors import RecipeError
from training.loop.distributed import Group, joined

HEAD = Recipe(method=TextHead(), augment=[Mixup(0.2)], optimizer=AdamW(lr=1e-2), epochs=2)
TUNED = ("lora", "full")
ROOT = Path(__file__).parents[3]


class StopAt(Callback):
    def on_step_end(self, run: RunView) -> None:
        if run.step == 2:
            run.stop("enough")


def train_all(folder: Path, pictures: Path) -> None:
    """What one process does, or each of two: a head on features, then the tower itself."""
    from models import load_encoder
    from tests.training.tower.test_tower import quick
    from training.finetune import Sources
    from training.tower import tune_tower

    torch.set_num_threads(1)
    encoder = load_encoder("everyday", backend="torch", precision="fp32")
    data = Sources(pictures, val=0.0, views=1, cache=None).read(encoder)
    with joined() as group:
        runs = {"head": fit(HEAD, features(classes=3, shots=7), run_dir=folder / "head")}
        stopped = fit(HEAD.replace(batch_size=4), features(), callbacks=[StopAt()])
        assert (len(stopped.history.loss), stopped.history.stopped) == (2, "enough")
        for method in TUNED:
            recipe = quick(method, augment=(), epochs=1)
            tuned = tune_tower("everyday", data, method=method, recipe=recipe)
            runs[method] = tuned.run
        if group.size > 1:
            with pytest.raises(RecipeError, match="BatchNorm"):
                fit(Recipe(method=SmallCNN(norm="batch"), epochs=1), images())
        if group.first:
            for name, run in runs.items():
                save_file(run.network.state_dict(), folder / f"{name}.safetensors")
                (folder / f"{name}.txt").write_text(repr(run.history.loss))


def test_two_processes_match_one(tmp_path: Path) -> None:
    pictures = write_folder(tmp_path / "pictures", {"cat": 5, "dog": 5})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    train_all(tmp_path / "one", pictures)
    program = f"""
from pathlib import Path
from tests.training.loop.test_distributed import train_all
train_all(Path({str(tmp_path / "two")!r}), Path({str(pictures)!r}))
"""
    script = tmp_path / "train.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("head", *TUNED):
        one, two = (load_file(tmp_path / side / f"{name}.safetensors") for side in ("one", "two"))
        assert one.keys() == two.keys()
        for key, tensor in one.items():
            assert torch.allclose(tensor, two[key], atol=2e-5), (name, key)
    one, two = (eval((tmp_path / side / "head.txt").read_text()) for side in ("one", "two"))
    assert one == pytest.approx(two, abs=1e-5)


def test_a_batch_is_shared_out_whole() -> None:
    for size in (1, 2, 3):
        for count in (1, 2, 5, 64):
            shares = [Group(rank, size).share(count) for rank in range(size)]
            rows = [r for own, weight in shares if weight for r in range(count)[own]]
            assert rows == list(range(count))
            assert sum(weight for _, weight in shares) == pytest.approx(1)
            assert all(len(range(count)[own]) for own, _ in shares)  # a stand-in, never nothing


def test_alone_nothing_is_asked_of_others() -> None:
    group = Group()
    assert group.total(2.5) == 2.5
    assert group.same("value") == "value"
    network = nn.Linear(2, 1)
    network(torch.ones(1, 2)).sum().backward()
    before = [p.grad.clone() for p in network.parameters()]
    group.sum_gradients(list(network.parameters()))
    assert all(torch.equal(a, p.grad) for a, p in zip(before, network.parameters(), strict=True))
    with joined() as found:
        assert found == group
