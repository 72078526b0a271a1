from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.training.samples import images
from training import (
    FeatureExtraction,
    FullFineTune,
    GivenModel,
    LoRA,
    PartialUnfreeze,
    Recipe,
    SmallCNN,
    advise,
    fit,
)
from training.errors import RecipeError
from training.loop.pipeline import build_pipeline
from training.networks import SmallCNNNetwork
from training.transfer import (
    Transfer,
    blocks_and_head,
    interpolate,
    lora_targets,
    merge,
    settle_frozen,
    sweep_alpha,
)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(x)


class SmallViT(nn.Module):
    """A transformer in open_clip's manner: nn.MultiheadAttention and a list of blocks."""

    def __init__(self, classes: int = 3, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))


def vit() -> SmallViT:
    torch.manual_seed(0)
    return SmallViT()


def trainable(network: nn.Module) -> set[str]:
    return {name for name, p in network.named_parameters() if p.requires_grad}


def recipe(transfer: Transfer, epochs: int = 2) -> Recipe:
    return Recipe(method=GivenModel(), transfer=transfer, epochs=epochs, batch_size=8)


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    old, new = before.state_dict(), after.state_dict()
    return {name for name in old if not torch.equal(old[name], new[name])}


def test_blocks_and_head() -> None:
    groups, (head, _) = blocks_and_head(vit())
    assert head == "head"
    names = [[name for name, _ in group] for group in groups]
    assert names == [["patch"], ["blocks.0"], ["blocks.1"], ["blocks.2", "norm"]]
    cnn = SmallCNN(width=4).build(images())
    groups, (head, _) = blocks_and_head(cnn)
    names = [[name for name, _ in group] for group in groups]
    assert head == "head"
    assert names == [["stem.0", "stem.1"], ["blocks.0"], ["blocks.1"], ["blocks.2"]]


def test_feature_extraction_moves_the_head_alone_and_keeps_batch_norm() -> None:
    torch.manual_seed(0)
    before = SmallCNN(width=4).build(images())
    run = fit(recipe(FeatureExtraction()), images(), model=before)
    assert changed(before, run.network.network) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("blocks", [1, 2])
def test_partial_unfreeze_moves_the_last_blocks(blocks: int) -> None:
    before = vit()
    run = fit(recipe(PartialUnfreeze(blocks)), images(), model=before)
    moved = {
        name.split(".")[0] + "." + name.split(".")[1]
        for name in changed(before, run.network.network)
    }
    expected = {"blocks.2", "blocks.1"} if blocks == 2 else {"blocks.2"}
    assert moved == {*expected, "norm.weight", "norm.bias", "head.weight", "head.bias"}
    with pytest.raises(RecipeError, match="has 4"):
        fit(recipe(PartialUnfreeze(5)), images(), model=vit())


def test_full_finetune_moves_everything_at_a_tenth_of_the_rate() -> None:
    before = vit()
    run = fit(recipe(FullFineTune()), images(), model=before)
    assert changed(before, run.network.network) == set(before.state_dict())
    pipeline = build_pipeline(recipe(FullFineTune(0.05)), images(), vit())
    shares = FullFineTune(0.05).lr_shares(pipeline.network)
    assert set(shares.values()) == {0.05}
    assert set(shares) == trainable(pipeline.network) - {"head.weight", "head.bias"}
    with pytest.raises(RecipeError, match="tenth"):
        FullFineTune(0.5)


