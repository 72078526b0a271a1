from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from training import AbsoluteError, BinaryCrossEntropy, CrossEntropy, SquaredError
from training.errors import RecipeError
from training.losses import (
    Loss,
    absolute_error,
    info_nce,
    pairwise_sigmoid,
    squared_error,
)

C = 5
ALL: list[Loss] = [
    CrossEntropy(),
    CrossEntropy(0.1),
    BinaryCrossEntropy(),
    SquaredError(),
    AbsoluteError(),
]


def some() -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(0)
    logits = torch.randn(6, C, generator=dice, dtype=torch.float64)
    return logits, torch.tensor([0, 1, 2, 3, 4, 0])


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_sparse_and_one_hot_targets_agree_and_zero_logits_give_the_uninformed_loss(
    loss: Loss,
) -> None:
    logits, labels = some()
    one_hot = F.one_hot(labels, C).double()
    assert torch.allclose(loss.per_sample(logits, labels), loss.per_sample(logits, one_hot))
    zero = loss.per_sample(torch.zeros(6, C, dtype=torch.float64), labels)
    assert zero.tolist() == pytest.approx([loss.uninformed(C)] * 6)


def test_cross_entropy_by_hand() -> None:
    logits, labels = some()
    p = logits.softmax(1)
    sparse = CrossEntropy().per_sample(logits, labels)
    assert torch.allclose(sparse, -p[torch.arange(6), labels].log())
    mixed = torch.rand(6, C, dtype=torch.float64).softmax(1)
    assert torch.allclose(CrossEntropy().per_sample(logits, mixed), -(mixed * p.log()).sum(1))
    smooth = 0.9 * F.one_hot(labels, C) + 0.1 / C
    found = CrossEntropy(0.1).per_sample(logits, labels)
    assert torch.allclose(found, -(smooth * p.log()).sum(1))
    assert CrossEntropy(0.1).plain() == CrossEntropy()
    with pytest.raises(RecipeError, match="label_smoothing"):
        CrossEntropy(1.0)


def test_binary_cross_entropy_by_hand() -> None:
    logits, labels = some()
    s, y = torch.sigmoid(logits), F.one_hot(labels, C)
    by_hand = -(y * s.log() + (1 - y) * (1 - s).log()).mean(1)
    assert torch.allclose(BinaryCrossEntropy().per_sample(logits, labels), by_hand)


def test_errors_by_hand() -> None:
    logits, labels = some()
    off = logits.softmax(1) - F.one_hot(labels, C)
    assert torch.allclose(SquaredError().per_sample(logits, labels), off.square().mean(1))
    assert torch.allclose(AbsoluteError().per_sample(logits, labels), off.abs().mean(1))
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    assert torch.allclose(squared_error(a, b), (a - b).square().mean(1))
    assert torch.allclose(absolute_error(a, b), (a - b).abs().mean(1))


def pairs(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(0)
    rows = [F.normalize(torch.randn(count, 8, generator=dice), dim=1) for _ in range(2)]
    return rows[0], rows[1]


def test_info_nce_by_hand_and_at_chance() -> None:
    images, texts = pairs()
    logits = 10 * images @ texts.T
    rows = -logits.log_softmax(1).diag().mean()
    columns = -logits.log_softmax(0).diag().mean()
    assert float(info_nce(images, texts, 10.0)) == pytest.approx(float((rows + columns) / 2))
    assert float(info_nce(texts, images, 10.0)) == pytest.approx(float((rows + columns) / 2))
    same = images[:1].expand(6, 8)
    assert float(info_nce(same, same, 10.0)) == pytest.approx(math.log(6))


def test_pairwise_sigmoid_by_hand() -> None:
    images, texts = pairs()
    total = 0.0
    for i in range(6):
        for j in range(6):
            z = 1 if i == j else -1
            logit = 10 * float(images[i] @ texts[j]) - 10
            total += math.log1p(math.exp(-z * logit))
    assert float(pairwise_sigmoid(images, texts, 10.0, -10.0)) == pytest.approx(total / 6, rel=1e-5)
