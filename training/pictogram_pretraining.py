"""The pretraining of the embedded model: its stages, its steps, its checkpoints.

Three stages, one learning-rate schedule over all image steps (warmup, constant, linear decay):

1. classes: the image tower learns against one free unit vector a concept, so that every concept is
   a negative in every step and no text is computed.
2. words: the text tower learns, from captions alone, to hit the class vectors.
3. contrastive: both towers together under the symmetric contrastive loss (Radford et al. 2021,
   section 2.3) with several positives a row, while both keep aiming at the class vectors.

What is saved is an exponential moving average of the weights. A run that was killed continues
from its last checkpoint; checkpoints are safetensors, never pickles.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from models.towers import build_clip, build_tokenizer, save_clip
from training.captions import Captioner, targets
from training.drawing_augment import augment, plain
from training.pictogram import (
    EMBED_DIM,
    MODEL_CONFIG,
    PREPROCESS_CONFIG,
    encode_trimmed,
    write_merges,
)
from training.pictograms import (
    VALIDATION_STYLE,
    Drawings,
    list_styles,
    load_concepts,
    load_drawings,
)

# Shaded variants of one drawing: counted less, or three styles would be one.
STYLE_WEIGHT = {"fluent-3d": 0.6, "fluent-color": 0.6, "fluent-flat": 0.6}


@dataclass(frozen=True)
class PretrainRecipe:
    """All that a run depends on, but for the data.

    *_steps: optimiser steps of each stage; *_size: side of the training views in pixels;
    decay_steps: last image steps over which the rate falls to zero.
    """

    class_steps: int = 2200
    word_steps: int = 1400
    contrastive_steps: int = 900
    decay_steps: int = 900
    batch: int = 256
    class_size: int = 48
    contrastive_size: int = 64
    rate: float = 2e-3
    text_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    average_decay: float = 0.998
    seed: int = 0

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all stages together."""
        return self.class_steps + self.word_steps + self.contrastive_steps


class Towers(nn.Module):
    """The CLIP and, beside it, one free vector a concept."""

    clip: Any  # open_clip's CLIP; its attributes are more than nn.Module declares

    def __init__(self, clip: nn.Module, concepts: int) -> None:
        super().__init__()
        self.clip = clip
        self.class_vectors = nn.Parameter(torch.randn(concepts, EMBED_DIM) / math.sqrt(EMBED_DIM))
        self.class_scale = nn.Parameter(torch.tensor(math.log(16.0)))

    def class_logits(self, vectors: torch.Tensor) -> torch.Tensor:
        """(B, D) unit vectors -> (B, concepts)."""
        scale = self.class_scale.exp().clamp(max=64)
        return scale * vectors @ F.normalize(self.class_vectors, dim=1).T


