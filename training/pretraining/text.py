"""The training of the text tower: captions alone, against class vectors that stand still.

The loss of a caption is the cross entropy of its similarities to all class vectors, against its
distribution (known words) or against the teacher's own similarities (other nouns: distillation,
Hinton et al. 2015), and the cosine distance to its target vector.

Token embeddings start from the teacher's vectors of the words that they occur in, reduced by
principal components: a token that no known word contains still has a meaning.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models.towers import build_clip, build_tokenizer
from training.pretraining.captions import Captioner, CaptionTable
from training.pretraining.vocabulary import MERGES

EMBED_DIM = 512
MERGES_NAME = "merges.txt.gz"
TEXT_CONFIG: dict[str, Any] = {
    "context_length": 32,
    "vocab_size": 256 + 256 + MERGES + 2,
    "width": 256,
    "heads": 4,
    "layers": 3,
    "tokenizer_kwargs": {"bpe_path": MERGES_NAME},
}
# The smallest image tower there is: open_clip builds no text tower alone.
_NO_VISION = {"image_size": 8, "patch_size": 8, "width": 8, "head_width": 8, "layers": 1}


@dataclass(frozen=True)
class TextRecipe:
    """All that a run depends on, but for the data.

    rate: of the tower; embedding_rate: of the token embeddings, which know much already
    scale: of the similarities in the cross entropy
    """

    steps: int = 3000
    batch: int = 256
    pool: int = 32  # batches sorted by length together
    rate: float = 1e-3
    embedding_rate: float = 4e-4
    warmup_steps: int = 100
    weight_decay: float = 0.02
    scale: float = 24.0
    cosine_weight: float = 2.0
    average_decay: float = 0.997
    seed: int = 0


def build_text_tower(embed_dim: int = EMBED_DIM) -> Any:
    """open_clip's CLIP without its image tower, random weights."""
    clip: Any = build_clip(
        {"embed_dim": embed_dim, "vision_cfg": _NO_VISION, "text_cfg": TEXT_CONFIG}
    )
    del clip.visual
    return clip.requires_grad_(True)


