"""Pretraining on a toy set: shapes, schedule, and a killed run that ends as an unbroken one."""

from __future__ import annotations

import io
import json
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from training.captions import Captioner, targets
from training.drawing_augment import augment, plain
from training.pictogram import encode_trimmed
from training.pictogram_pretraining import Pretraining, PretrainRecipe, rate_share, sampling_weights
from training.pictograms import load_concepts, load_drawings

NAMES = ["red circle", "blue square", "green triangle", "black cross"]
TOY = PretrainRecipe(
    class_steps=2, word_steps=2, contrastive_steps=2, decay_steps=2, batch=4, warmup_steps=1
)


@pytest.fixture(scope="module")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four concepts in three styles, one of them the validation style, which lacks one concept."""
    folder = tmp_path_factory.mktemp("toy")
    rows = [
        {"id": str(i), "name": name, "keywords": [*name.split(), "shape"]}
        for i, name in enumerate(NAMES)
    ]
    (folder / "names.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for style, pen in [("flat", 0), ("thick", 6), ("twemoji", 3)]:
        with zipfile.ZipFile(folder / f"{style}.zip", "w") as archive:
            for i, name in enumerate(NAMES):
                if style == "twemoji" and i == 3:
                    continue
                image = Image.new("RGBA", (72, 72), (0, 0, 0, 0))
                ImageDraw.Draw(image).ellipse(
                    (8 + 4 * i, 8, 60, 60 - 4 * i), fill=name.split()[0], width=pen
                )
                buffer = io.BytesIO()
                image.save(buffer, "PNG")
                archive.writestr(f"{i}.png", buffer.getvalue())
            archive.writestr("unnamed.png", b"not among the names, never opened")
    return folder


def test_drawings_are_loaded_with_their_concepts_and_styles(toy_data: Path) -> None:
    drawings = load_drawings(toy_data, ["flat", "twemoji"], load_concepts(toy_data))
    assert drawings.pixels.shape == (7, 4, 72, 72)
    assert drawings.pixels.dtype == torch.uint8
    assert drawings.concept.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert drawings.style.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_rare_concepts_weigh_more(toy_data: Path) -> None:
    drawings = load_drawings(toy_data, ["flat", "twemoji"], load_concepts(toy_data))
    weights = sampling_weights(drawings, len(NAMES))
    assert weights[3] == 1.0
    assert torch.allclose(weights[0], torch.tensor(0.5**0.5))


def test_plain_view_lies_on_white() -> None:
    clear = torch.zeros(1, 4, 72, 72, dtype=torch.uint8)
    assert torch.allclose(plain(clear, 64), torch.ones(1, 3, 64, 64))


def test_views_are_in_range_repeatable_and_not_mirrored() -> None:
    pixels = torch.randint(0, 256, (64, 4, 72, 72), dtype=torch.uint8)
    first = augment(pixels, 48, torch.Generator().manual_seed(7))
    again = augment(pixels, 48, torch.Generator().manual_seed(7))
    assert first.shape == (64, 3, 48, 48)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, again)
    # left half dark, right half light: a mirror image would turn this round
    halves = torch.zeros(256, 4, 72, 72, dtype=torch.uint8)
    halves[:, 3] = 255
    halves[:, :3, :, 36:] = 255
    view = augment(halves, 48, torch.Generator().manual_seed(8))
    inner = view[:, :, 16:32]
    brighter_right = inner[..., 32:40].mean((1, 2, 3)) > inner[..., 8:16].mean((1, 2, 3))
    assert brighter_right.float().mean() > 0.85  # some are line drawings, where both are dark


def test_a_keyword_caption_fits_every_concept_that_has_the_keywords(toy_data: Path) -> None:
    captioner = Captioner(load_concepts(toy_data), keyword_share=1.0)
    chance = random.Random(0)
    captions = [captioner.draw(0, chance) for _ in range(200)]
    assert {caption.fits for caption in captions} == {(0,), (0, 1, 2, 3)}
    shared = next(caption for caption in captions if len(caption.fits) == 4)
    assert "shape" in shared.text
    target = targets(captions, len(NAMES))
    assert torch.allclose(target.sum(dim=1), torch.ones(200))


def test_rate_warms_up_holds_and_falls_to_nothing() -> None:
    recipe = PretrainRecipe(
        class_steps=100, word_steps=50, contrastive_steps=100, decay_steps=80, warmup_steps=10
    )
    assert rate_share(recipe, 0) == pytest.approx(0.1)
    assert rate_share(recipe, 9) == 1.0
    assert rate_share(recipe, 99) == 1.0
    assert rate_share(recipe, 100) == pytest.approx(0.1)  # the text tower warms up on its own
    assert rate_share(recipe, 149) == 1.0
    assert rate_share(recipe, 170) == 1.0
    assert rate_share(recipe, 210) == pytest.approx(0.5)
    assert rate_share(recipe, 249) == pytest.approx(1 / 80)


def test_a_killed_run_ends_as_an_uninterrupted_one(toy_data: Path, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    whole = Pretraining(TOY, toy_data, tmp_path / "whole", cpu)
    stages = [stage for stage, _ in whole.stages()]
    assert stages == ["classes"] * 2 + ["words"] * 2 + ["contrastive"] * 2

    for stop in (1, 3, 5):
        workdir = tmp_path / f"killed-{stop}"
        killed = Pretraining(TOY, toy_data, workdir, cpu)
        for _ in killed.stages():
            if killed.step == stop:
                break
        killed.save()
        resumed = Pretraining(replace(TOY), toy_data, workdir, cpu)
        assert resumed.resume()
        assert resumed.step == stop
        list(resumed.stages())
        for name, value in whole.average.items():
            assert torch.equal(value, resumed.average[name]), name


def test_the_export_is_an_open_clip_folder(toy_data: Path, tmp_path: Path) -> None:
    from models import load_encoder

    run = Pretraining(TOY, toy_data, tmp_path / "work", torch.device("cpu"))
    list(run.stages())
    top1, top5 = run.validate("contrastive")["names"]
    assert 0 <= top1 <= top5 == 1.0  # of four names, all are among the best five
    run.export(tmp_path / "model")
    size = sum(path.stat().st_size for path in (tmp_path / "model").iterdir())
    assert size <= 16 * 2**20
    encoder = load_encoder(f"local-dir:{tmp_path / 'model'}", backend="torch", precision="fp32")
    vectors = encoder.encode_texts(["red circle", "a drawing of a blue square"])
    assert vectors.shape == (2, 256)


def test_texts_encoded_in_trimmed_parts_are_open_clips(toy_data: Path, tmp_path: Path) -> None:
    run = Pretraining(TOY, toy_data, tmp_path, torch.device("cpu"))
    texts = [f"a photo of {'very ' * (i % 7)}{NAMES[i % 4]}" for i in range(150)]
    tokens = run.tokenizer(texts)
    with torch.no_grad():
        expected = run.model.clip.encode_text(tokens)
        assert torch.allclose(encode_trimmed(run.model.clip, tokens), expected, atol=1e-5)
