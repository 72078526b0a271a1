from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.samples import features, images
from training import (
    MLP,
    SGD,
    AdamW,
    Callback,
    ChannelStandard,
    Constant,
    CrossEntropy,
    ElasticNet,
    GivenModel,
    Momentum,
    Patience,
    ProgressBar,
    Recipe,
    RunView,
    SmallCNN,
    TextHead,
    Verdict,
    fit,
)
from training.averaging import ensemble_answers, ensemble_probabilities
from training.data import class_weights
from training.errors import HookError, RecipeError, TrainingError
from training.history import moving_average
from training.loop import StopAfterSteps, StopAtTime, StopWhenPerfect
from training.loop.facts import activation_health, dead_share, logits_of, saturated_share
from training.loop.session import batch_spans
from training.randomness import before_training, evaluating

QUICK = Recipe(method=MLP(hidden=(8,)), optimizer=SGD(lr=0.1), epochs=3, batch_size=6)


class Recorder(Callback):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_fit_start(self, run: RunView) -> None:
        self.calls.append("fit_start")

    def on_epoch_start(self, run: RunView) -> None:
        self.calls.append(f"epoch_start {run.epoch}")

    def after_backward(self, run: RunView) -> None:
        gradients = [p.grad for p in run.network.parameters()]
        assert all(gradient is not None for gradient in gradients)
        self.calls.append("backward")

    def on_step_end(self, run: RunView) -> None:
        assert math.isfinite(run.loss)
        assert run.lr > 0
        self.calls.append(f"step {run.step}")

    def on_epoch_end(self, run: RunView) -> None:
        assert set(run.metrics) >= {"train/loss", "val/accuracy", "lr"}
        self.calls.append(f"epoch_end {run.epoch}")

    def on_checkpoint(self, run: RunView) -> None:
        self.calls.append("checkpoint")

    def on_fit_end(self, run: RunView) -> None:
        self.calls.append("fit_end")


def test_hooks_are_called_in_order(tmp_path) -> None:
    recorder = Recorder()
    recipe = QUICK.replace(epochs=2, batch_size=12)
    fit(recipe, images(), callbacks=[recorder], run_dir=tmp_path)
    assert recorder.calls == [
        "fit_start",
        *("epoch_start 0", "backward", "step 1", "backward", "step 2", "epoch_end 0", "checkpoint"),
        *("epoch_start 1", "backward", "step 3", "backward", "step 4", "epoch_end 1", "checkpoint"),
        "fit_end",
    ]


def test_hooks_may_stop_and_the_run_can_go_on(tmp_path) -> None:
    stopped = fit(QUICK, images(), callbacks=[StopAfterSteps(5)], run_dir=tmp_path)
    assert len(stopped.history.loss) == 5
    assert stopped.history.stopped == "5 steps done"
    whole = fit(QUICK, images(), run_dir=tmp_path)
    assert whole.resumed_at == 5
    assert whole.history == fit(QUICK, images()).history
    assert len(fit(QUICK, images(), callbacks=[StopAtTime(0.0)]).history.loss) == 1


def test_stop_when_perfect() -> None:
    recipe = QUICK.replace(epochs=200, schedule=Constant())
    run = fit(recipe, images(), callbacks=[StopWhenPerfect()])
    assert run.metrics["train/accuracy"] == 1
    assert len(run.history.epochs) < 200


def change_weight(run: RunView) -> None:
    with torch.no_grad():
        next(run.network.parameters()).add_(1)


def change_weight_behind_the_back(run: RunView) -> None:
    next(run.network.parameters()).data.mul_(2)


def change_gradient(run: RunView) -> None:
    for parameter in run.network.parameters():
        if parameter.grad is not None:
            parameter.grad.data.mul_(0.5)


def drop_gradient(run: RunView) -> None:
    for parameter in run.network.parameters():
        parameter.grad = None


def freeze(run: RunView) -> None:
    run.network.requires_grad_(False)


def change_mode(run: RunView) -> None:
    run.network.eval()


def change_data(run: RunView) -> None:
    run.data.train.labels.zero_()