class TextTraining:
    """One run: tower, moving average, optimiser and captions.

    table: captions for `vectors`, float32 [T, D], unit rows
    folder: where the vocabulary lies
    """

    def __init__(
        self, recipe: TextRecipe, table: CaptionTable, vectors: torch.Tensor, folder: Path
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.table, self.vectors = recipe, table, vectors
        self.clip = build_text_tower(vectors.shape[1])
        self.tokenizer: Any = build_tokenizer({"text_cfg": TEXT_CONFIG}, folder)
        self.captioner = Captioner(table)
        self.average = {k: v.clone() for k, v in self.clip.state_dict().items()}
        embedding = [p for n, p in self.clip.named_parameters() if "embedding" in n]
        rest = [
            (n, p)
            for n, p in self.clip.named_parameters()
            if "embedding" not in n and not n.startswith("logit")
        ]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": embedding, "rate": recipe.embedding_rate, "weight_decay": 0.0},
                {
                    "params": [p for _, p in rest if p.ndim > 1],
                    "rate": recipe.rate,
                    "weight_decay": recipe.weight_decay,
                },
                {
                    "params": [p for _, p in rest if p.ndim < 2],
                    "rate": recipe.rate,
                    "weight_decay": 0.0,
                },
            ],
            betas=(0.9, 0.98),
            fused=True,
        )

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Begin from another tower of the same shape."""
        self.clip.load_state_dict(state)
        self.average = {k: v.clone() for k, v in self.clip.state_dict().items()}

    def start_embeddings(self, embedding: dict[str, torch.Tensor]) -> None:
        """Token embeddings from the teacher's vectors of the words they occur in.

        embedding: English wording -> float32 [384]; a Korean wording has that of its target
        """
        width = TEXT_CONFIG["width"]
        total = torch.zeros(TEXT_CONFIG["vocab_size"], 384)
        weight = torch.zeros(TEXT_CONFIG["vocab_size"], 1)
        for text, vector in embedding.items():
            tokens = self.tokenizer.encode(text)
            # A word that is one token alone says most of it.
            share = 1.0 if len(tokens) == 1 else 0.1 / len(tokens) ** 2
            for token in tokens:
                total[token] += share * vector
                weight[token] += share
        met = weight[:, 0] > 0
        mean = total[met] / weight[met]
        mean = mean - mean.mean(0)
        _, _, basis = torch.linalg.svd(mean, full_matrices=False)
        reduced = F.normalize(mean @ basis[:width].T, dim=1)
        reduced = F.pad(reduced, (0, width - reduced.shape[1]))  # fewer words than dimensions
        with torch.no_grad():
            table = self.clip.token_embedding.weight
            table.normal_(std=0.3 / math.sqrt(width))
            table[met] = reduced
            self.clip.positional_embedding.normal_(std=0.3 / math.sqrt(width))
        self.average = {k: v.clone() for k, v in self.clip.state_dict().items()}

    def steps(self) -> Iterator[dict[str, float]]:
        """Train; yields measurements a step."""
        recipe = self.recipe
        chance = random.Random(recipe.seed)
        self.clip.train()
        step = 0
        while step < recipe.steps:
            for tokens, ends, rows in self._pool(chance):
                if step == recipe.steps:
                    return
                share = rate_share(recipe, step)
                for group in self.optimizer.param_groups:
                    group["lr"] = share * group["rate"]
                measured = self._step(tokens, ends, rows)
                step += 1
                self._remember(step)
                yield measured

    def _pool(self, chance: random.Random) -> list[tuple[torch.Tensor, ...]]:
        """Batches of captions of like length: nearly no padding is computed."""
        recipe = self.recipe
        texts, rows = self.captioner.draw(recipe.batch * recipe.pool, chance)
        tokens = self.tokenizer(texts)
        ends = tokens.argmax(dim=1)
        order = ends.argsort(stable=True)
        where = torch.tensor(rows)
        batches: list[tuple[torch.Tensor, ...]] = []
        for part in order.split(recipe.batch):
            length = int(ends[part].max()) + 1
            batches.append((tokens[part, :length], ends[part], where[part]))
        chance.shuffle(batches)
        return batches

    def _step(
        self, tokens: torch.Tensor, ends: torch.Tensor, rows: torch.Tensor
    ) -> dict[str, float]:
        recipe = self.recipe
        vectors = F.normalize(encode(self.clip, tokens, ends), dim=1)  # (B, D)
        goal = self.table.targets[rows]
        logits = recipe.scale * vectors @ self.vectors.T  # (B, T)
        with torch.no_grad():
            share = (recipe.scale * goal @ self.vectors.T).softmax(dim=1)
            named = rows < len(self.table.known)
            known = torch.zeros_like(share)
            known[named] = self.table.known[rows[named]].float()
            # A known word aims at its own classes, and a little at what lies near them.
            share = torch.where(named[:, None], 0.8 * known + 0.2 * share, share)
        cross = -(share * logits.log_softmax(dim=1)).sum(dim=1).mean()
        distance = 1 - (vectors * goal).sum(dim=1).mean()
        loss = cross + recipe.cosine_weight * distance
        loss.backward()
        nn.utils.clip_grad_norm_(self.clip.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": float(loss.detach()), "distance": float(distance.detach())}

    def _remember(self, step: int) -> None:
        decay = min(self.recipe.average_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in self.clip.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)


def encode(clip: Any, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """int64 [B, L] with ends [B] -> [B, D], not normalised; L may be cut behind the longest end.

    The tower is causal, so what stands after a text's end changes nothing.
    """
    length = tokens.shape[1]
    x = clip.token_embedding(tokens) + clip.positional_embedding[:length]  # (B, L, width)
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    last = clip.ln_final(x[torch.arange(len(x)), ends])
    projected: torch.Tensor = last @ clip.text_projection
    return projected


@torch.inference_mode()
def encode_texts(clip: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """N texts -> float32 [N, D], unit rows."""
    tokens = tokenizer(texts)
    ends = tokens.argmax(dim=1)
    order = ends.argsort()
    parts = [
        encode(clip, tokens[rows, : int(ends[rows].max()) + 1], ends[rows])
        for rows in order.split(256)
    ]
    return F.normalize(torch.cat(parts)[order.argsort()], dim=1)


def rate_share(recipe: TextRecipe, step: int) -> float:
    """Linear warmup, then half a cosine down to zero."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def refit_projection(
    state: dict[str, torch.Tensor], old: torch.Tensor, new: torch.Tensor
) -> dict[str, torch.Tensor]:
    """A tower fitted to `old` class vectors, turned towards `new` ones of the same rows.

    The linear map that takes old to new with least squares is folded into the projection.
    """
    gram = old.T @ old
    gram.diagonal().add_(1e-2 * gram.diagonal().mean())
    matrix = torch.linalg.solve(gram, old.T @ new)
    return {**state, "text_projection": state["text_projection"] @ matrix}
