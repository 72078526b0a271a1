from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import ColourJitter, Crop, CutMix, Cutout, Flip, Mixup, Shift
from training.augment import Augment, crops, multicrop_probabilities
from training.errors import RecipeError


@pytest.fixture(autouse=True)
def _seeds() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


def batch(count: int = 8, edge: int = 16) -> tuple[Tensor, Tensor]:
    return torch.rand(count, 3, edge, edge), F.one_hot(torch.arange(count) % 4, 4).float()


ALL = [Mixup(), CutMix(), Cutout(), Flip(), Crop(), Shift(2), ColourJitter(hue=0.1)]


@pytest.mark.parametrize("augment", ALL, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("count", [8, 7, 1])
def test_shapes_targets_and_ranges(augment: Augment, count: int) -> None:
    """Proof 4: targets sum to 1, whatever is mixed."""
    for _ in range(10):
        inputs, targets = batch(count)
        before = inputs.clone()
        out, mixed = augment.apply(inputs, targets)
        assert out.shape == before.shape
        assert torch.allclose(mixed.sum(dim=1), torch.ones(count), atol=1e-6)
        assert (mixed >= 0).all()
        assert out.min() >= -1e-6
        assert out.max() <= 1 + 1e-6


def test_two_mixes_in_a_row_still_sum_to_one() -> None:
    inputs, targets = batch()
    for _ in range(10):
        _, mixed = CutMix().apply(*Mixup(1.0).apply(inputs, targets))
        assert torch.allclose(mixed.sum(dim=1), torch.ones(8), atol=1e-6)


def test_mixup_mixes_inputs_and_targets_by_the_same_share() -> None:
    inputs = torch.eye(4)[:, None, None, :].expand(4, 3, 4, 4).clone()
    targets = torch.eye(4)
    for _ in range(5):
        out, mixed = Mixup(1.0).apply(inputs, targets)
        assert torch.allclose(out[:, 0, 0], mixed, atol=1e-6)
    x = torch.randn(5, 7)
    out, mixed = Mixup(1.0).apply(x, F.one_hot(torch.arange(5)).float())
    assert torch.equal(out[4], x[4])  # the odd one out
    assert torch.allclose(out, mixed @ x, atol=1e-5)


def test_cutmix_targets_are_the_area() -> None:
    inputs = torch.stack([torch.full((3, 10, 10), float(i)) for i in range(2)])
    for _ in range(20):
        out, mixed = CutMix().apply(inputs, torch.eye(2))
        own = (out[0, 0] == 0).float().mean()
        assert float(mixed[0, 0]) == pytest.approx(float(own), abs=1e-6)


def test_cutout_blanks_a_square_with_the_mean_colour() -> None:
    inputs, targets = batch(count=64, edge=32)
    out, same = Cutout(0.5).apply(inputs, targets)
    blank = (out != inputs).any(dim=1)
    assert same is targets
    shares = blank.flatten(1).float().mean(dim=1)
    assert float(shares.min()) > 0.0
    assert float(shares.max()) <= 0.25 + 1e-6
    colour = inputs.mean(dim=(0, 2, 3))
    assert torch.allclose(out.permute(0, 2, 3, 1)[blank], colour, atol=1e-6)
    for mask in blank[:5]:
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert int(mask.sum()) == int(rows.sum()) * int(columns.sum())
    nothing, _ = Cutout(0.0).apply(inputs, targets)
    assert torch.equal(nothing, inputs)


def test_cutout_of_vectors_blanks_a_share() -> None:
    out, _ = Cutout(0.25).apply(torch.ones(200, 100), torch.ones(200, 1))
    error = math.sqrt(0.25 * 0.75 / 20000)
    assert float((out == 0).float().mean()) == pytest.approx(0.25, abs=4 * error)


def test_flip_mirrors_its_share() -> None:
    inputs, targets = batch(400, edge=4)
    out, _ = Flip(0.3).apply(inputs, targets)
    mirrored = (out != inputs).flatten(1).any(dim=1)
    assert torch.equal(out[mirrored], inputs[mirrored].flip(-1))
    assert float(mirrored.float().mean()) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 400))
    assert torch.equal(Flip(0.0).apply(inputs, targets)[0], inputs)
    assert torch.equal(Flip(1.0).apply(inputs, targets)[0], inputs.flip(-1))


def test_each_image_is_moved_on_its_own() -> None:
    same = torch.rand(1, 3, 16, 16).expand(12, 3, 16, 16)
    for augment in (Shift(4), Crop(), ColourJitter(0.5)):
        out, _ = augment.apply(same, torch.ones(12, 1))
        assert len({tuple(image.flatten().tolist()) for image in out}) > 3


def test_features_are_refused_with_advice() -> None:
    for augment in (CutMix(), Flip(), Crop(), Shift(), ColourJitter()):
        with pytest.raises(RecipeError, match="views=4"):
            augment.apply(torch.rand(4, 8), torch.eye(4))


def test_settings_are_checked() -> None:
    for broken in (
        lambda: Mixup(0.0),
        lambda: CutMix(-1.0),
        lambda: Cutout(1.5),
        lambda: Flip(2.0),
        lambda: Crop((0.9, 0.1)),
        lambda: Shift(0),
        lambda: ColourJitter(hue=0.7),
    ):
        with pytest.raises(RecipeError):
            broken()


class TestMulticrop:
    def test_ten_and_five_crops(self) -> None:
        inputs, _ = batch(2, edge=16)
        ten = crops(inputs)
        assert ten.shape == (2, 10, 3, 16, 16)
        assert crops(inputs, mirror=False).shape == (2, 5, 3, 16, 16)
        assert torch.allclose(crops(inputs, share=1.0)[:, 4], inputs, atol=1e-6)

    def test_probabilities_are_the_mean_over_crops(self) -> None:
        torch.manual_seed(0)
        inputs, _ = batch(3, edge=16)
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(768, 4))
        found = multicrop_probabilities(network, inputs)
        assert network.training
        assert torch.allclose(found.sum(dim=1), torch.ones(3), atol=1e-6)
        network.eval()
        by_hand = torch.stack([network(c).softmax(1) for c in crops(inputs).unbind(1)]).mean(0)
        assert torch.allclose(found, by_hand.detach(), atol=1e-6)
        with pytest.raises(RecipeError, match="share"):
            crops(inputs, share=0.0)
