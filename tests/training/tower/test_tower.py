"""Tuning the embedded model itself, for real, on the CPU; small enough for seconds."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from models import Encoder, ModelBrokenError, load_encoder
from models.image.preprocess import Preprocessor
from models.towers import fold_projection, load_clip
from tests.training.samples import write_folder
from training import Callback, Dataset, FullFineTune, LoRA, PartialUnfreeze, Recipe, RunView
from training.data import Retention, Samples, ZeroShot
from training.errors import DataError, RecipeError
from training.finetune import Sources
from training.judging.comparison import measure_tower
from training.judging.retention import tower_retention
from training.loop.facts import logits_of
from training.tower import (
    TOWER_METHODS,
    TowerNetwork,
    Tuned,
    TunedTower,
    pixel_dataset,
    tune_tower,
)
from training.tower.cross_validation import choose_settings, class_halves, trials
from training.transfer import blocks_and_head


def quick(method: str, **changes: object) -> Recipe:
    base = TOWER_METHODS[method].recipe
    return base.replace(**{"epochs": 2, "batch_size": 8, "optimizer.lr": 3e-3, **changes})


@pytest.fixture(scope="module")
def torch_encoder() -> Encoder:
    return load_encoder("everyday", backend="torch", precision="fp32")


@pytest.fixture(scope="module")
def data(torch_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    names = ("cat", "dog", "cow", "hen")
    root = write_folder(tmp_path_factory.mktemp("animals"), dict.fromkeys(names, 6))
    return Sources(root, val=0.34, views=1, cache=None).read(torch_encoder)


@pytest.fixture(scope="module")
def tuned(data: Dataset) -> Tuned:
    return tune_tower("everyday", data, method="full", recipe=quick("full"))


def test_before_any_step_the_tower_is_the_encoder(data: Dataset, tuned: Tuned) -> None:
    pixels = pixel_dataset(data, Preprocessor(tuned.clip.preprocess))
    assert float(pixels.train.inputs.min()) >= 0
    assert float(pixels.train.inputs.max()) <= 1
    assert data.zero_shot is not None
    expected = data.zero_shot.logits(data.train.first_views())
    found = logits_of(tuned.before, pixels.train.inputs)
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("transfer", "moved", "still"),
    [
        (LoRA(rank=2), "head.proj.weight", "trunk.conv_stem.weight"),
        (PartialUnfreeze(blocks=2), "trunk.conv_head.weight", "trunk.blocks.6.0.conv_pw.weight"),
        (FullFineTune(), "trunk.conv_stem.weight", None),
    ],
    ids=["lora", "partial", "full"],
)
def test_what_a_rule_may_change_of_the_embedded_model(
    data: Dataset, transfer: LoRA, moved: str, still: str | None
) -> None:
    recipe = quick("full", transfer=transfer, epochs=1)
    tuned = tune_tower("everyday", data, method="full", recipe=recipe)
    before = tuned.before.visual.state_dict()
    after = tuned.after.visual.state_dict()
    assert before.keys() == after.keys()  # merged: no trace of peft
    if tuned.settings.alpha > 0:
        assert not torch.equal(before[moved], after[moved])
    if still is not None:
        assert torch.equal(before[still], after[still])
    for name in before:
        if "running" in name:  # BatchNorm keeps the pretraining's averages
            assert torch.equal(before[name], after[name])
    whole, old = tuned.whole_state(), tuned.clip.module.state_dict()
    assert whole.keys() == old.keys()
    for name, tensor in whole.items():
        if not name.startswith("visual."):  # the text tower and the scale stay
            assert torch.equal(tensor, old[name])


def test_training_lowers_the_loss_and_alpha_is_of_the_grid(tuned: Tuned) -> None:
    losses = tuned.run.history.column("train/loss")
    assert losses[-1] < tuned.run.history.facts["initial_loss"]
    sweep = tuned.settings.sweep
    assert [score.alpha for score in sweep.scores] == [step / 10 for step in range(11)]
    assert sweep.chosen in sweep.scores
    assert sweep.chosen.retention >= sweep.scores[0].retention - 0.0101


def test_settings_are_chosen_without_the_validation_split(data: Dataset, tuned: Tuned) -> None:
    turned = replace(data.val, labels=(data.val.labels + 1) % 4)
    other = tune_tower("everyday", replace(data, val=turned), method="full", recipe=quick("full"))
    assert other.settings == tuned.settings
    for name, tensor in tuned.after.state_dict().items():
        assert torch.equal(tensor, other.after.state_dict()[name])


def test_trials_leave_out_what_they_are_judged_by(data: Dataset) -> None:
    assert class_halves(data, seed=0)[0] == class_halves(data, seed=0)[1][::-1]
    for part in trials(data, seed=0):
        assert part.others is not None
        assert not set(part.data.classes) & set(part.others.classes)
        assert set(part.data.classes) | set(part.others.classes) == set(data.classes)
        assert len(part.data.val)
        assert not set(part.data.train.names) & set(part.data.val.names)
        assert not set(part.data.val.names) & set(data.val.names)
        assert not set(part.others.samples.names) & set(data.val.names)
    single = data.only_train([int((data.train.labels == c).nonzero()[0]) for c in range(4)])
    assert [len(part.data.val) for part in trials(single, seed=0)] == [0, 0]
    three = single.among([0, 1, 2])
    assert [part.others for part in trials(three, seed=0)] == [None]


def test_other_categories_stand_beside_the_classes_in_training_and_when_measured(
    data: Dataset,
) -> None:
    assert data.zero_shot is not None
    dice = torch.Generator().manual_seed(0)
    width = data.zero_shot.text.shape[1]
    others = torch.nn.functional.normalize(torch.randn(5, width, generator=dice), dim=1)
    # and one that a picture lies on
    others = torch.cat([others, torch.nn.functional.normalize(data.val.first_views()[:1], dim=1)])
    among = replace(data, others=others)
    tuned = tune_tower("everyday", among, method="full", recipe=quick("full", epochs=1))
    x = tuned.images.val.inputs
    assert tuned.before(x).shape == (len(x), 4 + 6)
    assert tuned.run.logits(x).shape == (len(x), 4)
    found = measure_tower(tuned)
    zero = data.zero_shot.among(others).logits(data.val.first_views())
    right = float((zero.argmax(dim=1) == data.val.labels).double().mean())
    assert found["zero_shot"]["top1"] == pytest.approx(right)
    assert int(zero[0].argmax()) == 4 + 5


def test_a_rate_of_which_nothing_can_be_kept_is_not_chosen() -> None:
    """Images are single pixels, and the tower a table of their vectors."""
    a, b, x, y = torch.eye(4)

    def table(*columns: torch.Tensor) -> dict[str, torch.Tensor]:
        weight = torch.zeros(4, 12)
        weight[:, : len(columns)] = torch.stack(columns, dim=1)
        return {"1.weight": weight}

    images = torch.eye(12)[:8].reshape(8, 3, 2, 2)
    own = Samples(images[:4], torch.tensor([0, 0, 1, 1]))
    others = Samples(images[4:], torch.tensor([0, 0, 1, 1]))
    words, kept = (ZeroShot(torch.stack(pair), 10.0) for pair in ((a, b), (x, y)))
    data = Dataset(own, own.pick([]), ("a", "b"), words, Retention(others, ("x", "y"), kept))
    visual = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False))
    visual.load_state_dict(table(b, b, a, a, x, x, y, y))
    base = TowerNetwork(visual, words, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    after = {
        0.1: table(a, a, a, a, x, x, y, y),  # half of it learnt, nothing forgotten
        1.0: table(a, a, b, b, 99 * y, 99 * y, 99 * x, 99 * x),  # all learnt, all forgotten
    }

    def train(part: Dataset, rate: float, stage: str) -> dict[str, torch.Tensor]:
        return after[rate]

    found = choose_settings(base, data, (0.1, 1.0), train, seed=0, device="cpu")
    assert found.rate == 0.1
    assert (found.sweep.chosen.validation, found.sweep.chosen.retention) == (0.5, 1.0)
    alone = choose_settings(base, data, (1.0,), train, seed=0, device="cpu")
    assert alone.alpha == 0


def test_a_retention_set_is_split_between_choosing_and_measuring(
    data: Dataset, torch_encoder: Encoder, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path, {"car": 4, "bus": 4, "van": 4}, seed=5)
    others = Sources(folder, val=0.0, views=1, cache=None).read(torch_encoder)
    assert others.zero_shot is not None
    kept = Retention(others.train, others.classes, others.zero_shot)
    tuned = tune_tower(
        "everyday", replace(data, retention=kept), method="lora", recipe=quick("lora", epochs=1)
    )
    assert tuned.settings.others == 2 * 6  # two folds, half of the images each
    measured = tower_retention(tuned)
    assert (measured.kind, measured.n) == ("measured", 6)
    half = kept.halves()
    assert not set(half[0].samples.names) & set(half[1].samples.names)
    with pytest.raises(DataError, match="nothing to retain: cat"):
        replace(data, retention=replace(kept, classes=("cat", "bus", "van")))


def test_one_image_a_class_takes_the_middle_rate_and_at_most_half(data: Dataset) -> None:
    rows = [int((data.train.labels == c).nonzero()[0]) for c in range(4)]
    small = replace(data.only_train(rows), val=data.val.pick([]))
    tuned = tune_tower("everyday", small, method="lora", recipe=quick("lora", epochs=1))
    assert tuned.settings.alpha <= 0.5
    assert "nothing can be held out" in tuned.settings.why
    sweep = tuned.settings.sweep
    floor = sweep.scores[0].retention - 0.0101
    assert sweep.chosen.alpha == max(s.alpha for s in sweep.scores if s.retention >= floor)


class Killed(Exception):
    """Stands for kill -9."""


class KillAt(Callback):
    def __init__(self, stage: str, step: int) -> None:
        self.stage, self.step = stage, step

    def on_step_end(self, run: RunView) -> None:
        if run.stage == self.stage and run.step == self.step:
            raise Killed


@pytest.mark.parametrize("stage", ["choosing 2 of 2", ""])
def test_a_killed_tuning_ends_with_the_same_weights(
    data: Dataset, tuned: Tuned, tmp_path: Path, stage: str
) -> None:
    arguments = {"method": "full", "recipe": quick("full"), "run_dir": tmp_path}
    steps = 2 if stage else 3
    with pytest.raises(Killed):
        tune_tower("everyday", data, callbacks=[KillAt(stage, steps)], **arguments)
    resumed = tune_tower("everyday", data, **arguments)
    assert resumed.settings == tuned.settings
    for name, tensor in tuned.after.state_dict().items():
        assert torch.equal(tensor, resumed.after.state_dict()[name])


def test_what_can_not_be_tuned_says_so(data: Dataset) -> None:
    with pytest.raises(RecipeError, match="changes no weights"):
        tune_tower("everyday", data, method="gda")
    with pytest.raises(RecipeError, match="TunedTower"):
        tune_tower("everyday", data, method="lora", recipe=Recipe())
    with pytest.raises(RecipeError, match="finetune_folder"):
        TunedTower().build(data)
    blind = replace(data, train=replace(data.train, names=()))
    with pytest.raises(DataError, match="images are needed"):
        tune_tower("everyday", blind, method="lora")


def test_the_blocks_of_a_vision_transformer(tiny_clip_dir: Path, data: Dataset) -> None:
    from training.tower import TowerNetwork

    clip = load_clip(f"local-dir:{tiny_clip_dir}")
    assert data.zero_shot is not None
    text = replace(data.zero_shot, text=torch.nn.functional.normalize(torch.randn(4, 32), dim=1))
    visual = clip.module.get_submodule("visual")
    net = TowerNetwork(visual, text, mean=clip.preprocess.mean, std=clip.preprocess.std)
    groups, (head, _) = blocks_and_head(net)
    assert head == "head"
    assert [group[0][0] for group in groups] == [
        "visual.conv1",
        "visual.transformer.resblocks.0",
        "visual.transformer.resblocks.1",
    ]
    x = torch.rand(2, 3, 32, 32)
    plain = net.eval()(x)
    wrapped = LoRA(rank=2).apply(copy.deepcopy(net))
    assert torch.allclose(wrapped.eval()(x), plain, atol=1e-5)
    assert torch.allclose(LoRA().finish(wrapped)(x), plain, atol=1e-5)


def test_a_matrix_folds_into_a_vision_transformers_projection(tiny_clip_dir: Path) -> None:
    visual = load_clip(f"local-dir:{tiny_clip_dir}").module.get_submodule("visual")
    dice = torch.Generator().manual_seed(0)
    x, matrix = (torch.rand(*shape, generator=dice) for shape in ((2, 3, 32, 32), (32, 32)))
    with torch.no_grad():
        expected = visual(x) @ matrix
        fold_projection(visual, matrix)
        assert torch.allclose(visual(x), expected, rtol=1e-4, atol=1e-4)
        with pytest.raises(ModelBrokenError, match="no linear projection"):
            fold_projection(torch.nn.Conv2d(3, 3, 1), matrix)