@pytest.mark.parametrize(
    "change",
    [
        *(change_weight, change_weight_behind_the_back, change_gradient, drop_gradient),
        *(freeze, change_mode, change_data),
    ],
)
def test_hooks_may_not_change_anything(change) -> None:
    class Meddler(Callback):
        def after_backward(self, run: RunView) -> None:
            change(run)

    with pytest.raises(HookError, match=r"Meddler\.after_backward"):
        fit(QUICK, images(), callbacks=[Meddler()])


def test_hooks_that_draw_random_numbers_change_nothing() -> None:
    class Gambler(Callback):
        def on_step_end(self, run: RunView) -> None:
            torch.rand(3)
            np.random.rand(3)
            run.history.loss.clear()  # a copy

    recipe = QUICK.replace(method=MLP(hidden=(8,), dropout=0.5))
    plain, watched = fit(recipe, images()), fit(recipe, images(), callbacks=[Gambler()])
    assert plain.history == watched.history


def test_same_seed_same_run_other_seed_other_run() -> None:
    a, b, c = (fit(QUICK.replace(seed=s), images()) for s in (0, 0, 1))
    assert a.history == b.history
    assert a.history.loss != c.history.loss


def test_one_step_by_hand() -> None:
    """The objective: weighted mean of the loss, the penalty, and the step of SGD."""
    data = images()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    data = data.only_train([0, 1, 2, 8, 9, 16])
    recipe = Recipe(
        method=GivenModel(),
        loss=CrossEntropy(0.1),
        optimizer=SGD(lr=0.1),
        schedule=Constant(),
        penalty=ElasticNet(l2=0.01),
        balance="weights",
        epochs=1,
        batch_size=6,
        clip=0.05,
    )
    run = fit(recipe, data, model=net)
    weights = class_weights(data.train.labels, 3)[data.train.labels]
    each = CrossEntropy(0.1).per_sample(net(data.train.inputs), data.train.labels)
    loss = (weights * each).sum() / weights.sum() + 0.005 * net[1].weight.square().sum()
    assert run.history.loss == pytest.approx([float(loss.detach())], rel=1e-5)
    loss.backward()
    norm = float(sum(p.grad.square().sum() for p in net.parameters()) ** 0.5)
    assert run.history.gradient == pytest.approx([norm], rel=1e-4)
    expected = net[1].weight - 0.1 * net[1].weight.grad * 0.05 / (norm + 1e-6)
    assert torch.allclose(run.network.network[1].weight, expected, atol=1e-6)


def test_a_model_that_is_given_stays_as_it_was() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    run = fit(QUICK.replace(method=GivenModel()), images(), model=net)
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert not torch.equal(run.network.network[1].weight, net[1].weight)
    with pytest.raises(RecipeError, match="model="):
        fit(QUICK.replace(method=GivenModel()), images())


def test_restore_best_keeps_the_best_epochs_weights() -> None:
    recipe = QUICK.replace(
        optimizer=Momentum(lr=0.3), schedule=Constant(), stop=Patience("val/loss", 4), epochs=40
    )
    run = fit(recipe, images())
    losses = run.history.column("val/loss")
    assert run.best_epoch == losses.index(min(losses)) < len(losses) - 1
    assert run.metrics["val/loss"] == pytest.approx(min(losses), rel=1e-6)
    last = fit(recipe.replace(stop=Patience("val/loss", 4, restore_best=False)), images())
    assert last.metrics["val/loss"] == pytest.approx(losses[-1], rel=1e-6)
    assert last.best_epoch == len(losses) - 1


def test_the_running_average_is_what_is_kept() -> None:
    plain = fit(QUICK.replace(epochs=1), images())
    averaged = fit(QUICK.replace(epochs=1, ema=0.9), images())
    assert plain.history.loss == averaged.history.loss
    assert plain.metrics != averaged.metrics


def test_a_nan_ends_the_run_at_once() -> None:
    class Exploding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(768, 3)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            if self.training and torch.is_grad_enabled():
                self.calls += 1
            return self.linear(x.flatten(1)) * (math.nan if self.calls > 3 else 1.0)

    run = fit(QUICK.replace(method=GivenModel()), images(), model=Exploding())
    assert len(run.history.loss) == 4
    assert run.history.stopped == "the loss became nan at step 4"
    assert run.diagnosis.verdict is Verdict.DIVERGED


