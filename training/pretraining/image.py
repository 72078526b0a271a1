"""The training of the image tower: drawings are learned, photographs are held.

Loss of a step, all similarities being cosines times one common scale:

- drawings: cross entropy among all concepts, with label smoothing;
- photographs: Kullback-Leibler divergence from the frozen copy's softmax over 1,000 classes, taken
  from the sharp crop also where the tower sees a blurred one (Hinton et al. 2015, section 2);
- photographs of photos-64: cross entropy among their 200 classes alone, so that no class outside
  of them is pushed away;
- photographs with a label: cross entropy of one of its hypernyms, drawn at random, against all
  classes and hypernyms that the photograph does not belong to.

The projection starts from the singular vectors of the classifier's centred rows, the class vectors
from those rows, so that the untrained tower already classifies photographs by cosine. What is
saved is an exponential moving average of the weights; checkpoints are safetensors.
"""

from __future__ import annotations

import copy
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
from torch.utils.data import DataLoader, Dataset, Sampler

from models.towers import build_clip
from training.pretraining.classes import CLASSES, ClassTable, load_class_table
from training.pretraining.drawings import (
    VALIDATION_STYLE,
    augment,
    list_styles,
    load_concepts,
    load_drawings,
    plain,
    sampling_weights,
)
from training.pretraining.photographs import load_photographs, photograph_views
from training.pretraining.text import EMBED_DIM, TEXT_CONFIG
from training.pretraining.trunk import FEATURES, FrozenTrunk, LateTrunk, teacher_state, timm_state

VISION_CONFIG: dict[str, Any] = {
    "image_size": 192,
    "timm_model_name": "tf_efficientnet_lite0",
    "timm_model_pretrained": False,
    "timm_pool": "avg",
    "timm_proj": "linear",
    "timm_proj_bias": True,
}
PREPROCESS_CONFIG: dict[str, Any] = {
    "mean": [127 / 255] * 3,
    "std": [128 / 255] * 3,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": EMBED_DIM,
    "vision_cfg": VISION_CONFIG,
    "text_cfg": TEXT_CONFIG,
}
# Hypernyms above this many classes ("animal", "object") are too wide to be told apart.
WIDEST = 130
# How much of a drawing's mean goes into a row that photographs share, at the start.
SHARE_OF_DRAWINGS = 0.35
# What the result mixes of trained and untrained weights; class vectors are not among it.
_MIXED = ("late.", "projection")


@dataclass(frozen=True)
class Phase:
    """A stretch of steps with the same views.

    until: the step that it ends before
    size: side of the views in pixels; zoom: range of the drawings' scale, above 1 shrinks them
    drawings, photographs: views a step; large_share: of the photographs
    rate: of a matrix, as a share of the root mean square of its values
    """

    until: int
    size: int
    zoom: tuple[float, float]
    drawings: int
    photographs: int
    large_share: float
    rate: float
    distil_weight: float


@dataclass(frozen=True)
class ImageRecipe:
    """All that a run depends on, but for the data.

    phases: small views first, because a step costs a third of one with large views
    decay_steps: last steps, over which the rate falls to zero
    kept: batches that are kept; half of a step's views are fresh, half are from one of them,
        because drawing a view takes about as long as learning from it
    trained_share: how much of the trained weights the result has, the rest being the untrained
        ones: 0.75 knows drawings as well as 1 does, and photographs better by 4 points (Wortsman
        et al. 2022, Robust fine-tuning of zero-shot models)
    """

    phases: tuple[Phase, ...] = (
        Phase(400, 96, (0.7, 1.2), 40, 14, 0.3, 4e-3, 1.0),
        Phase(2200, 128, (0.6, 1.08), 40, 14, 0.3, 2.5e-3, 2.0),
        Phase(3100, 160, (0.72, 1.15), 28, 26, 0.5, 2.5e-3, 4.0),
    )
    decay_steps: int = 850
    kept: int = 400
    warmup_steps: int = 60
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    label_weight: float = 0.4
    hypernym_weight: float = 0.25
    scale: float = 30.0
    average_decay: float = 0.997
    trained_share: float = 0.75
    seed: int = 0

    @property
    def steps(self) -> int:
        """Steps of all phases together."""
        return self.phases[-1].until

    def phase(self, step: int) -> Phase:
        """The phase that a step belongs to."""
        return next(phase for phase in self.phases if step < phase.until)


