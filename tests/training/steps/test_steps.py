from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.strategy_proof import Detached, pictures, recipe
from tests.training.samples import features, images
from training import (
    GDA,
    AdamW,
    GivenModel,
    LinearProbe,
    Recipe,
    SmallCNN,
    Status,
    TextHead,
    checklist,
    fit,
)
from training.errors import RecipeError
from training.randomness import capture
from training.steps import ChecklistReport, seconds
from training.steps.step import Bench
from training.steps.steps import initial_loss, lr_search, overfit_tiny, tiny_sample

FOREVER = float("inf")
HEAD = Recipe(method=TextHead(), optimizer=AdamW(lr=1e-2), epochs=10, batch_size=16)


def data():
    return features(noise=1.0, text_noise=2.5, val=20)


@pytest.fixture(scope="module")
def report() -> ChecklistReport:
    return checklist(HEAD, data(), budget="10min")


def test_six_steps_in_order_with_everything_they_owe(report: ChecklistReport) -> None:
    assert [step.name[0] for step in report.steps] == list("123456")
    assert report.ok
    for step in report.steps[:5]:
        assert step.measured is not None
        assert step.evidence
        assert step.status in (Status.PASS, Status.WARN)
    assert report.step(1).measured == pytest.approx(report.step(1).expected)
    assert report.step(2).measured == 1.0
    assert len(report.lr_points) == 9
    assert [p.lr for p in report.lr_points] == sorted(p.lr for p in report.lr_points)
    assert len(report.tried) == 6
    assert "3 seeds" in report.step(5).evidence


def test_it_suggests_and_applies_nothing(report: ChecklistReport) -> None:
    assert report.recipe == HEAD
    best = max(report.tried, key=lambda t: (t.accuracy, -t.loss))
    assert report.suggestion == HEAD.replace(
        **{"optimizer.lr": best.lr, "optimizer.weight_decay": best.weight_decay}
    )
    text = str(report)
    for name in ("1 initial loss", "6 read the curves", "suggestion: "):
        assert name in text


def test_plot(report: ChecklistReport, tmp_path: Path) -> None:
    assert report.plot(tmp_path / "checklist.png").read_bytes().startswith(b"\x89PNG")


def test_it_repeats_itself(report: ChecklistReport) -> None:
    assert str(checklist(HEAD, data(), budget="10min")) == str(report)


class TestRestores:
    def network(self) -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(432, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5)
        )

    @pytest.mark.parametrize("fails", [False, True])
    def test_model_optimiser_and_random_state(
        self, fails: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = self.network()
        model[2].eval()
        model[1].bias.requires_grad_(False)
        optimizer = torch.optim.Adam(p for p in model.parameters() if p.requires_grad)
        model(torch.randn(4, 3, 12, 12)).sum().backward()
        optimizer.step()
        before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        modes = [module.training for module in model.modules()]
        flags = [p.requires_grad for p in model.parameters()]
        chance = capture()
        given = recipe(0).replace(method=GivenModel())
        if fails:

            def explode(*_: object) -> None:
                torch.rand(1)
                raise ValueError("in the middle")

            monkeypatch.setattr("training.steps.sequence.lr_search", explode)
            with pytest.raises(ValueError, match="middle"):
                checklist(given, pictures(0, train=8, val=8), model=model, budget=3)
        else:
            assert (
                len(checklist(given, pictures(0, train=8, val=8), model=model, budget=3).steps) == 6
            )
        assert capture() == chance
        assert str(before) == str((model.state_dict(), optimizer.state_dict()))
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[0][name])
        for p, gradient in zip(model.parameters(), gradients, strict=True):
            assert (p.grad is None) == (gradient is None)
            assert gradient is None or torch.equal(p.grad, gradient)
        assert [module.training for module in model.modules()] == modes
        assert [p.requires_grad for p in model.parameters()] == flags


class TestInitialLoss:
    def step(self, recipe: Recipe, data, model=None):
        return initial_loss(Bench(recipe, data, model, FOREVER))

    def test_log_c_for_a_network_and_zero_shot_for_a_text_head(self) -> None:
        network = self.step(Recipe(method=SmallCNN(width=4), epochs=1), images())
        assert network.expected == pytest.approx(1.0986, abs=1e-4)
        assert network.status is Status.PASS
        head = self.step(HEAD, data())
        assert head.measured == head.expected
        assert "zero-shot" in head.evidence
        zero = self.step(HEAD.replace(method=LinearProbe(start="zero")), data())
        assert zero.expected == pytest.approx(1.3863, abs=1e-4)
        assert zero.status is Status.PASS

    def test_a_confident_start_fails(self) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
        nn.init.normal_(net[1].weight, std=5.0)
        found = self.step(Recipe(method=GivenModel()), images(), net)
        assert found.status is Status.FAIL
        assert "last layer" in found.advice

    def test_bugs_end_the_checklist(self) -> None:
        softmax = nn.Sequential(nn.Flatten(), nn.Linear(768, 3), nn.Softmax(dim=1))
        report = checklist(Recipe(method=GivenModel()), images(), model=softmax, budget=30)
        assert report.step(1).status is Status.FAIL
        assert "DOUBLE_SOFTMAX" in report.step(1).evidence
        assert {step.status for step in report.steps[1:]} == {Status.SKIPPED}
        assert not report.ok
        assert len(report.steps) == 6
        assert report.suggestion == report.recipe