def test_a_loss_without_any_graph_is_an_error_with_advice() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(768, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.flatten(1)).detach()

    with pytest.raises(TrainingError, match="DETACHED_GRAPH"):
        fit(QUICK.replace(method=GivenModel()), images(), model=Cut())


def test_val_monitors_need_a_validation_split() -> None:
    data = images()
    empty = data.val.pick([])
    with pytest.raises(RecipeError, match="no validation split"):
        fit(QUICK.replace(stop=Patience()), type(data)(data.train, empty, data.classes))
    with pytest.raises(RecipeError, match="resume"):
        fit(QUICK, data, resume="perhaps")


def test_views_are_drawn_and_validation_has_one() -> None:
    one, many = (fit(Recipe(epochs=2), features(views=v)) for v in (1, 4))
    assert one.history.loss != many.history.loss


def test_batch_spans_drop_a_lonely_last_sample() -> None:
    assert batch_spans(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert batch_spans(9, 4) == [(0, 4), (4, 8)]
    assert batch_spans(1, 4) == [(0, 1)]
    norm = SmallCNN(width=4, norm="batch")
    data = images(train=3)  # 9 samples
    assert len(fit(QUICK.replace(method=norm, batch_size=4, epochs=1), data).history.loss) == 2


def test_batch_size_of_all_and_layer_decay() -> None:
    recipe = QUICK.replace(optimizer=AdamW(layer_decay=0.5), batch_size=1000)
    run = fit(recipe, images())
    assert len(run.history.loss) == 3
    assert run.history.lr[0] == pytest.approx(1e-3)


class TestHealth:
    def test_dead_and_saturated_shares(self) -> None:
        before = torch.tensor([[-1.0, 2.0, -3.0], [-2.0, -1.0, 0.0]])
        assert dead_share(nn.ReLU(), before) == pytest.approx(2 / 3)
        assert dead_share(nn.LeakyReLU(), before) == 0
        image = torch.full((2, 4, 3, 3), -1.0)
        image[0, 0, 2, 2] = 1.0
        assert dead_share(nn.ReLU(), image) == 0.75
        far = torch.tensor([-9.0, 0.0, 9.0])
        assert saturated_share(nn.Sigmoid(), torch.sigmoid(far)) == pytest.approx(2 / 3)
        assert saturated_share(nn.Tanh(), torch.tanh(far)) == pytest.approx(2 / 3)
        assert saturated_share(nn.ELU(), nn.ELU()(far)) == pytest.approx(1 / 3)
        assert saturated_share(nn.SELU(), nn.SELU()(far)) == pytest.approx(1 / 3)
        assert saturated_share(nn.ReLU(), far) == 0

    def test_means_show_what_is_zero_centred(self) -> None:
        x = torch.randn(512, 16, generator=torch.Generator().manual_seed(0))
        means = {}
        for module in (nn.Tanh(), nn.Sigmoid(), nn.ReLU()):
            table = activation_health(nn.Sequential(nn.Identity(), module), x)
            means[type(module).__name__] = table["1"]["mean"]
        assert abs(means["Tanh"]) < 0.02
        assert means["Sigmoid"] == pytest.approx(0.5, abs=0.02)
        assert means["ReLU"] > 0.3

    def test_every_epoch_has_a_table_of_every_layer(self) -> None:
        run = fit(QUICK.replace(method=MLP(hidden=(8, 8), activation="tanh")), images())
        assert len(run.history.health) == 3
        table = run.history.health[-1]
        assert set(table["network.blocks.0.2"]) == {"dead", "saturated", "mean"}
        assert set(table["network.head"]) == {"weight", "gradient"}
        assert all(row["network.head"]["gradient"] > 0 for row in run.history.health)
        assert not any(module._forward_hooks for module in run.network.modules())


def test_modes_are_put_back_one_by_one() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())
    net[0].eval()
    with evaluating(net):
        assert not net[1].training
    assert [module.training for module in net] == [False, True]


def test_moving_average() -> None:
    assert moving_average([3.0, 5.0, 7.0, 9.0]) == [3.0, 4.0, 5.0, 7.0]
    assert len(moving_average([1.0] * 100, share=0.1)) == 100