class TestLoRA:
    def test_it_starts_unchanged_and_trains_little(self) -> None:
        base, x = vit(), images().val.inputs
        wrapped = LoRA(rank=2).apply(copy.deepcopy(base))
        assert torch.allclose(wrapped(x), base(x), atol=1e-6)
        names = trainable(wrapped)
        assert all("lora_" in name or name.endswith(("head.weight", "head.bias")) for name in names)
        assert "head.weight" not in {
            n.removeprefix("model.") for n in trainable(LoRA(train_head=False).apply(vit()))
        }

    def test_merged_equals_unmerged_and_leaves_no_trace(self) -> None:
        """Proof 6."""
        x = images().val.inputs
        wrapped = LoRA(rank=3, alpha=5.0).apply(vit()).eval()
        torch.manual_seed(1)
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                nn.init.normal_(parameter, std=0.3)
        unmerged = wrapped(x).detach()
        assert not torch.allclose(unmerged, vit()(x), atol=1e-2)
        merged = merge(wrapped)
        assert type(merged) is SmallViT
        assert torch.allclose(merged(x), unmerged, atol=1e-5)
        assert set(merged.state_dict()) == set(vit().state_dict())
        with pytest.raises(RecipeError, match="no LoRA"):
            merge(merged)

    def test_fit_hands_back_the_merged_network(self) -> None:
        before = vit()
        run = fit(recipe(LoRA(rank=2), epochs=4), images(), model=before)
        network = run.network.network
        assert type(network) is SmallViT
        moved = changed(before, network)
        assert {"blocks.0.attention.in_proj_weight", "blocks.0.mlp.0.weight"} <= moved
        assert not {"patch.weight", "blocks.0.norm.weight"} & moved

    def test_targets(self) -> None:
        assert lora_targets(vit(), without="head") == [
            *[f"blocks.{i}.attention" for i in range(3)],
            *[f"blocks.{i}.mlp.{j}" for i in range(3) for j in (0, 2)],
        ]
        with pytest.raises(RecipeError, match="no linear"):
            LoRA().apply(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2)))


class TestInterpolation:
    def states(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        torch.manual_seed(3)
        pair = [SmallCNN(width=4).build(images()) for _ in range(2)]
        assert all(isinstance(network, SmallCNNNetwork) for network in pair)
        pair[1](images().train.inputs)  # moves the running averages and their counters
        return pair[0].state_dict(), pair[1].state_dict()

    def test_exact_at_both_ends_and_linear_between(self) -> None:
        """Proof 6."""
        before, after = self.states()
        for alpha, end in ((0.0, before), (1.0, after)):
            found = interpolate(before, after, alpha)
            assert all(torch.equal(found[name], end[name]) for name in end)
            assert all(found[name] is not end[name] for name in end)
        half = interpolate(before, after, 0.3)
        for name, a in before.items():
            if a.is_floating_point():
                assert torch.allclose(half[name], 0.7 * a + 0.3 * after[name], atol=1e-6)
            else:
                assert half[name].dtype == a.dtype

    def test_two_networks_do_not_mix(self) -> None:
        before, after = self.states()
        del after["head.bias"]
        with pytest.raises(RecipeError, match="same network"):
            interpolate(before, after, 0.5)

    def test_the_sweep_keeps_retention(self) -> None:
        before, after = {"w": torch.zeros(1)}, {"w": torch.ones(1)}

        def score(state: dict[str, Tensor]) -> tuple[float, float]:
            a = float(state["w"])
            return 0.5 + 0.3 * a, 0.8 - 0.02 * a  # better and better, forgetting more and more

        sweep = sweep_alpha(before, after, score)
        assert len(sweep.scores) == 11
        assert sweep.chosen.alpha == pytest.approx(0.5)
        free = sweep_alpha(before, after, score, retention_loss=1.0)
        assert free.chosen.alpha == 1.0
        worse = sweep_alpha(before, after, lambda s: (0.5 - float(s["w"]), 0.8))
        assert worse.chosen.alpha == 0.0
        equal = sweep_alpha(before, after, lambda _: (0.5, 0.8))
        assert equal.chosen.alpha == 0.0


def test_settle_frozen_puts_only_frozen_parts_into_eval_mode() -> None:
    network = nn.Sequential(
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.Dropout(), nn.Linear(2, 2)
    )
    network[0].requires_grad_(False)
    network.train()
    settle_frozen(network)
    assert not network[0][1].training
    assert network[1].training
    assert network[2].training


@pytest.mark.parametrize(
    ("counts", "accelerator", "method"),
    [
        ([3, 0], True, "zero-shot"),
        ([1, 9], True, "head"),
        ([3, 3], False, "head"),
        ([4, 4], True, "auto-head"),
        ([15, 99], True, "auto-head"),
        ([16, 16], True, "lora"),
        ([16, 16], False, "auto-head"),
        ([1000, 1000], True, "full"),
        ([1000, 1000], False, "auto-head"),
        ([], True, "zero-shot"),
    ],
)
def test_advice(counts: list[int], accelerator: bool, method: str) -> None:
    advice = advise(counts, accelerator=accelerator)
    assert advice.method == method
    assert advice.reembed == (method in ("lora", "full"))
    assert advice.why
