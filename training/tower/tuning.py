"""An encoder's image tower tuned: settings chosen, trained, and taken back as far as is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.image.preprocess import Preprocessor
from models.towers import LoadedClip, load_clip
from training.data.dataset import Dataset, Samples
from training.data.folder import read_image
from training.errors import DataError, RecipeError
from training.loop import Callback, Run, fit
from training.loop.distributed import current_group, own_device
from training.loop.facts import logits_of, scores
from training.recipe import Recipe
from training.tower.cross_validation import Settings, choose_settings
from training.tower.network import TOWER_METHODS, TowerNetwork, TunedTower, need_text
from training.transfer import interpolate


def pixel_dataset(data: Dataset, preprocessor: Preprocessor) -> Dataset:
    """A Dataset of features -> the same samples as images [N, 3, H, W] in [0, 1], sized as the
    model wants them. All are held in memory: 12 bytes a pixel.

    Raises: DataError where a sample's name leads to no readable file.
    """
    retention = data.retention
    if retention is not None:
        retention = replace(retention, samples=_as_pixels(retention.samples, preprocessor))
    return replace(
        data,
        train=_as_pixels(data.train, preprocessor),
        val=_as_pixels(data.val, preprocessor),
        retention=retention,
    )


def _as_pixels(samples: Samples, preprocessor: Preprocessor) -> Samples:
    if len(samples.names) != len(samples):
        raise DataError(
            "to tune the model itself its images are needed, not features alone: read them from a"
            " folder"
        )
    height, width = preprocessor.config.size
    inputs = torch.empty(len(samples), 3, height, width)
    for row, name in enumerate(samples.names):
        inputs[row] = scaled(preprocessor.fitted(read_image(Path(name))))
    return replace(samples, inputs=inputs)


def scaled(pixels: np.ndarray) -> Tensor:
    """uint8 [..., 3, H, W] -> float32 in [0, 1], rounded as the encoder's preprocessing rounds."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255


def bytes_of(pixels: Tensor) -> np.ndarray:
    """`scaled` undone, to the bit."""
    back: np.ndarray = (pixels * 255).round().byte().numpy()
    return back


TRIALS = "trials"


@dataclass(frozen=True, eq=False)
class Tuned:
    """What `tune_tower` made.

    run: of the last training; its network holds the interpolated weights, and is a TowerNetwork
    before: the tower as it was; images: the data as pixels; clip: the model it belongs to
    device: where it was trained; both towers lie on the CPU
    """

    run: Run
    settings: Settings
    before: TowerNetwork
    images: Dataset
    clip: LoadedClip
    device: str

    @property
    def after(self) -> TowerNetwork:
        """The tuned tower, in evaluation mode, on the CPU."""
        network = self.run.network.network
        assert isinstance(network, TowerNetwork)
        return network

    def logits(self, tower: TowerNetwork, inputs: Tensor) -> Tensor:
        """Of one of the towers for images [N, 3, H, W], computed where it was trained: [N, C]."""
        answers = logits_of(tower.to(self.device), inputs, device=self.device)
        tower.cpu()
        return answers

    def whole_state(self) -> dict[str, Tensor]:
        """The whole model's weights: the tuned image tower, all else as it was."""
        visual = {f"visual.{name}": t for name, t in self.after.visual.state_dict().items()}
        return {**self.clip.module.state_dict(), **visual}


def tune_tower(
    model_id: str,
    data: Dataset,
    *,
    method: str,
    recipe: Recipe | None = None,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    run_dir: Path | None = None,
    device: str = "auto",
) -> Tuned:
    """Tune a model's image tower on the images behind a Dataset of features.

    method: a key of TOWER_METHODS; recipe: instead of the method's own, taken as it is (alpha is
    chosen all the same)
    device: "auto" is a GPU where torch can use one

    The validation split is never looked at, but for the history's rows.

    Raises: RecipeError for an unknown method or a recipe without a transfer rule; DataError where
        the images aren't to be had; UnknownModelError, ModelBrokenError.
    """
    if method not in TOWER_METHODS:
        raise RecipeError(f"{method!r} changes no weights; {', '.join(TOWER_METHODS)} do")
    if recipe is not None and not (
        isinstance(recipe.method, TunedTower) and recipe.transfer is not None
    ):
        raise RecipeError(
            "a recipe that tunes the model has the method TunedTower and a transfer rule",
            param="recipe",
        )
    if device == "auto":
        device = own_device()
    plan = TOWER_METHODS[method]
    clip = load_clip(model_id)
    images = pixel_dataset(data, Preprocessor(clip.preprocess))
    before = _network(clip, images)

    def recipe_for(part: Dataset, rate: float | None) -> Recipe:
        made = plan.fitted_to(part, seed=seed) if recipe is None else recipe.replace(stop=None)
        return made if rate is None else made.replace(**{"optimizer.lr": rate})

    def train(part: Dataset, rate: float, stage: str) -> Mapping[str, Tensor]:
        folder = None if run_dir is None else run_dir / TRIALS / stage.replace(" ", "-")
        done = fit(
            recipe_for(part, None if recipe is not None else rate),
            part,
            model=before.asking(need_text(part), part.others),
            callbacks=callbacks,
            run_dir=folder,
            device=device,
            stage=stage,
            watched=False,
        )
        return {name: tensor.cpu() for name, tensor in _visual(done).state_dict().items()}

    rates = plan.rates if recipe is None else (recipe_rate(recipe),)
    settings = current_group().same(
        choose_settings(before, images, rates, train, seed=seed, device=device)
    )
    chosen = recipe or recipe_for(images, settings.rate)
    run = fit(chosen, images, model=before, callbacks=callbacks, run_dir=run_dir, device=device)
    run.network.cpu()
    state = interpolate(before.visual.state_dict(), _visual(run).state_dict(), settings.alpha)
    _visual(run).load_state_dict(state)
    tuned = Tuned(run, settings, before, images, clip, device)
    metrics: dict[str, float] = {}
    for name, side in (("train", images.train), ("val", images.val)):
        if len(side):
            loss, accuracy = scores(
                tuned.logits(tuned.after, side.inputs), side.labels, chosen.loss
            )
            metrics |= {f"{name}/loss": loss, f"{name}/accuracy": accuracy}
    return replace(tuned, run=replace(run, metrics=metrics))


def recipe_rate(recipe: Recipe) -> float:
    """The peak rate of a recipe."""
    return float(recipe.optimizer.lr)


def _network(clip: LoadedClip, data: Dataset) -> TowerNetwork:
    visual = clip.module.get_submodule("visual")
    mean, std = clip.preprocess.mean, clip.preprocess.std
    return TowerNetwork(visual, need_text(data), data.others, mean=mean, std=std).eval()


def _visual(run: Run) -> nn.Module:
    network = run.network.network
    assert isinstance(network, TowerNetwork)
    return network.visual
