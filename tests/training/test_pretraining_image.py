"""The image side of the embedded model's pretraining, on tiny data made here."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.towers import build_clip
from training.pretraining import image as image_module
from training.pretraining.classes import ClassTable, load_class_table
from training.pretraining.drawings import load_concepts
from training.pretraining.image import MODEL_CONFIG, ImageRecipe, ImageTraining, Phase, rate_share
from training.pretraining.photographs import load_photographs, photograph_views
from training.pretraining.scale import calibration_error
from training.pretraining.trunk import Depthwise, FrozenTrunk, LateTrunk, timm_state

RECIPE = ImageRecipe(
    phases=(
        Phase(3, 32, (0.7, 1.2), 4, 6, 0.3, 1e-3, 1.0),
        Phase(4, 40, (0.7, 1.2), 4, 6, 0.3, 1e-3, 1.0),
    ),
    decay_steps=2,
    warmup_steps=1,
)


def random_trunk(seed: int) -> Any:
    """A trunk whose norms are no identities."""
    torch.manual_seed(seed)
    clip: Any = build_clip(MODEL_CONFIG)
    for module in clip.visual.trunk.modules():
        if hasattr(module, "running_var"):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_(std=0.1)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    return clip.visual.trunk


@torch.no_grad()
def features(trunk: Any, views: torch.Tensor) -> torch.Tensor:
    pooled: torch.Tensor = trunk.forward_head(
        trunk.forward_features((views * 255 - 127) / 128), pre_logits=True
    )
    return pooled


# An odd number of rows at a stride takes the other branch of the padding.
@pytest.mark.parametrize("size", [64, 72])
def test_the_two_halves_compute_what_the_trunk_does(size: int) -> None:
    trunk = random_trunk(0)
    views = torch.rand(2, 3, size, size)
    expected = features(trunk, views)
    frozen = FrozenTrunk(trunk)
    late = LateTrunk(frozen)
    torch.testing.assert_close(late(frozen(views)), expected, rtol=1e-3, atol=1e-4)


def test_trained_weights_go_back_into_the_trunk() -> None:
    frozen = FrozenTrunk(random_trunk(0))
    late = LateTrunk(frozen)
    with torch.no_grad():
        for parameter in late.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    trunk = random_trunk(1)
    views = torch.rand(2, 3, 64, 64)
    untouched = features(trunk, views)
    trunk.load_state_dict(timm_state(frozen, late, trunk))
    torch.testing.assert_close(features(trunk, views), late(frozen(views)), rtol=1e-3, atol=1e-4)
    assert (features(trunk, views) - untouched).abs().max() > 1e-2


@pytest.mark.parametrize(("stride", "padding"), [(1, 2), (2, 0)])
def test_gradients_of_the_depthwise_convolution(stride: int, padding: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 9, 9, 3, dtype=torch.double, requires_grad=True)
    kernel = torch.randn(3, 1, 5, 5, dtype=torch.double)
    bias = torch.randn(3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, bias: Depthwise.apply(x, kernel, bias, stride, padding), (x, bias)
    )


def test_a_concept_shares_the_row_of_the_class_it_is_named_like(data: Path) -> None:
    table = load_class_table(data, load_concepts(data / "pictograms"))
    assert table.nodes == 1002
    # "thing 3" is a class, "animal" a hypernym, "kite" names a hawk there, "smile" nothing.
    assert table.concept_rows.tolist() == [3, 1000 + table_row(table, "animal"), 1004, 1005]
    assert table.shared().tolist() == [True, True, False, False]
    assert table.ancestry()[3].nonzero()[:, 0].tolist() == [3, 1000 + table_row(table, "animal")]
    assert table.sizes()[1000:].tolist() == [500, 500]


def table_row(table: ClassTable, word: str) -> int:
    return [names[0] for names in table.names[1000:]].index(word)


def test_no_held_out_photograph_is_trained_on(data: Path) -> None:
    trained = load_photographs(data, held_out=False)
    judged = load_photographs(data, held_out=True)
    assert (len(trained.large), len(judged.large)) == (5, 200)
    assert not set(trained.large_class) & set(judged.large_class)
    assert (len(trained.small), len(judged.small)) == (4, 40)
    # every small photograph made here has a colour of its own
    seen = {tuple(pixels[:, 32, 32].tolist()) for pixels in trained.small}
    assert not seen & {tuple(pixels[:, 32, 32].tolist()) for pixels in judged.small}


def test_views_repeat_with_their_seed_and_keep_their_labels(data: Path) -> None:
    photographs = load_photographs(data, held_out=False)
    views = photograph_views(photographs, small=3, large=2, size=32, seed=5)
    again = photograph_views(photographs, small=3, large=2, size=32, seed=5)
    other = photograph_views(photographs, small=3, large=2, size=32, seed=6)
    assert torch.equal(views.view, again.view)
    assert not torch.equal(views.view, other.view)
    assert views.small.tolist() == [True] * 3 + [False] * 2
    assert set(views.label[3:].tolist()) <= set(photographs.large_class)
    assert views.view.shape == (5, 3, 32, 32)


def test_a_resumed_run_goes_on_where_it_stood(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = random_trunk(0)
    values = [*trunk.state_dict().values(), torch.randn(1000, 1280), torch.zeros(1000)]
    monkeypatch.setattr(
        image_module, "teacher_state", lambda names: dict(zip(names, values, strict=True))
    )
    run = ImageTraining(RECIPE, data, tmp_path)
    run.start()
    before = run.tower.class_vectors().detach().clone()
    steps = run.run()
    first = [next(steps) for _ in range(2)]
    run.save()
    kept = [value.clone() for value in run.tower.state_dict().values()]
    resumed = ImageTraining(RECIPE, data, tmp_path)
    assert resumed.resume()
    assert resumed.step == 2
    for value, expected in zip(resumed.tower.state_dict().values(), kept, strict=True):
        assert torch.equal(value, expected)
    rest = list(resumed.run())
    assert resumed.step == RECIPE.steps == len(first) + len(rest)
    assert all(np.isfinite(measured["loss"]) for measured in first + rest)
    assert not torch.equal(resumed.tower.class_vectors(), before)
    state = resumed.visual_state()
    trained, start = resumed.average["projection"], resumed.untrained["projection"]
    mixed = state["visual.head.proj.weight"]
    torch.testing.assert_close(mixed, 0.75 * trained + 0.25 * start)
    assert not torch.equal(trained, start)
    clip: Any = build_clip(MODEL_CONFIG)
    missing, unexpected = clip.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [name for name in missing if name.startswith("visual.")]


def test_the_rate_rises_and_falls() -> None:
    phases = (Phase(100, 32, (1, 1), 2, 2, 0.5, 1e-3, 1.0),)
    recipe = ImageRecipe(phases=phases, decay_steps=20, warmup_steps=10)
    shares = [rate_share(recipe, step) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[50] == 1
    assert shares[99] == pytest.approx(0.05)


def test_calibration_error_of_known_confidences() -> None:
    # Two classes at logit 0: confidence 0.5; the first is always chosen and half of them right.
    logits = torch.zeros(4, 2)
    assert calibration_error(logits, torch.tensor([0, 1, 0, 1])) == pytest.approx(0, abs=1e-6)
    assert calibration_error(logits, torch.zeros(4, dtype=torch.long)) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 classes under two hypernyms, 205 large and 44 small photographs, four concepts."""
    folder = tmp_path_factory.mktemp("data")
    words, pictograms = folder / "words", folder / "pictograms"
    for made in (words, pictograms, folder / "photos"):
        made.mkdir()
    classes = [
        {
            "index": index,
            "wnid": f"n1{index:07d}",
            "name": f"thing {index}",
            "synonyms": ["kite"] if index == 7 else [],
            "hypernyms": ["n20000000" if index < 500 else "n20000001"],
        }
        for index in range(1000)
    ]
    _write_lines(words / "imagenet.jsonl", classes)
    nouns = [
        {"wnid": "n20000000", "words": ["animal"]},
        {"wnid": "n20000001", "words": ["artifact"]},
        {"wnid": "n20000002", "words": ["idea"]},
    ]
    with gzip.open(words / "nouns.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(noun) + "\n" for noun in nouns)
    names = ["thing 3", "Animal", "kite", "smile"]
    _write_lines(
        pictograms / "names.jsonl",
        [{"id": f"c{i}", "name": name, "keywords": []} for i, name in enumerate(names)],
    )
    for style in ("noto", "twemoji"):
        with zipfile.ZipFile(pictograms / f"{style}.zip", "w") as archive:
            for index in range(len(names)):
                archive.writestr(f"c{index}.png", _picture(index, 72, "PNG", "RGBA"))
    with zipfile.ZipFile(folder / "photos-256.zip", "w") as archive:
        for index in range(205):
            name = f"n1{index:07d}_thing.jpg"
            content = _picture(index, 48, "JPEG", "RGB")
            if index < 3:
                (folder / "photos" / name).write_bytes(content)
            else:
                archive.writestr(name, content)
    with zipfile.ZipFile(folder / "photos-64.zip", "w") as archive:
        for index in range(44):
            content = _picture(index, 64, "JPEG", "RGB")
            archive.writestr(f"n1{index % 2:07d}/{index:03d}.jpg", content)
    return folder


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _picture(index: int, side: int, kind: str, mode: str) -> bytes:
    colour = (index % 7 * 36, index // 7 % 7 * 36, index // 49 * 36)
    image = Image.new("RGB", (side, side), colour).convert(mode)
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()
