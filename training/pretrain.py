"""Pretrain `pictogram`, the embedded CLIP, from drawings and their names.

    python -m training.pretrain --data ../shared/data/pictograms --out models/pictogram

Three stages, one learning-rate schedule over all image steps (warmup, constant, linear decay):

1. classes: the image tower learns against one free unit vector a concept, so that every concept is a
   negative in every step and no text is computed.
2. words: the text tower learns, from captions alone, to hit the class vectors.
3. contrastive: both towers together under the symmetric contrastive loss (Radford et al. 2021,
   section 2.3) with several positives a row, while both keep aiming at the class vectors.

What is saved is an exponential moving average of the weights. A run that was killed continues
from its last checkpoint (`--checkpoints`); checkpoints are safetensors, never pickles.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from models.towers import build_clip, build_tokenizer, save_clip
from training.captions import Captioner, targets
from training.drawing_augment import augment, plain
from training.pictograms import (
    VALIDATION_STYLE,
    Concept,
    Drawings,
    list_styles,
    load_concepts,
    load_drawings,
)

EMBED_DIM = 256
MERGES = 6000  # byte-pair merges kept of CLIP's 48,894: 6.5k tokens instead of 49k
# Shaded variants of one drawing: counted less, or three styles would be one.
STYLE_WEIGHT = {"fluent-3d": 0.6, "fluent-color": 0.6, "fluent-flat": 0.6}

MODEL_CONFIG = {
    "embed_dim": EMBED_DIM,
    "vision_cfg": {
        "image_size": 64,
        "timm_model_name": "resnet10t",
        "timm_model_pretrained": False,
        "timm_pool": "rot_attn",
        "timm_proj": "",
    },
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 256 + 256 + MERGES + 2,
        "width": 128,
        "heads": 4,
        "layers": 4,
        "tokenizer_kwargs": {"bpe_path": "merges.txt.gz"},
    },
}
PREPROCESS_CONFIG = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "longest",
    "fill_color": 255,
}


@dataclass(frozen=True)
class PretrainRecipe:
    """All that a run depends on, but for the data.

    *_steps: optimiser steps of each stage; *_size: side of the training views in pixels;
    decay_steps: last image steps over which the rate falls to zero.
    """

    class_steps: int = 5000
    word_steps: int = 1500
    contrastive_steps: int = 2000
    decay_steps: int = 2200
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


class Towers(nn.Module):
    """The CLIP and, beside it, one free vector a concept."""

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
        self.model.clip.visual.to(memory_format=torch.channels_last)  # type: ignore[union-attr]
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
        rows = [chance.randrange(len(self.concepts)) for _ in range(2 * self.recipe.batch)]
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
            vectors = self.model.clip.encode_image(views)  # type: ignore[operator]
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
        while self.step < contrast_from + recipe.contrastive_steps:
            if self.step < words_from:
                yield "classes", self.class_step(recipe.class_size)
            elif self.step < contrast_from:
                yield "words", self.word_step()
            else:
                yield "contrastive", self.contrastive_step(recipe.contrastive_size)

    def accuracy(self, *, by: str, size: int) -> tuple[float, float]:
        """Top-1 and top-5 on the validation style, of the moving average.

        by: "classes" compares with the class vectors, "names" with the text vectors of all names.
        size: side of the views in pixels.
        """
        live = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        with torch.no_grad():
            if by == "classes":
                labels = F.normalize(self.model.class_vectors, dim=1)
            else:
                names = [concept.name for concept in self.concepts]
                ensemble = ("{}", "a photo of a {}", "a drawing of a {}", "an icon of a {}")
                labels = sum(  # type: ignore[assignment]
                    F.normalize(
                        encode_trimmed(
                            self.model.clip,
                            self.tokenizer([t.format(n) for n in names]).to(self.device),
                        ),
                        dim=1,
                    )
                    for t in ensemble
                )
                labels = F.normalize(labels, dim=1)
            hits = []
            for pixels, concept in zip(
                self.validation.pixels.split(256), self.validation.concept.split(256), strict=True
            ):
                views = (plain(pixels.to(self.device), size) - 0.5) / 0.5
                vectors = self.model.clip.encode_image(views)  # type: ignore[operator]
                best = (vectors.float() @ labels.T).topk(5, dim=1).indices.cpu()
                hits.append(best == concept[:, None])
        self.model.load_state_dict(live)
        self.model.train()
        found = torch.cat(hits)
        return found[:, 0].float().mean().item(), found.any(dim=1).float().mean().item()

    def export(self, folder: Path) -> None:
        """Write the moving average as an open_clip folder, in half precision."""
        prefix = "clip."
        state = {k[len(prefix) :]: v for k, v in self.average.items() if k.startswith(prefix)}
        # Serving scores come from names alone: calibrated later, the scale starts as trained.
        folder.mkdir(parents=True, exist_ok=True)
        write_merges(folder / "merges.txt.gz")
        save_clip(folder, state, model_cfg=MODEL_CONFIG, preprocess_cfg=PREPROCESS_CONFIG, half=True)

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
    total = recipe.class_steps + recipe.word_steps + recipe.contrastive_steps
    if step >= recipe.class_steps and step < recipe.class_steps + recipe.word_steps:
        into = step - recipe.class_steps
        return min(1.0, (into + 1) / recipe.warmup_steps)
    return min(1.0, (step + 1) / recipe.warmup_steps, (total - step) / recipe.decay_steps)


def sampling_weights(drawings: Drawings, concepts: int) -> torch.Tensor:
    """float32 [N]: rarely drawn concepts and independent styles are drawn more often."""
    count = torch.bincount(drawings.concept, minlength=concepts).float()
    of_style = torch.tensor([STYLE_WEIGHT.get(style, 1.0) for style in drawings.styles])
    return count[drawings.concept].rsqrt() * of_style[drawings.style]


def encode_trimmed(clip: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """encode_text on the tokens up to the longest text: causal, so the rest changes nothing."""
    longest = int(tokens.argmax(dim=1).max()) + 1
    x = clip.token_embedding(tokens[:, :longest])  # type: ignore[operator]
    x = x + clip.positional_embedding[:longest]  # type: ignore[index]
    x = clip.transformer(x, attn_mask=clip.attn_mask[:longest, :longest])  # type: ignore[operator, index]
    x = clip.ln_final(x)  # type: ignore[operator]
    last = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=1)]
    return last @ clip.text_projection  # type: ignore[no-any-return, operator]


def write_merges(path: Path) -> None:
    """The first merges of CLIP's byte-pair vocabulary, in SimpleTokenizer's format."""
    from models.towers import default_merges

    header, *merges = default_merges()
    text = "\n".join([header, *merges[:MERGES]])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
        file.write(text.encode())


def main() -> None:
    """Command line of the pretraining."""
    parser = argparse.ArgumentParser(description="Pretrain the embedded model `pictogram`.")
    parser.add_argument("--data", type=Path, required=True, help="folder with STYLE.zip, names.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="where the model folder goes")
    parser.add_argument("--checkpoints", type=Path, default=Path(".checkpoints/pictogram"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    defaults = PretrainRecipe()
    for field in ("class_steps", "word_steps", "contrastive_steps", "decay_steps"):
        parser.add_argument(f"--{field.replace('_', '-')}", type=int, default=getattr(defaults, field))
    arguments = parser.parse_args()
    recipe = replace(
        defaults,
        class_steps=arguments.class_steps,
        word_steps=arguments.word_steps,
        contrastive_steps=arguments.contrastive_steps,
        decay_steps=arguments.decay_steps,
    )
    run = Pretraining(recipe, arguments.data, arguments.checkpoints, torch.device(arguments.device))
    resumed = run.resume()
    total = recipe.class_steps + recipe.word_steps + recipe.contrastive_steps
    print(f"{'resumed at' if resumed else 'starting at'} step {run.step} of {total}", file=sys.stderr)
    log = (arguments.checkpoints / "log.jsonl").open("a", encoding="utf-8")
    smooth: dict[str, float] = {}
    began, first = time.monotonic(), run.step
    for stage, measured in run.stages():
        for key, value in measured.items():
            smooth[key] = 0.97 * smooth.get(key, value) + 0.03 * value
        if run.step % 25 == 0:
            pace = (time.monotonic() - began) / (run.step - first)
            row = {"step": run.step, "stage": stage, **{k: round(v, 4) for k, v in smooth.items()}}
            print(f"{row}  {pace:.2f} s/step, {pace * (total - run.step) / 60:.0f} min left", file=sys.stderr)
            log.write(json.dumps(row) + "\n")
            log.flush()
        if run.step % arguments.every == 0 or run.step == total:
            run.save()
            size = recipe.contrastive_size if stage == "contrastive" else recipe.class_size
            result = {"step": run.step, "classes": run.accuracy(by="classes", size=size)}
            if stage != "classes":
                result["names"] = run.accuracy(by="names", size=size)
            print(result, file=sys.stderr)
            log.write(json.dumps(result) + "\n")
            log.flush()
    run.export(arguments.out)


if __name__ == "__main__":
    main()
