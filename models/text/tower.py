"""The text tower, at a fraction of the tokens where it is causal."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from models.encoder import Vectors
from models.text.paths import DEFAULT_CONTEXT_LENGTH, text_path
from models.text.prefix_tree import Chunk, Integers, chunks, sort_texts

# Nodes computed at once: many enough for large matrix products, few enough to bound the memory
# that a layer's states, keys and values take.
_NODES_CPU, _NODES_GPU = 4096, 32768


_BATCH = 64


class TextTower:
    """Texts, as token ids, to unit vectors.

    path: "tree", "trimmed" or "plain" (see `models.text.tower`)
    """

    def __init__(
        self,
        module: nn.Module,
        model_cfg: Mapping[str, Any],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """module: a CLIP with its text tower; is moved to `device` and cast to `dtype`."""
        self.path = text_path(model_cfg)
        self._clip = module.to(device=device, dtype=dtype)
        # CLIP carries its text tower's parts itself, CustomTextCLIP and CoCa in `text`.
        self._tower: Any = getattr(module, "text", module)
        text_cfg = model_cfg["text_cfg"]
        self._dim: int = model_cfg["embed_dim"]
        self._device, self._dtype = device, dtype
        self._eos = text_cfg.get("eos_id", 2) if text_cfg.get("pool_type") == "eos" else None
        self._nodes = _NODES_CPU if device.type == "cpu" else _NODES_GPU

    @torch.inference_mode()
    def __call__(self, tokens: Integers) -> Vectors:
        """int64 [N, context_length] -> float32 [N, D], rows of unit norm."""
        if not len(tokens):
            return np.empty((0, self._dim), np.float32)
        if self.path == "plain":
            rows, places = np.unique(tokens, axis=0, return_inverse=True)
            vectors = self._plain(rows)
        else:
            # A causal tower's result stands at the pooled token; what follows can't change it.
            lengths = self._pooled_positions(tokens) + 1
            order, places = sort_texts(tokens, lengths)
            width = int(lengths.max())
            encode = self._tree if self.path == "tree" else self._trimmed
            vectors = encode(tokens[order, :width], lengths[order])
        unit: Vectors = F.normalize(vectors.float(), dim=-1).cpu().numpy()
        return unit[places.reshape(-1)]

    def _pooled_positions(self, tokens: Integers) -> Integers:
        marks = tokens if self._eos is None else tokens == self._eos
        positions: Integers = marks.argmax(axis=1)
        return positions

    def _plain(self, tokens: Integers) -> torch.Tensor:
        batches = torch.from_numpy(tokens).to(self._device).split(_BATCH)
        return torch.cat([self._clip.encode_text(batch, normalize=True) for batch in batches])  # type: ignore[operator]

    def _trimmed(self, tokens: Integers, lengths: Integers) -> torch.Tensor:
        """Batches of like length, cut behind their longest text."""
        tower = self._tower
        out = torch.empty(len(tokens), self._dim, dtype=self._dtype, device=self._device)
        for rows in np.array_split(np.argsort(lengths), -(-len(lengths) // _BATCH)):
            length = int(lengths[rows].max())
            ids = torch.from_numpy(tokens[rows, :length]).to(self._device)
            x = tower.token_embedding(ids) + tower.positional_embedding[:length]  # (B, L, W)
            x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
            ends = torch.from_numpy(lengths[rows] - 1)
            out[torch.from_numpy(rows)] = self._project(x[torch.arange(len(rows)), ends])
        return out

    def _tree(self, tokens: Integers, lengths: Integers) -> torch.Tensor:
        """Each distinct prefix once, chunk by chunk."""
        out = torch.empty(len(tokens), self._dim, dtype=self._dtype, device=self._device)
        for chunk in chunks(tokens, lengths, max_nodes=self._nodes):
            texts = np.concatenate([group.texts for group in chunk.groups])
            out[torch.from_numpy(texts)] = self._project(self._walk(chunk))
        return out

    def _walk(self, chunk: Chunk) -> torch.Tensor:
        """A chunk's nodes through all layers -> the states (M, W) of its texts' last nodes.

        Layer by layer: the matrix products run over all nodes (n, W) at once; attention runs group
        by group, each text's queries (its run) against the keys and values along its path.
        """
        tower, device = self._tower, self._device
        ids = torch.from_numpy(chunk.tokens).to(device)
        positions = torch.from_numpy(chunk.positions).to(device)
        x = tower.token_embedding(ids) + tower.positional_embedding[positions]  # (n, W)
        paths = [torch.from_numpy(group.path).to(device) for group in chunk.groups]
        masks = [_causal_mask(group.run, group.path.shape[1], device) for group in chunk.groups]
        spans = [(group.first, group.last) for group in chunk.groups]
        ends = torch.cat([path[:, -1] for path in paths])
        blocks = tower.transformer.resblocks
        for block in blocks[:-1]:
            x = _block(block, block.ln_1(x), x, spans, paths, masks)
        # Of the last layer only the texts' last nodes are wanted: one query a text.
        last = blocks[-1]
        h = last.ln_1(x)
        sizes = np.cumsum([0, *(len(path) for path in paths)]).tolist()
        spans = list(itertools.pairwise(sizes))
        return _block(last, h, x[ends], spans, paths, [None] * len(paths), h[ends])

    def _project(self, states: torch.Tensor) -> torch.Tensor:
        """(M, W) -> (M, D), as open_clip ends its text towers."""
        x: torch.Tensor = self._tower.ln_final(states)
        projection = self._tower.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection  # type: ignore[no-any-return]


def _causal_mask(run: int, length: int, device: torch.device) -> torch.Tensor | None:
    """Bool (run, length): the run's tokens are the last of the path, and see none behind them."""
    if run == 1:
        return None
    return torch.ones(run, length, dtype=torch.bool, device=device).tril(length - run)