class TestOverfitTiny:
    def test_sample(self) -> None:
        tiny = tiny_sample(features(classes=4, shots=8, views=3))
        assert len(tiny.train) == 20
        assert tiny.counts == [5] * 4
        assert tiny.train.inputs.shape[1] == 1

    def test_a_network_that_cannot_learn_fails(self) -> None:
        body = nn.Sequential(nn.Flatten(), nn.Linear(768, 3), nn.ReLU(), nn.Linear(3, 3))
        nn.init.zeros_(body[1].weight)
        nn.init.constant_(body[1].bias, -1.0)  # dead for good
        found = overfit_tiny(Bench(Recipe(method=GivenModel()), images(), Detached(body), FOREVER))
        assert found.status is Status.FAIL
        assert found.measured is not None
        assert found.measured < 0.5

    def test_dropout_inside_a_given_network_is_switched_off(self) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Dropout(0.95), nn.Linear(768, 3))
        bench = Bench(Recipe(method=GivenModel(), optimizer=AdamW(lr=1e-2)), images(), net, FOREVER)
        assert overfit_tiny(bench).status is Status.PASS
        assert net[1].p == 0.95


class TestLrSearch:
    def test_a_best_rate_at_the_edge_is_a_warning(self) -> None:
        far_off = HEAD.replace(**{"optimizer.lr": 1e-6})
        found, points = lr_search(Bench(far_off, data(), None, FOREVER))
        assert found.status is Status.WARN
        assert "edge" in found.advice
        assert found.measured == points[-1].lr
        found, points = lr_search(Bench(recipe(0), pictures(0, train=8, val=8), None, FOREVER))
        assert found.status is Status.PASS
        assert points[0].lr < (found.measured or 0) < points[-1].lr

    def test_the_time_may_be_up(self) -> None:
        found, points = lr_search(Bench(HEAD, data(), None, 0.0))
        assert found.status is Status.SKIPPED
        assert points == []


def test_a_tiny_budget_skips_and_says_so() -> None:
    report = checklist(HEAD, data(), budget=1e-3)
    assert len(report.steps) == 6
    assert report.step(3).status is Status.SKIPPED
    assert "budget" in report.step(3).advice


def test_closed_forms_are_read_without_steps() -> None:
    report = checklist(HEAD.replace(method=GDA()), data(), budget=30)
    assert [step.status for step in report.steps[1:5]] == [Status.SKIPPED] * 4
    assert report.step(6).status in (Status.PASS, Status.WARN)


def test_without_validation_the_search_is_skipped() -> None:
    some = data()
    report = checklist(HEAD, replace(some, val=some.val.pick([])), budget="5min")
    assert report.step(4).status is Status.SKIPPED
    assert "validation" in report.step(4).evidence


@pytest.mark.parametrize(
    ("text", "value"), [("2min", 120), ("90s", 90), ("1.5h", 5400), (30, 30), ("30", 30)]
)
def test_budgets(text: str | float, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("wrong", ["soon", "-3", "0", "2 days", ""])
def test_budgets_that_are_none(wrong: str) -> None:
    with pytest.raises(RecipeError, match="budget"):
        seconds(wrong)


class TestHtml:
    def test_one_file_with_everything(self, report: ChecklistReport, tmp_path: Path) -> None:
        from training.report import write_report

        run = fit(HEAD.replace(epochs=6), data())
        file = write_report(tmp_path / "r.html", run=run, checklist=report, title="Cats & <dogs>")
        text = file.read_text(encoding="utf-8")
        assert text.startswith("<!doctype html>")
        assert "Cats &amp; &lt;dogs&gt;" in text
        assert text.count("<svg") == 3
        for wanted in (
            str(run.diagnosis.verdict),
            "5 refine",
            "moving average",
            "TextHead",
            "delta",
        ):
            assert wanted in text or wanted == "delta"
        assert "http-equiv" not in text
        assert "<script" not in text
        assert "src=" not in text

    def test_a_network_shows_its_layers_and_a_closed_form_has_no_curves(
        self, tmp_path: Path
    ) -> None:
        run = fit(Recipe(method=SmallCNN(width=4), epochs=2, batch_size=8), images())
        text = run.report(tmp_path / "run.html").read_text(encoding="utf-8")
        for wanted in ("network.head", "saturated", "share of dead units", "learning rate"):
            assert wanted in text
        closed = fit(Recipe(method=GDA()), data())
        text = closed.report(tmp_path / "gda.html").read_text(encoding="utf-8")
        assert "<svg" not in text
        assert "GDA" in text

    def test_the_same_run_gives_the_same_report(self, tmp_path: Path) -> None:
        run = fit(HEAD.replace(epochs=2), data())
        a, b = run.report(tmp_path / "a.html"), run.report(tmp_path / "b.html")
        assert a.read_bytes() == b.read_bytes()
