from __future__ import annotations

import pytest
import torch

from tests.training.samples import features
from training import AdamW, Recipe, fit
from training.errors import RecipeError
from training.heads import ProjectionHead, ProLIP

RECIPE = Recipe(method=ProLIP(), optimizer=AdamW(lr=1e-2), epochs=10, batch_size=16)


def head_of(recipe: Recipe = RECIPE, shots: int = 8) -> ProjectionHead:
    head = fit(recipe, features(shots=shots, text_noise=2.0)).network.network
    assert isinstance(head, ProjectionHead)
    return head


def test_at_step_zero_it_is_zero_shot_but_for_rounding() -> None:
    data = features()
    assert data.zero_shot is not None
    head = ProLIP().build(data)
    x = data.val.first_views()
    assert torch.allclose(head(x), data.zero_shot.logits(x), atol=1e-4)


def test_it_learns_one_matrix_that_all_categories_share() -> None:
    data = features(text_noise=2.0)
    assert data.zero_shot is not None
    head = head_of()
    x = data.val.first_views()
    moved = head.project(x)
    assert torch.allclose(moved.norm(dim=1), torch.ones(len(x)))
    assert torch.allclose(head(x), data.zero_shot.logits(moved))
    assert torch.allclose(torch.nn.functional.normalize(x @ head.matrix(), dim=1), moved, atol=1e-6)
    tuned = (head(x).argmax(1) == data.val.labels).float().mean()
    zero = (data.zero_shot.logits(x).argmax(1) == data.val.labels).float().mean()
    assert tuned > zero


def test_the_anchor_holds_it_back() -> None:
    free = head_of(RECIPE.replace(method=ProLIP(anchor=0.0))).delta.norm()
    held = head_of(RECIPE.replace(method=ProLIP(anchor=10.0))).delta.norm()
    assert held < free
    assert ProLIP().build(features(shots=4)).anchor == 0.25
    with pytest.raises(RecipeError, match="anchor"):
        ProLIP(anchor="shots")