def _block(
    block: Any,
    keys_from: torch.Tensor,
    x: torch.Tensor,
    spans: Sequence[tuple[int, int]],
    paths: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor | None],
    queries_from: torch.Tensor | None = None,
) -> torch.Tensor:
    """One of open_clip's residual attention blocks over nodes.

    keys_from: (n, W), normalised states of all nodes
    x: (m, W), states of the nodes that ask; queries_from: the same normalised (None: keys_from)
    spans: for each group, its rows of x; paths: int64 (texts, l); masks: bool (run, l),
        or None where each query may see the whole path
    """
    width, heads = x.shape[1], block.attn.num_heads
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    q = F.linear(keys_from if queries_from is None else queries_from, weight[:width], bias[:width])
    kv = F.linear(keys_from, weight[width:], bias[width:])  # (n, 2W), contiguous: rows are gathered
    attended = torch.empty_like(x)
    for (first, end), path, mask in zip(spans, paths, masks, strict=True):
        texts, length = path.shape
        gathered = kv.index_select(0, path.reshape(-1)).view(texts, length, 2, heads, -1)
        k, v = gathered.permute(2, 0, 3, 1, 4)  # (texts, heads, l, W / heads) each
        asked = q[first:end].view(texts, -1, heads, width // heads).transpose(1, 2)
        got = F.scaled_dot_product_attention(asked, k, v, attn_mask=mask)
        attended[first:end] = got.transpose(1, 2).reshape(-1, width)
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))  # type: ignore[no-any-return]


# What `_Tower` knows of a text_cfg. With anything else in it open_clip builds the tower.
_KNOWN = {
    *("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "ls_init_value"),
    *("pool_type", "eos_id", "pad_id", "proj_type", "proj_bias", "norm_kwargs", "act_kwargs"),
    *("tokenizer_kwargs", "hf_tokenizer_name", "tokenizer_mode"),
}


def build_text(model_cfg: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> nn.Module | None:
    """A CLIP without its image tower, for `TextTower`; its parameters hold no numbers yet.

    open_clip builds it too, but importing open_clip takes longer than importing torch
    (docs/decisions/2026-11-25-text-tower.md).

    state: the checkpoint's, without the image tower; says whether there is a logit bias

    Returns None for a model that only open_clip can build.
    """
    if text_path(model_cfg) != "tree" or "multimodal_cfg" in model_cfg:
        return None
    if not _KNOWN.issuperset(model_cfg["text_cfg"]):
        return None
    with torch.device("meta"):
        tower: nn.Module = _Tower(model_cfg)
        module = tower
        if model_cfg.get("custom_text", False):
            module = nn.Module()
            module.text = tower
        for name in ("logit_scale", "logit_bias"):
            if name in state:
                module.register_parameter(name, nn.Parameter(torch.empty(state[name].shape)))
    return module.eval()


class _Tower(nn.Module):
    """The parameters of a tower of path "tree", under open_clip's names."""

    def __init__(self, model_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        text = model_cfg["text_cfg"]
        width, dim = text.get("width", 512), model_cfg["embed_dim"]
        norm = text.get("norm_kwargs") or {}
        positions = text.get("context_length", DEFAULT_CONTEXT_LENGTH)
        # Not drawn: on the meta device that would import torch's compiler, which takes 2 s.
        tokens = torch.empty(text.get("vocab_size", 49408), width)
        self.token_embedding = nn.Embedding.from_pretrained(tokens, freeze=False)
        self.positional_embedding = nn.Parameter(torch.empty(positions, width))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(
            _Block(text, width, quick_gelu=model_cfg.get("quick_gelu", False), norm=norm)
            for _ in range(text.get("layers", 12))
        )
        self.ln_final = nn.LayerNorm(width, **norm)
        self.text_projection: nn.Module | nn.Parameter | None = None
        if text.get("proj_type", "linear") != "none":
            biased = text.get("proj_bias", False)
            self.text_projection = (
                nn.Linear(width, dim) if biased else nn.Parameter(torch.empty(width, dim))
            )


class _Block(nn.Module):
    """Holds what `models.text.tower._block` computes with."""

    def __init__(
        self, text: Mapping[str, Any], width: int, *, quick_gelu: bool, norm: Mapping[str, Any]
    ) -> None:
        super().__init__()
        inner, scale = int(width * text.get("mlp_ratio", 4.0)), text.get("ls_init_value")
        activation = _QuickGelu() if quick_gelu else nn.GELU(**(text.get("act_kwargs") or {}))
        self.ln_1 = nn.LayerNorm(width, **norm)
        self.attn = nn.MultiheadAttention(width, text.get("heads", 8), batch_first=True)
        self.ls_1 = nn.Identity() if scale is None else _Scale(width)
        self.ln_2 = nn.LayerNorm(width, **norm)
        parts = OrderedDict[str, nn.Module]()
        parts["c_fc"] = nn.Linear(width, inner)
        parts["gelu"] = activation
        parts["c_proj"] = nn.Linear(inner, width)
        self.mlp = nn.Sequential(parts)
        self.ls_2 = nn.Identity() if scale is None else _Scale(width)


class _Scale(nn.Module):
    """Source: open_clip's LayerScale; Touvron et al. 2021, arXiv:2103.17239, section 3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class _QuickGelu(nn.Module):
    """Source: OpenAI's CLIP, clip/model.py."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)
