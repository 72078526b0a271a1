from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from models.images import to_rgb
from tests.training.samples import FakeEncoder, features, images
from training import (
    MLP,
    ChannelMean,
    ChannelStandard,
    Dataset,
    MeanImage,
    Recipe,
    SmallCNN,
    Whitening,
    fit,
)
from training.errors import DataError, RecipeError
from training.loop.pipeline import build_pipeline
from training.preprocessing import (
    encoder_prefers_swapped,
    replicate_channels,
    swapped_against,
)


def train_images() -> torch.Tensor:
    return images(train=20).train.inputs


def test_mean_image() -> None:
    x = train_images()
    out = MeanImage().fit(x)(x)
    assert torch.allclose(out.mean(dim=0), torch.zeros(()), atol=1e-6)
    assert torch.equal(out, x - x.mean(dim=0))


def test_channel_mean() -> None:
    x = train_images()
    out = ChannelMean().fit(x)(x)
    assert torch.allclose(out.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(out.std(dim=(0, 2, 3)), x.std(dim=(0, 2, 3)), atol=1e-6)


def test_channel_standard() -> None:
    x = train_images()
    out = ChannelStandard().fit(x)(x)
    assert torch.allclose(out.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(out.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    given = ChannelStandard(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1)).fit(x)
    assert torch.allclose(given(x)[:, 2], (x[:, 2] - 0.3) / 0.1)


def test_a_constant_channel_becomes_zero_not_nan() -> None:
    x = train_images()
    x[:, 1] = 0.5
    assert not ChannelStandard().fit(x)(x)[:, 1].any()


@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_whitened_covariance_is_the_identity(kind: str) -> None:
    """Proof 4."""
    dice = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 8, generator=dice, dtype=torch.float64)
    x = torch.randn(500, 8, generator=dice, dtype=torch.float64) @ mixing + 3
    out = Whitening(kind=kind, eps=0.0).fit(x)(x)
    covariance = out.T @ out / len(out)
    assert torch.allclose(covariance, torch.eye(8, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(out.mean(0), torch.zeros(8, dtype=torch.float64), atol=1e-9)


def test_zca_is_the_whitening_nearest_to_the_data() -> None:
    dice = torch.Generator().manual_seed(0)
    x = torch.randn(500, 6, generator=dice) @ torch.randn(6, 6, generator=dice)
    centred = x - x.mean(0)
    zca, pca = (Whitening(kind=kind, eps=0.0).fit(x)(x) for kind in ("zca", "pca"))
    assert (zca - centred).square().sum() < (pca - centred).square().sum()


def test_whitening_of_images_keeps_the_shape_and_flat_directions_stay_zero() -> None:
    x = images(edge=4).train.inputs
    x[:, 0] = 0.25
    out = Whitening(eps=0.0).fit(x)(x)
    assert out.shape == x.shape
    assert out.isfinite().all()
    with pytest.raises(RecipeError, match="4096"):
        Whitening().fit(torch.zeros(2, 3, 64, 64))


def test_it_is_fitted_on_training_alone_and_served_with_the_network() -> None:
    data = images()
    shifted = replace(data, val=replace(data.val, inputs=data.val.inputs + 5))
    recipe = Recipe(method=MLP(hidden=(4,)), preprocess=ChannelStandard(), epochs=1)
    own, other = fit(recipe, data).network, fit(recipe, shifted).network
    assert {"preprocess.mean", "preprocess.std"} <= set(own.state_dict())
    assert torch.equal(own.preprocess.mean, other.preprocess.mean)
    x = data.val.inputs
    assert torch.equal(own(x), own.network((x - own.preprocess.mean) / own.preprocess.std))


def test_heads_refuse_preprocessing() -> None:
    with pytest.raises(RecipeError, match="leave preprocess out"):
        build_pipeline(Recipe(preprocess=ChannelStandard()), features())


def test_cnn_with_every_preprocessing_builds() -> None:
    data = images()
    for rule in (MeanImage(), ChannelMean(), ChannelStandard()):
        net = build_pipeline(Recipe(method=SmallCNN(width=8), preprocess=rule), data)
        assert net(data.val.inputs).shape == (len(data.val), 3)


def test_grey_is_replicated() -> None:
    grey = torch.rand(2, 1, 4, 4)
    out = replicate_channels(grey)
    assert torch.equal(out[:, 0], grey[:, 0])
    assert torch.equal(out[:, 2], grey[:, 0])
    assert replicate_channels(torch.rand(2, 3, 4, 4)).shape == (2, 3, 4, 4)
    with pytest.raises(DataError, match="1 or 3"):
        replicate_channels(torch.rand(2, 4, 4, 4))
    assert to_rgb(Image.new("L", (2, 2), 77)).getpixel((0, 0)) == (77, 77, 77)
    assert to_rgb(Image.new("RGBA", (2, 2), (9, 9, 9, 0))).getpixel((0, 0)) == (255, 255, 255)


class TestChannelOrder:
    def tinted(self, seed: int, count: int, tint: float) -> torch.Tensor:
        x = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        return x + torch.tensor([tint, 0.0, -tint])[:, None, None]

    def test_swapped_is_found_and_straight_is_not(self) -> None:
        for seed in range(10):
            train, val = self.tinted(seed, 60, 0.1), self.tinted(seed + 100, 30, 0.1)
            assert swapped_against(train, val.flip(1))
            assert not swapped_against(train, val)

    def test_without_a_tint_there_is_no_verdict(self) -> None:
        for seed in range(10):
            train, val = self.tinted(seed, 60, 0.0), self.tinted(seed + 100, 30, 0.0)
            assert not swapped_against(train, val.flip(1))

    def test_another_tint_is_not_a_swap(self) -> None:
        assert not swapped_against(self.tinted(0, 60, 0.1), self.tinted(1, 60, -0.3))
        assert not swapped_against(self.tinted(0, 60, 0.1), self.tinted(1, 1, -0.1))

    def test_an_encoder_that_knows_colours_prefers_the_right_order(self) -> None:
        encoder = FakeEncoder()
        dice = np.random.default_rng(0)
        colours = [(220, 60, 20), (40, 90, 230)]
        pictures, labels = [], []
        for number in range(40):
            colour = np.clip(np.array(colours[number % 2]) + dice.normal(0, 15, 3), 0, 255)
            pictures.append(Image.new("RGB", (8, 8), tuple(int(c) for c in colour)))
            labels.append(number % 2)
        text = encoder.encode_images([Image.new("RGB", (8, 8), c) for c in colours])
        swapped = [Image.merge("RGB", picture.split()[::-1]) for picture in pictures]
        assert encoder_prefers_swapped(encoder, swapped, labels, text)
        assert not encoder_prefers_swapped(encoder, pictures, labels, text)


def test_dataset_type_is_what_the_loop_says() -> None:
    assert isinstance(images(), Dataset)
    assert images().has_images
    assert not features().has_images