class Batches(Dataset[dict[str, torch.Tensor]]):
    """Item i: step i's fresh views, gone through the frozen half of the trunk."""

    def __init__(
        self, recipe: ImageRecipe, data: Path, frozen: FrozenTrunk, teacher: Teacher
    ) -> None:
        self.recipe, self.frozen, self.teacher = recipe, frozen, teacher
        pictograms = data / "pictograms"
        concepts = load_concepts(pictograms)
        styles = [style for style in list_styles(pictograms) if style != VALIDATION_STYLE]
        self.drawings = load_drawings(pictograms, styles, concepts)
        self.weights = sampling_weights(self.drawings, len(concepts))
        self.photographs = load_photographs(data, held_out=False)

    @torch.no_grad()
    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        torch.set_num_threads(1)
        phase = self.recipe.phase(step)
        seed = (self.recipe.seed << 32) + step
        generator = torch.Generator().manual_seed(seed)
        rows = torch.multinomial(self.weights, phase.drawings // 2, generator=generator)
        drawn = augment(self.drawings.pixels[rows], phase.size, generator, zoom=phase.zoom)
        count = phase.photographs // 2
        large = round(count * phase.large_share)
        photographs = photograph_views(
            self.photographs, small=count - large, large=large, size=phase.size, seed=seed
        )
        sharp = self.frozen(photographs.clean)
        return {
            "drawings": self.frozen(drawn).half(),
            "concept": self.drawings.concept[rows],
            "photographs": self.frozen(photographs.view).half(),
            "label": photographs.label,
            "small": photographs.small,
            "teacher": self.teacher(sharp),
        }


class Teacher(nn.Module):
    """The frozen copy with its classifier: kept features -> logits [B, 1000]."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, frozen: FrozenTrunk, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.late = LateTrunk(frozen).requires_grad_(False)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, kept: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 40) -> (B, 1000)"""
        logits: torch.Tensor = F.linear(self.late(kept), self.weight, self.bias)
        return logits


class ImageTower(nn.Module):
    """The trained half of the trunk, the projection and the class vectors."""

    def __init__(
        self, frozen: FrozenTrunk, table: ClassTable, weight: torch.Tensor, scale: float
    ) -> None:
        super().__init__()
        self.late = LateTrunk(frozen)
        centred = weight - weight.mean(dim=0)
        basis = torch.linalg.svd(centred, full_matrices=False).Vh[:EMBED_DIM].contiguous()
        self.projection = nn.Parameter(basis)
        self.projection_bias = nn.Parameter(torch.zeros(EMBED_DIM))
        leaves = F.normalize(centred @ basis.T, dim=1)
        self.leaves = nn.Parameter(leaves)
        concepts = torch.zeros(len(table.concept_rows), EMBED_DIM)
        self.others = nn.Parameter(torch.cat([table.members @ leaves, concepts]))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def vectors(self, kept: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 40) -> unit vectors (B, D)"""
        return F.normalize(F.linear(self.late(kept), self.projection, self.projection_bias), dim=1)

    def class_vectors(self) -> torch.Tensor:
        """Unit rows of the whole table, (rows, D)."""
        return F.normalize(torch.cat([self.leaves, self.others]), dim=1)


class ImageTraining:
    """One run: tower, moving average, optimiser, data and the position in the schedule."""

    def __init__(self, recipe: ImageRecipe, data: Path, workdir: Path) -> None:
        self.recipe, self.workdir = recipe, workdir
        workdir.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        clip: Any = build_clip(MODEL_CONFIG)
        self.trunk = clip.visual.trunk
        # the classifier's two tensors are the last ones
        names = [*self.trunk.state_dict(), "classifier.weight", "classifier.bias"]
        weights = teacher_state(names)
        weight, bias = weights.pop("classifier.weight"), weights.pop("classifier.bias")
        self.trunk.load_state_dict(weights)
        self.frozen = FrozenTrunk(self.trunk)
        self.table = load_class_table(data, load_concepts(data / "pictograms"))
        self.batches = Batches(recipe, data, self.frozen, Teacher(self.frozen, weight, bias))
        self.tower = ImageTower(self.frozen, self.table, weight, recipe.scale)
        self.step = 0
        self._ancestry = self.table.ancestry()
        sizes = self.table.sizes()
        self._asked = torch.where(sizes <= WIDEST, sizes.rsqrt(), torch.zeros(()))
        self._small_classes = self.batches.photographs.small_class.unique()
        self.optimizer = self._optimizer()
        self.average: dict[str, torch.Tensor] = {}
        self.untrained: dict[str, torch.Tensor] = {}

    def start(self) -> None:
        """Give the drawings' rows their first vectors: the means of the untrained tower's."""
        drawings, size = self.batches.drawings, self.recipe.phases[-1].size
        sums = torch.zeros(len(self.table.concept_rows), FEATURES)
        counts = torch.zeros(len(sums), 1)
        with torch.no_grad():
            for rows in torch.arange(len(drawings.concept)).split(64):
                features = self.tower.late(self.frozen(plain(drawings.pixels[rows], size)))
                sums.index_add_(0, drawings.concept[rows], features)
                counts.index_add_(0, drawings.concept[rows], torch.ones(len(rows), 1))
            centre = sums.sum(dim=0) / counts.sum()
            tower = self.tower
            tower.projection_bias.copy_(-tower.projection @ centre)
            means = F.linear(sums / counts, tower.projection, tower.projection_bias)
            vectors, nodes = F.normalize(means, dim=1), self.table.nodes
            tower.others[nodes - CLASSES :] = vectors
            for row, vector in zip(self.table.concept_rows.tolist(), vectors, strict=True):
                if row < nodes:
                    part = tower.leaves if row < CLASSES else tower.others
                    shared = part[row % CLASSES] if row < CLASSES else part[row - CLASSES]
                    shared.copy_(F.normalize(shared, dim=0) + SHARE_OF_DRAWINGS * vector)
            self.average = {k: v.detach().clone() for k, v in tower.state_dict().items()}
            self.untrained = {k: v for k, v in self.average.items() if k.startswith(_MIXED)}
            self.untrained = {k: v.clone() for k, v in self.untrained.items()}

    def _optimizer(self) -> torch.optim.AdamW:
        """AdamW; every tensor has a rate in proportion to the size of its values."""
        groups = []
        shares = {"leaves": 0.15, "others": 4.0, "projection": 0.7}
        for name, parameter in self.tower.named_parameters():
            if name == "log_scale":
                own = 0.4
            elif parameter.ndim == 1:
                own = 0.3
            else:
                own = shares.get(name, 1.0) * _typical(parameter)
            decayed = name.startswith("late") and parameter.ndim > 1
            decay = self.recipe.weight_decay if decayed else 0.0
            groups.append({"params": [parameter], "own_rate": own, "weight_decay": decay})
        return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-10, fused=True)

    # ---- steps -------------------------------------------------------------------------

    def run(self) -> Iterator[dict[str, float]]:
        """All steps from where the run stands; yields the measurements of each."""
        loader = DataLoader(
            self.batches,
            sampler=_From(self.step, self.recipe.steps),
            batch_size=None,
            num_workers=1,
            prefetch_factor=4,
        )
        kept: list[dict[str, torch.Tensor]] = []
        for fresh in loader:
            chance = random.Random((self.recipe.seed << 32) + self.step)
            if kept and kept[0]["drawings"].shape[1:] != fresh["drawings"].shape[1:]:
                kept.clear()  # views of another size
            old = kept[chance.randrange(len(kept))] if kept else fresh
            kept.append(fresh)
            if len(kept) > self.recipe.kept:
                kept.pop(chance.randrange(self.recipe.kept // 2))
            yield self._update({key: torch.cat([fresh[key], old[key]]) for key in fresh})

    def losses(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The parts of the loss, unweighted: drawing, distil, label, hypernym."""
        drawn = len(batch["drawings"])
        kept = torch.cat([batch["drawings"], batch["photographs"]]).float()
        vectors, rows = self.tower.vectors(kept), self.tower.class_vectors()
        scale = self.tower.log_scale.exp().clamp(max=60)
        concepts = scale * vectors[:drawn] @ rows[self.table.concept_rows].T
        nodes = scale * vectors[drawn:] @ rows[: self.table.nodes].T
        label, small, own = batch["label"], batch["small"], self._ancestry[batch["label"]]
        asked = torch.multinomial(self._asked * own, 1)
        right = nodes.gather(1, asked)
        wrong = nodes.masked_fill(own | (self._asked == 0), float("-inf"))
        among = torch.searchsorted(self._small_classes, label[small])
        smoothing = self.recipe.label_smoothing
        return {
            "drawing": F.cross_entropy(concepts, batch["concept"], label_smoothing=smoothing),
            "distil": F.kl_div(
                F.log_softmax(nodes[:, :CLASSES], dim=1),
                F.softmax(batch["teacher"], dim=1),
                reduction="batchmean",
            ),
            "label": F.cross_entropy(
                nodes[small][:, self._small_classes], among, label_smoothing=smoothing
            ),
            "hypernym": (torch.cat([right, wrong], dim=1).logsumexp(1) - right[:, 0]).mean(),
        }

    def _update(self, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        recipe, phase = self.recipe, self.recipe.phase(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["own_rate"] * phase.rate * rate_share(recipe, self.step)
        parts = self.losses(batch)
        loss = (
            parts["drawing"]
            + phase.distil_weight * parts["distil"]
            + recipe.label_weight * parts["label"]
            + recipe.hypernym_weight * parts["hypernym"]
        )
        loss.backward()
        nn.utils.clip_grad_norm_(self.tower.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        # A young average forgets faster, or it would remember the start.
        decay = min(recipe.average_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.tower.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return {"loss": float(loss.detach()), **{k: float(v.detach()) for k, v in parts.items()}}

    # ---- results and checkpoints -------------------------------------------------------

    def averaged(self) -> ImageTower:
        """The tower with the averaged weights, mixed with the untrained ones."""
        tower = copy.deepcopy(self.tower)
        state = dict(self.average)
        for name, value in self.untrained.items():
            state[name] = value.lerp(state[name], self.recipe.trained_share)
        tower.load_state_dict(state)
        return tower.eval().requires_grad_(False)

    def visual_state(self) -> dict[str, torch.Tensor]:
        """The averaged tower under open_clip's names (`visual.…`)."""
        tower = self.averaged()
        fresh: Any = build_clip(MODEL_CONFIG)
        trunk = timm_state(self.frozen, tower.late, fresh.visual.trunk)
        state = {f"visual.trunk.{name}": tensor for name, tensor in trunk.items()}
        state["visual.head.proj.weight"] = tower.projection.detach()
        state["visual.head.proj.bias"] = tower.projection_bias.detach()
        return state

    def save(self) -> None:
        """Write the checkpoint beside the last one, then take its place."""
        tensors = {f"tower.{k}": v for k, v in self.tower.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        tensors |= {f"untrained.{k}": v for k, v in self.untrained.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        contiguous = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
        metadata = {"step": str(self.step), "recipe": json.dumps(asdict(self.recipe))}
        path = self.workdir / "image.safetensors"
        save_file(contiguous, path.with_suffix(".new"), metadata=metadata)
        path.with_suffix(".new").replace(path)

    def resume(self) -> bool:
        """Continue from the checkpoint, if there is one."""
        path = self.workdir / "image.safetensors"
        if not path.exists():
            return False
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            self.step = int(file.metadata()["step"])
        self.tower.load_state_dict(_under(tensors, "tower."))
        self.average = _under(tensors, "average.")
        self.untrained = _under(tensors, "untrained.")
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in _under(tensors, "optimizer.").items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        return True


class _From(Sampler[int]):
    """The steps that are left, in order."""

    def __init__(self, first: int, end: int) -> None:
        self.steps = range(first, end)

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def rate_share(recipe: ImageRecipe, step: int) -> float:
    """Share of the full rate: linear warmup, constant, linear decay."""
    warm = (step + 1) / recipe.warmup_steps
    left = (recipe.steps - step) / max(1, recipe.decay_steps)
    return min(1.0, warm, left)


def _typical(tensor: torch.Tensor) -> float:
    return float(tensor.detach().square().mean().sqrt())


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
