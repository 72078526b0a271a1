"""What all heads share: they take an encoder's features and know the zero-shot answer.

    zero-shot:  z_c = s * cos(x, t_c) (+ b for a sigmoid model)

A head's state holds all it needs (text vectors, scale, bias), so that an adapter can be loaded
without the data. Towers aren't touched by any of them.

A head's classes are ranked together with other categories of the index, which the head does not
hold. Heads that keep zero-shot's level are trained against those categories' text vectors, which
stay as they are. Without them training would only tell the classes from each other. The
logits of the remaining heads say which of the classes it is, not whether it is one of them. Only
their differences count, and together the classes keep the weight that zero-shot gives them:

    z += logsumexp(zero-shot logits) - logsumexp(z)        over the head's classes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from training.data.dataset import ZeroShot
from training.errors import AdapterError


class FeatureHead(nn.Module):
    """Features [B, D] -> logits [B, C], at the model's own logit scale.

    others: [M, D], text vectors of other categories. While a head that keeps zero-shot's level is
    trained, their logits follow: [B, C + M]. They aren't part of its state.
    """

    text: Tensor
    logit_scale: Tensor
    logit_bias: Tensor | None
    others: Tensor | None
    level: Tensor | None
    keeps_level: ClassVar[bool] = False

    def __init__(self, zero_shot: ZeroShot, others: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("others", others, persistent=False)  # (M, D)
        self.register_buffer("text", zero_shot.text.clone())  # (C, D)
        self.register_buffer("logit_scale", torch.tensor(zero_shot.logit_scale))
        bias = zero_shot.logit_bias
        self.register_buffer("logit_bias", None if bias is None else torch.tensor(bias))
        self.register_buffer("level", None)

    def set_level(self, level: Sequence[float] | None) -> Self:
        """Give the head a level of its own (a, b, c), see `at_level`; returns the head."""
        self.level = None if level is None else torch.tensor(tuple(level))
        return self

    def scaled(self, cosines: Tensor) -> Tensor:
        """Cosines [B, C] -> logits [B, C]."""
        logits = self.logit_scale * cosines
        return logits if self.logit_bias is None else logits + self.logit_bias

    def zero_shot_logits(self, x: Tensor) -> Tensor:
        """What the model says without any training: [B, D] -> [B, C]."""
        return self.scaled(x @ self.text.T)

    def project(self, x: Tensor) -> Tensor:
        """Features [B, D] as categories that this head doesn't hold should see them: unchanged,
        but for heads that tune the projection.
        """
        return x

    def at_level(self, x: Tensor) -> Tensor:
        """Logits that can be compared with those of other categories: [B, D] -> [B, C].

        With a level (a, b, c) the classes together weigh exp(a words + b own + c), where words and
        own are the logarithms of summed exponentials of zero-shot's and of the head's logits.
        Without one it is (1, 0, 0): what zero-shot gives them.
        """
        logits: Tensor = self(x)[:, : len(self.text)]
        if self.keeps_level:
            return logits
        own, words = logits.logsumexp(dim=1), self.zero_shot_logits(x).logsumexp(dim=1)
        if self.level is not None:
            words = self.level[0] * words + self.level[1] * own + self.level[2]
        return logits + (words - own)[:, None]

    def ranked(self, x: Tensor, others: Tensor) -> Tensor:
        """As it is served: [B, D] and text vectors [M, D] -> the classes' logits, then those of
        the other categories: [B, C + M].
        """
        return torch.cat([self.at_level(x), self.scaled(self.project(x) @ others.T)], dim=1)

    def among_others(self, logits: Tensor, x: Tensor) -> Tensor:
        """Logits [B, C], followed by those of other categories, if there are any: [B, C + M]."""
        if self.others is None:
            return logits
        return torch.cat([logits, self.scaled(x @ self.others.T)], dim=1)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The head that `state_dict` was taken from, in eval mode.

        Raises: AdapterError where tensors are missing, unknown or of the wrong shape.
        """
        try:
            bias = tensors.get("logit_bias")
            zero_shot = ZeroShot(
                text=tensors["text"],
                logit_scale=float(tensors["logit_scale"]),
                logit_bias=None if bias is None else float(bias),
            )
            head = cls._empty(zero_shot, tensors)
            head.register_buffer("level", tensors.get("level"))
            head.load_state_dict(dict(tensors))
        except (KeyError, RuntimeError) as exc:
            raise AdapterError(f"these weights make no {cls.__name__}: {exc}") from exc
        return head.eval()

    @classmethod
    def _empty(cls, zero_shot: ZeroShot, tensors: Mapping[str, Tensor]) -> Self:
        raise NotImplementedError
