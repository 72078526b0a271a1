"""Our transform against open_clip's own, to the bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from models.errors import ModelBrokenError
from models.image.preprocess import PreprocessConfig, Preprocessor
from models.openclip import import_open_clip

SOURCES = [(64, 64), (65, 64), (50, 200), (301, 77), (7, 9), (1, 40), (224, 224), (640, 427)]
TARGETS = [(64, 64), (32, 48), (48, 32), (224, 224)]
OPENAI = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
NONE = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


def random_image(size: tuple[int, int], seed: int) -> Image.Image:
    """Width and height; every value from 0 to 255 comes up in the larger ones."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8), "RGB")


def open_clips(config: PreprocessConfig):
    transform = import_open_clip().transform
    return transform.image_transform_v2(
        transform.PreprocessCfg(
            size=config.size,
            mean=config.mean,
            std=config.std,
            interpolation=config.interpolation,
            resize_mode=config.resize_mode,
            fill_color=config.fill_color,
        ),
        is_train=False,
    )


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
def test_equals_open_clip_to_the_bit(resize_mode: str, interpolation: str) -> None:
    for number, (source, target) in enumerate(itertools.product(SOURCES, TARGETS)):
        statistics = (OPENAI, HALF, NONE)[number % 3]
        given = {
            **statistics,
            "interpolation": interpolation,
            "resize_mode": resize_mode,
            "fill_color": (0, 255, 127)[number % 3],
        }
        config = PreprocessConfig.from_open_clip(given, image_size=target)
        image = random_image(source, seed=number)
        try:
            expected = open_clips(config)(image).numpy()
        except ValueError:
            # A sliver whose short side rounds to nothing: open_clip fails, we make it a pixel.
            assert min(source) == 1
            assert Preprocessor(config)(image).shape == (3, *target)
            continue
        ours = Preprocessor(config)(image)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, expected, err_msg=f"{source} -> {config}")


def test_the_size_is_the_towers_and_defaults_are_open_clips() -> None:
    config = PreprocessConfig.from_open_clip({"size": 999, "mean": None, "std": 0.5}, image_size=32)
    assert config.size == (32, 32)
    assert config.mean == tuple(OPENAI["mean"])
    assert config.std == (0.5, 0.5, 0.5)
    assert (config.interpolation, config.resize_mode, config.fill_color) == (
        "bicubic",
        "shortest",
        0,
    )


@pytest.mark.parametrize("key", ["interpolation", "resize_mode"])
def test_unknown_words_are_refused(key: str) -> None:
    with pytest.raises(ModelBrokenError, match="whatever"):
        PreprocessConfig.from_open_clip({key: "whatever"}, image_size=32)


def test_what_is_transparent_is_white() -> None:
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    white = Image.new("RGB", (40, 40), "white")
    preprocessor = Preprocessor(PreprocessConfig(size=(32, 32)))
    np.testing.assert_array_equal(preprocessor(clear), preprocessor(white))