class TestProgress:
    def test_plain_lines_in_a_log(self) -> None:
        log = io.StringIO()
        fit(QUICK, images(), callbacks=[ProgressBar(log), StopAfterSteps(9)])
        lines = log.getvalue().splitlines()
        assert lines[0].startswith("epoch 1/3  train/loss ")
        assert "val/accuracy" in lines[1]
        assert lines[-1] == "stopped: 9 steps done"

    def test_a_bar_on_a_terminal(self) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        screen = Terminal()
        fit(QUICK, images(), callbacks=[ProgressBar(screen)])
        assert "epoch 3/3" in screen.getvalue()
        assert "12/12" in screen.getvalue()


class TestEnsemble:
    def test_mean_and_vote(self) -> None:
        data = features(noise=1.5)
        runs = [fit(Recipe(method=TextHead(0.0), epochs=3, seed=s), data) for s in range(3)]
        networks, x = [run.network for run in runs], data.val.first_views()
        mean = ensemble_probabilities(networks, x)
        by_hand = torch.stack([logits_of(n, x).softmax(1) for n in networks]).mean(0)
        assert torch.allclose(mean, by_hand, atol=1e-6)
        vote = ensemble_probabilities(networks, x, combine="vote")
        assert torch.allclose(vote.sum(1), torch.ones(len(x)))
        assert torch.allclose((vote * 3).round(), vote * 3, atol=1e-5)
        answers = ensemble_answers(networks, x, combine="vote")
        assert (vote[torch.arange(len(x)), answers] == vote.max(dim=1).values).all()
        assert torch.equal(ensemble_answers(networks, x), mean.argmax(1))
        with pytest.raises(RecipeError):
            ensemble_probabilities([], x)
        with pytest.raises(RecipeError, match="vote"):
            ensemble_probabilities(networks, x, combine="max")

    def test_a_tied_vote_goes_by_the_mean(self) -> None:
        class Fixed(nn.Module):
            def __init__(self, logits: list[float]) -> None:
                super().__init__()
                self.logits = torch.tensor([logits])

            def forward(self, x: Tensor) -> Tensor:
                return self.logits.expand(len(x), -1)

        pair = [Fixed([1.0, 0.9, 0.0]), Fixed([0.0, 5.0, 0.0])]
        assert ensemble_answers(pair, torch.zeros(1, 1), combine="vote").tolist() == [1]


def test_preprocessing_and_given_models_go_together() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    recipe = QUICK.replace(method=GivenModel(), preprocess=ChannelStandard())
    assert fit(recipe, images(), model=net).metrics["train/accuracy"] > 0.5


def test_fresh_batch_norm_does_not_spoil_the_first_loss() -> None:
    """Its running averages are 0 and 1 before the first step, which says nothing of the network."""
    torch.manual_seed(0)
    wide = nn.Linear(768, 64)
    nn.init.normal_(wide.weight, std=5.0)
    net = nn.Sequential(nn.Flatten(), wide, nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 3))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with before_training(net):
        assert net[2].training
        assert not net[3].training
        net(images().train.inputs)
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    run = fit(QUICK.replace(method=GivenModel()), images(), model=net)
    assert run.history.facts["initial_loss"] == pytest.approx(math.log(3), rel=0.3)
    net(images().train.inputs)  # has seen a batch: its averages count now
    with before_training(net):
        assert not net[2].training


def test_a_run_that_nobody_reads_ends_with_the_same_weights() -> None:
    recipe = Recipe(method=TextHead(dropout=0.2), epochs=3, batch_size=8)
    watched = fit(recipe, features(), stage="seen")
    quick = fit(recipe, features(), watched=False)
    for name, tensor in watched.network.state_dict().items():
        assert torch.equal(tensor, quick.network.state_dict()[name])
    assert quick.history.loss == watched.history.loss
    assert (quick.metrics, quick.history.health) == ({}, [])
    with pytest.raises(RecipeError, match="early stopping"):
        fit(recipe.replace(stop=Patience("val/loss", 2)), features(), watched=False)


def test_hooks_see_the_stage() -> None:
    seen: list[str] = []

    class Look(Callback):
        def on_fit_start(self, run: RunView) -> None:
            seen.append(run.stage)

    for stage in ("", "choosing 1 of 2"):
        fit(Recipe(epochs=1), features(), callbacks=[Look()], stage=stage)
    assert seen == ["", "choosing 1 of 2"]