class Pretraining:
    """One run: model, moving average, optimiser, data and the position in the schedule."""

    def __init__(
        self, recipe: PretrainRecipe, data: Path, workdir: Path, device: torch.device
    ) -> None:
        self.recipe, self.device, self.workdir = recipe, device, workdir
        workdir.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        write_merges(workdir / "merges.txt.gz")
        self.concepts = load_concepts(data)
        styles = [style for style in list_styles(data) if style != VALIDATION_STYLE]
        self.train = load_drawings(data, styles, self.concepts)
        self.validation = load_drawings(data, [VALIDATION_STYLE], self.concepts)
        self.weights = sampling_weights(self.train, len(self.concepts))
        self.captioner = Captioner(self.concepts)
        self.tokenizer = build_tokenizer(MODEL_CONFIG, workdir)
        self.model = Towers(build_clip(MODEL_CONFIG), len(self.concepts)).to(device)
        self.model.clip.visual.to(memory_format=torch.channels_last)
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.optimizer = self._optimizer()
        self.step = 0
        self.generator = torch.Generator(device).manual_seed(recipe.seed)
        self.pick_generator = torch.Generator().manual_seed(recipe.seed)

    def _optimizer(self) -> torch.optim.AdamW:
        """AdamW in four groups: image or text side, decayed matrices or the rest."""
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            text = name.startswith("clip.") and not name.startswith("clip.visual.")
            decayed = parameter.ndim > 1 and name != "class_vectors"
            groups.setdefault((text, decayed), []).append(parameter)
        return torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "weight_decay": self.recipe.weight_decay if decayed else 0.0,
                    "text": text,
                }
                for (text, decayed), parameters in sorted(groups.items())
            ],
            lr=self.recipe.rate,
            betas=(0.9, 0.98),
        )

    # ---- steps -------------------------------------------------------------------------

    def class_step(self, size: int) -> dict[str, float]:
        """Images against class vectors."""
        rows = self._pick()
        concept = self.train.concept[rows].to(self.device)
        vectors = self._see(rows, size)
        loss = self._class_loss(vectors, concept)
        self._update(loss)
        return {"loss": float(loss.detach())}

    def word_step(self) -> dict[str, float]:
        """Captions against class vectors, which stand still."""
        chance = random.Random((self.recipe.seed << 32) + self.step)
        rows = [chance.randrange(len(self.concepts)) for _ in range(self.recipe.batch)]
        vectors, target = self._read(rows, chance)
        with torch.no_grad():
            anchors = F.normalize(self.model.class_vectors, dim=1)
        logits = self.model.class_scale.exp().detach().clamp(max=64) * vectors @ anchors.T
        loss = F.cross_entropy(logits, target)
        self._update(loss)
        return {"loss": float(loss.detach())}

    def contrastive_step(self, size: int) -> dict[str, float]:
        """Both towers: contrastive, and both against the class vectors."""
        rows = self._pick()
        concept = self.train.concept[rows]
        chance = random.Random((self.recipe.seed << 32) + self.step)
        texts, target = self._read(concept.tolist(), chance)
        images = self._see(rows, size)
        concept = concept.to(self.device)
        scale = self.model.clip.logit_scale.exp().clamp(max=100)
        logits = scale * images @ texts.T  # (B images, B captions)
        fits = (target[:, concept] > 0).T.float()  # fits[i, j]: caption j fits image i
        contrast = (
            F.cross_entropy(logits, fits / fits.sum(dim=1, keepdim=True))
            + F.cross_entropy(logits.T, fits.T / fits.T.sum(dim=1, keepdim=True))
        ) / 2
        class_loss = self._class_loss(images, concept)
        word_loss = F.cross_entropy(self.model.class_logits(texts), target)
        loss = contrast + class_loss + 0.5 * word_loss
        self._update(loss)
        return {
            "loss": float(loss.detach()),
            "contrast": float(contrast.detach()),
            "class": float(class_loss.detach()),
            "word": float(word_loss.detach()),
        }

    def _pick(self) -> torch.Tensor:
        return torch.multinomial(
            self.weights, self.recipe.batch, replacement=True, generator=self.pick_generator
        )

    def _see(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        """Drawings at `rows` -> unit vectors (B, D) of one random view each."""
        pixels = self.train.pixels[rows].to(self.device)
        views = (augment(pixels, size, self.generator) - 0.5) / 0.5
        views = views.to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16):
            vectors = self.model.clip.encode_image(views)
        return F.normalize(vectors.float(), dim=1)

    def _read(self, rows: list[int], chance: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
        """A caption for each concept row -> unit vectors (B, D), targets (B, concepts)."""
        captions = [self.captioner.draw(row, chance) for row in rows]
        tokens = self.tokenizer([caption.text for caption in captions]).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            vectors = encode_trimmed(self.model.clip, tokens)
        target = targets(captions, len(self.concepts)).to(self.device)
        return F.normalize(vectors.float(), dim=1), target

    def _class_loss(self, vectors: torch.Tensor, concept: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(
            self.model.class_logits(vectors), concept, label_smoothing=self.recipe.label_smoothing
        )

    def _update(self, loss: torch.Tensor) -> None:
        share = rate_share(self.recipe, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = share * (self.recipe.text_rate if group["text"] else self.recipe.rate)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        # A young average forgets faster, or it would remember the random start.
        decay = min(self.recipe.average_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.dtype.is_floating_point:
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)

    # ---- the run -----------------------------------------------------------------------

    def stages(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Run all steps from where the run stands; yields (stage, measurements) a step."""
        recipe = self.recipe
        self.model.train()
        words_from = recipe.class_steps
        contrast_from = words_from + recipe.word_steps
        while self.step < recipe.total_steps:
            if self.step < words_from:
                yield "classes", self.class_step(recipe.class_size)
            elif self.step < contrast_from:
                yield "words", self.word_step()
            else:
                yield "contrastive", self.contrastive_step(recipe.contrastive_size)

    def validate(self, stage: str) -> dict[str, tuple[float, float]]:
        """Top-1 and top-5 on the validation style, of the moving average.

        "classes" compares with the class vectors; "names", once there has been text, with the text
        vectors of all names.
        """
        recipe = self.recipe
        size = recipe.contrastive_size if stage == "contrastive" else recipe.class_size
        live = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        with torch.no_grad():
            vectors = [
                self._encode((plain(pixels.to(self.device), size) - 0.5) / 0.5)
                for pixels in self.validation.pixels.split(recipe.batch)
            ]
            images = torch.cat(vectors)
            found = {"classes": self._hits(images, F.normalize(self.model.class_vectors, dim=1))}
            if stage != "classes":
                found["names"] = self._hits(images, self._name_vectors())
        self.model.load_state_dict(live)
        self.model.train()
        return found

    def _encode(self, views: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.model.clip.encode_image(views).float(), dim=1)

    def _name_vectors(self) -> torch.Tensor:
        """(concepts, D): every name in four wordings, averaged and renormalised."""
        ensemble = torch.zeros(len(self.concepts), EMBED_DIM, device=self.device)
        for template in ("{}", "a photo of a {}", "a drawing of a {}", "an icon of a {}"):
            texts = [template.format(concept.name) for concept in self.concepts]
            tokens = self.tokenizer(texts).to(self.device)
            ensemble += F.normalize(encode_trimmed(self.model.clip, tokens), dim=1)
        return F.normalize(ensemble, dim=1)

    def _hits(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        best = (images @ labels.T).topk(min(5, len(labels)), dim=1).indices.cpu()
        hit = best == self.validation.concept[:, None]
        return hit[:, 0].float().mean().item(), hit.any(dim=1).float().mean().item()

    def export(self, folder: Path) -> None:
        """Write the moving average as an open_clip folder, in half precision."""
        prefix = "clip."
        state = {k[len(prefix) :]: v for k, v in self.average.items() if k.startswith(prefix)}
        folder.mkdir(parents=True, exist_ok=True)
        write_merges(folder / "merges.txt.gz")
        save_clip(
            folder, state, model_cfg=MODEL_CONFIG, preprocess_cfg=PREPROCESS_CONFIG, half=True
        )

    # ---- checkpoints -------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint beside the last one, then take its place."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        tensors["generator"] = self.generator.get_state()
        tensors["pick_generator"] = self.pick_generator.get_state()
        contiguous = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
        metadata = {"step": str(self.step), "recipe": json.dumps(asdict(self.recipe))}
        path = self.workdir / "checkpoint.safetensors"
        save_file(contiguous, path.with_suffix(".new"), metadata=metadata)
        path.with_suffix(".new").replace(path)

    def resume(self) -> bool:
        """Continue from the checkpoint, if there is one. Stage lengths may have changed since."""
        path = self.workdir / "checkpoint.safetensors"
        if not path.exists():
            return False
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            self.step = int(file.metadata()["step"])

        def under(prefix: str) -> dict[str, torch.Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(under("model."))
        self.average = {k: v.to(self.device) for k, v in under("average.").items()}
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in under("optimizer.").items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
        whole = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
        self.generator.set_state(tensors["generator"])
        self.pick_generator.set_state(tensors["pick_generator"])
        return True


def rate_share(recipe: PretrainRecipe, step: int) -> float:
    """Share of the full rate at `step`: warmup, constant, linear to zero; words warm up anew."""
    if step >= recipe.class_steps and step < recipe.class_steps + recipe.word_steps:
        into = step - recipe.class_steps
        return min(1.0, (into + 1) / recipe.warmup_steps)
    return min(
        1.0, (step + 1) / recipe.warmup_steps, (recipe.total_steps - step) / recipe.decay_steps
    )


def sampling_weights(drawings: Drawings, concepts: int) -> torch.Tensor:
    """float32 [N]: rarely drawn concepts and independent styles are drawn more often."""
    count = torch.bincount(drawings.concept, minlength=concepts).float()
    of_style = torch.tensor([STYLE_WEIGHT.get(style, 1.0) for style in drawings.styles])
    return count[drawings.concept].rsqrt() * of_style[drawings.style]
