from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tests.training.samples import FakeEncoder, features, images
from training import (
    GDA,
    AdamW,
    Constant,
    Dataset,
    LinearProbe,
    LogisticProbe,
    Recipe,
    Samples,
    TextHead,
    TipAdapter,
    ZeroShot,
    fit,
)
from training.errors import AdapterError, DataError, RecipeError
from training.heads import CacheHead, CosineHead, FeatureHead, GaussianHead, LinearHead
from training.heads.cross_validation import fitted_temperature, log_softmax
from training.heads.gda import discriminant
from training.judging.metrics import ranked_logits, score
from training.judging.retention import MEASURED, UNTOUCHED, head_retention
from training.loop.distributed import current_group
from training.loop.pipeline import build_pipeline
from training.loop.session import Objective
from training.networks import Method, need_zero_shot
from training.tower.cross_validation import left_out

AT_ZERO_SHOT: list[Method] = [
    TextHead(),
    TextHead(anchor=3.0),
    LinearProbe(),
    GDA(alpha=0.0),
    GDA(alpha=0.0, covariance="ledoit-wolf"),
    TipAdapter(alpha=0.0, beta=1.0),
    TipAdapter(alpha=0.0, beta=1.0, trained=True),
]
EVERY: list[Method] = [
    *AT_ZERO_SHOT,
    GDA(),
    TipAdapter(),
    LogisticProbe(),
    LinearProbe(start="zero"),
]


def sigmoid_model(data: Dataset) -> Dataset:
    assert data.zero_shot is not None
    return replace(data, zero_shot=replace(data.zero_shot, logit_bias=-10.0))


@pytest.mark.parametrize("method", AT_ZERO_SHOT, ids=repr)
@pytest.mark.parametrize("bias", [False, True])
def test_at_step_0_every_head_is_zero_shot_to_the_bit(method: Method, bias: bool) -> None:
    """Proof 5."""
    data = sigmoid_model(features()) if bias else features()
    assert data.zero_shot is not None
    x = data.val.first_views()
    head = method.build(data).eval()
    assert torch.equal(head(x), data.zero_shot.logits(x))
    assert torch.equal(head(x[:1]), data.zero_shot.logits(x[:1]))


@pytest.mark.parametrize("method", EVERY, ids=repr)
def test_permuting_the_classes_permutes_the_answers(method: Method) -> None:
    """Proof 5."""
    data = features()
    assert data.zero_shot is not None
    order = torch.tensor([2, 0, 3, 1])
    new_label = torch.argsort(order)
    permuted = Dataset(
        train=replace(data.train, labels=new_label[data.train.labels]),
        val=replace(data.val, labels=new_label[data.val.labels]),
        classes=tuple(data.classes[i] for i in order.tolist()),
        zero_shot=replace(data.zero_shot, text=data.zero_shot.text[order]),
    )
    recipe = Recipe(method=method, epochs=3)
    x = data.val.first_views()
    before, after = fit(recipe, data).logits(x), fit(recipe, permuted).logits(x)
    assert torch.allclose(before[:, order], after, atol=2e-3)


@pytest.mark.parametrize("covariance", ["ridge", "ledoit-wolf"])
@pytest.mark.parametrize("classes", [2, 4])
def test_gda_is_scikit_learns_lda_with_the_same_covariance(covariance: str, classes: int) -> None:
    """Proof 5."""
    data = features(classes=classes, shots=12, views=1)
    weight, bias = discriminant(data, covariance=covariance)
    inputs, labels = data.train.all_views()
    x, y = inputs.numpy().astype(np.float64), labels.numpy()

    class SamePrecision:
        """An estimator whose within-class covariance is ours, whatever it is fitted on."""

        def __init__(self) -> None:
            means = np.stack([x[y == c].mean(axis=0) for c in range(classes)])
            centred = x - means[y]
            if covariance == "ridge":
                scatter = centred.T @ centred
                spread = np.trace(scatter) / (len(x) - 1)
                self.covariance_ = (scatter + spread * np.eye(x.shape[1])) / x.shape[1]
            else:
                from sklearn.covariance import LedoitWolf

                self.covariance_ = LedoitWolf(assume_centered=True).fit(centred).covariance_

        def fit(self, _: np.ndarray) -> SamePrecision:
            return self

    lda = LinearDiscriminantAnalysis(
        solver="lsqr",
        covariance_estimator=SamePrecision(),
        priors=np.full(classes, 1 / classes),
    ).fit(x, y)
    test = data.val.first_views().numpy().astype(np.float64)
    ours = test @ weight.T + bias
    ours = np.exp(ours - ours.max(axis=1, keepdims=True))
    ours /= ours.sum(axis=1, keepdims=True)
    assert np.abs(ours - lda.predict_proba(test)).max() < 1e-9


def test_no_head_method_touches_a_tower_or_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proof 6: heads see features only; nothing of an encoder is reachable from them."""
    data = features()
    before = data.digest

    def never(*_: object) -> None:
        raise AssertionError("a head called the encoder")

    for name in ("encode_images", "encode_texts", "encode_pixels", "preprocess"):
        monkeypatch.setattr(FakeEncoder, name, never)
    for method in EVERY:
        run = fit(Recipe(method=method, epochs=2), data)
        assert isinstance(run.network.network, FeatureHead)
        # all that it is made of: its own small tensors
        names = {name.rpartition(".")[2] for name in run.network.state_dict()}
        assert names <= {
            *("text", "logit_scale", "logit_bias", "delta", "start", "bias", "weight", "alpha"),
            *("keys", "values", "beta", "temperature"),
        }
    assert data.digest == before


def test_training_a_text_head_improves_on_zero_shot_and_stays_cosine() -> None:
    data = features(shots=16, classes=8, noise=1.0, text_noise=3.0)
    assert data.zero_shot is not None
    run = fit(Recipe(method=TextHead(anchor=0.0), optimizer=AdamW(lr=1e-2), epochs=20), data)
    zero = data.zero_shot.logits(data.val.first_views()).argmax(1)
    assert run.metrics["val/accuracy"] > float((zero == data.val.labels).float().mean()) + 0.05
    head = run.network.network
    assert isinstance(head, CosineHead)
    assert torch.allclose(head.class_vectors().norm(dim=1), torch.ones(8), atol=1e-5)
    logits = run.logits(data.val.first_views())
    assert logits.abs().max() <= data.zero_shot.logit_scale + 1e-3


def test_the_anchor_is_one_over_shots_and_holds() -> None:
    for shots in (1, 2, 8):
        head = TextHead().build(features(shots=shots))
        assert isinstance(head, CosineHead)
        assert head.anchor == pytest.approx(1 / shots)
    with torch.no_grad():
        head.delta.fill_(0.5)
    assert float(head.own_penalty().detach()) == pytest.approx(
        head.anchor * 0.25 * head.delta.numel()
    )
    moved = {}
    for anchor in (0.0, 1.0, 100.0):
        recipe = Recipe(method=TextHead(anchor=anchor), epochs=10, schedule=Constant())
        moved[anchor] = float(fit(recipe, features()).network.network.delta.detach().norm())
    assert moved[0.0] > moved[1.0] > moved[100.0]
    assert TextHead().plain().anchor == 0


def test_a_zero_probe_starts_at_log_c_and_a_text_start_at_the_zero_shot_loss() -> None:
    data = features(classes=5)
    zero = fit(Recipe(method=LinearProbe(start="zero"), epochs=1), data).history.facts
    assert zero["initial_loss"] == pytest.approx(np.log(5), rel=1e-6)
    assert zero["expected_loss"] == pytest.approx(np.log(5))
    text = fit(Recipe(epochs=1), data).history.facts
    assert text["initial_loss"] == text["expected_loss"] != pytest.approx(np.log(5), rel=0.05)


@pytest.mark.parametrize("method", [GDA(), TipAdapter(), LogisticProbe()], ids=repr)
def test_closed_forms_choose_their_strength_within_the_support_set(method: Method) -> None:
    data = features(shots=8)
    other_val = replace(data, val=data.val.pick([0, 30]))
    run, same = fit(Recipe(method=method), data), fit(Recipe(method=method), other_val)
    assert run.history.loss == []
    for name, tensor in run.network.state_dict().items():
        assert torch.equal(tensor, same.network.state_dict()[name])
    assert data.zero_shot is not None
    zero = data.zero_shot.logits(data.val.first_views()).argmax(1)
    accuracy = float((zero == data.val.labels).float().mean())
    assert run.metrics["val/accuracy"] > accuracy - 0.05


def test_with_one_shot_strengths_are_what_the_docs_say() -> None:
    data = features(shots=1)
    for chosen, fixed in (
        (GDA(), GDA(alpha=0.01)),
        (TipAdapter(), TipAdapter(alpha=1.0, beta=5.5)),
        (LogisticProbe(), LogisticProbe(c=1.0)),
    ):
        runs = [fit(Recipe(method=method), data) for method in (chosen, fixed)]
        x = data.val.first_views()
        assert torch.equal(runs[0].logits(x), runs[1].logits(x))
    for method in (GDA(alpha=1.0), TipAdapter(alpha=1.0, beta=5.5), LogisticProbe(c=1.0)):
        run = fit(Recipe(method=method), features(shots=1, views=1))
        assert np.isfinite(run.metrics["val/loss"])


def test_tip_adapter_by_hand_with_classes_of_different_size() -> None:
    data = features(views=1)
    data = data.only_train([0, 1, 2, 8, 16, 17, 24])
    head = TipAdapter(alpha=2.0, beta=5.0).build(data)
    assert data.zero_shot is not None
    x = data.val.first_views()
    keys, labels = data.train.first_views(), data.train.labels
    affinity = torch.exp(-5.0 * (1 - x @ keys.T))
    extra = torch.stack([affinity[:, labels == c].mean(dim=1) for c in range(4)], dim=1)
    assert torch.allclose(head(x), data.zero_shot.logits(x) + 2.0 * extra, atol=1e-5)
    trained = fit(Recipe(method=TipAdapter(alpha=2.0, beta=5.0, trained=True), epochs=3), data)
    assert not torch.equal(trained.network.network.keys, head.keys)


def test_logistic_probe_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    for classes in (2, 4):
        data = features(classes=classes, views=1)
        x, y = data.train.all_views()
        model = LogisticRegression(C=10.0, max_iter=2000).fit(x.double().numpy(), y.numpy())
        head = LogisticProbe(c=10.0).build(data)
        ours = head(data.val.first_views()).softmax(1).numpy()
        theirs = model.predict_proba(data.val.first_views().double().numpy())
        assert np.abs(ours - theirs).max() < 1e-4


HEADS: dict[type[FeatureHead], Method] = {
    CosineHead: TextHead(),
    LinearHead: LinearProbe(),
    GaussianHead: GDA(alpha=0.5),
    CacheHead: TipAdapter(alpha=1.0, beta=3.0),
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("bias", [False, True])
def test_a_head_comes_back_from_its_tensors(kind: type[FeatureHead], bias: bool) -> None:
    data = sigmoid_model(features()) if bias else features()
    run = fit(Recipe(method=HEADS[kind], epochs=2), data)
    head = run.network.network
    assert type(head) is kind
    x = data.val.first_views()
    again = kind.from_tensors(head.state_dict())
    assert torch.equal(again(x), head(x))
    broken = dict(head.state_dict())
    del broken["text"]
    with pytest.raises(AdapterError, match=kind.__name__):
        kind.from_tensors(broken)


def test_heads_need_features_with_text_vectors() -> None:
    with pytest.raises(RecipeError, match="encode"):
        fit(Recipe(), images())
    with pytest.raises(RecipeError, match="encode"):
        fit(Recipe(method=GDA(alpha=1.0)), replace(features(), zero_shot=None))
    with pytest.raises(DataError, match="text vector"):
        replace(features(), zero_shot=ZeroShot(torch.ones(3, 16), 1.0))
    with pytest.raises(RecipeError, match="1/shots"):
        TextHead(anchor="shots")


def test_samples_must_match() -> None:
    with pytest.raises(DataError, match="3 inputs"):
        Samples(torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64))
    empty = Samples(torch.zeros(0, 1, 16), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match="no training image for: class 0"):
        replace(features(), train=features().train.pick(range(8, 32)))
    run = fit(Recipe(epochs=2), replace(features(), val=empty))
    assert set(run.metrics) == {"train/loss", "train/accuracy"}


def test_gda_is_no_surer_than_it_may_be() -> None:
    data = features(shots=4, val=200, noise=1.5, text_noise=2.5)
    labels, x = data.val.labels, data.val.first_views()
    head = fit(Recipe(method=GDA()), data).network.network
    assert isinstance(head, GaussianHead)
    assert float(head.alpha) > 0
    assert float(head.temperature) > 1
    sure = GaussianHead.from_tensors({**head.state_dict(), "temperature": torch.tensor(1.0)})
    assert torch.equal(head(x).argmax(dim=1), sure(x).argmax(dim=1))
    errors = [score(h(x), labels, data.classes).calibration_error for h in (head, sure)]
    assert errors[0] < errors[1] / 2


def test_the_temperature_is_the_likeliest_and_never_below_one() -> None:
    dice = np.random.default_rng(0)
    logits = dice.normal(size=(4000, 5)) * 2
    labels = np.array([dice.choice(5, p=np.exp(log_softmax(row[None]))[0]) for row in logits])
    for factor in (1.0, 4.0, 30.0):
        found = fitted_temperature(log_softmax(factor * logits), labels)
        assert found == pytest.approx(factor, rel=0.1)
    assert fitted_temperature(log_softmax(0.1 * logits), labels) == 1.0


def test_other_categories_are_learnt_against_and_leave_the_answers_alone() -> None:
    """Words that say little, among other categories that every image is close to."""
    data = features(shots=8, val=50, noise=0.6, text_noise=2.5)
    near = torch.nn.functional.normalize(data.train.first_views().mean(dim=0), dim=0)
    dice = torch.Generator().manual_seed(0)
    others = near + 0.3 * torch.randn(20, 16, generator=dice) / 4
    among = replace(data, others=torch.nn.functional.normalize(others, dim=1))
    x, labels = data.val.first_views(), data.val.labels
    share = {}
    for name, kind in (("apart", data), ("among", among)):
        run = fit(Recipe(method=TextHead(anchor=0.0), optimizer=AdamW(lr=1e-2), epochs=40), kind)
        assert run.logits(x).shape == (200, 4)
        ranked = ranked_logits(run, among, x)
        assert ranked.shape == (200, 24)
        assert torch.equal(ranked[:, :4], run.logits(x))
        share[name] = float((ranked.argmax(dim=1) == labels).double().mean())
    assert share["among"] > share["apart"] + 0.3


def test_with_other_categories_the_loss_is_the_one_over_all() -> None:
    data = replace(features(), others=torch.nn.functional.normalize(torch.randn(7, 16), dim=1))
    recipe = Recipe(method=TextHead(anchor=0.0))
    pipeline = build_pipeline(recipe, data).train()
    x, labels = data.train.first_views(), data.train.labels
    logits = pipeline(x)
    assert logits.shape == (len(x), 4 + 7)
    whole = slice(0, len(x))
    found = Objective(recipe, data, current_group())(pipeline, logits, labels, whole, 1.0)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    run = fit(recipe.replace(epochs=1), data)
    assert run.logits(x).shape == (len(x), 4)
    assert "others" not in "".join(run.network.state_dict())
    facts = run.history.facts
    zero_shot = need_zero_shot(data, "a test").among(data.others).logits(x)
    joint = torch.nn.functional.cross_entropy(zero_shot, labels).item()
    assert facts["initial_loss"] == pytest.approx(joint, rel=1e-4)
    assert facts["expected_loss"] == pytest.approx(joint, rel=1e-4)
    assert data.among([0, 2]).others is data.others
    assert data.fold(list(range(len(x))), [0]).others is data.others
    assert data.digest != features().digest


@pytest.mark.parametrize("method", [GDA(), TipAdapter(), LogisticProbe(), TextHead()], ids=repr)
def test_other_categories_get_no_less_than_before(method: Method) -> None:
    """Heads that only tell their classes apart share out what zero-shot gives these."""
    data = features(shots=4)
    head = fit(Recipe(method=method, epochs=3), data).network.network
    assert isinstance(head, FeatureHead)
    x = data.val.first_views()
    with torch.no_grad():
        level = head.at_level(x)
        zero = head.zero_shot_logits(x).logsumexp(dim=1)
    if isinstance(head, CosineHead):
        assert torch.equal(level, head(x))
    else:
        assert torch.allclose(level.logsumexp(dim=1), zero, atol=1e-3)
        assert torch.allclose(level.softmax(dim=1), head(x).softmax(dim=1), atol=1e-5)


def test_what_taught_classes_take_from_others_in_one_ranking_is_measured() -> None:
    whole = features(classes=6, shots=8, val=10)
    data, others = whole.among([0, 1, 2, 3]), left_out(whole, [4, 5])
    data = replace(data, retention=others)
    assert others.zero_shot is not None
    run = fit(Recipe(method=TextHead(), epochs=3), data)
    assert head_retention(run, data).kind == UNTOUCHED
    among = replace(data, others=others.zero_shot.text)
    kept = head_retention(fit(Recipe(method=TextHead(), epochs=3), among), among)
    assert (kept.kind, kept.n) == (MEASURED, 16)
    assert kept.zero_shot is not None
    assert kept.tuned is not None
    # images of others between their own words and the classes': harder than among themselves
    x, labels = others.samples.first_views(), others.samples.labels
    assert data.zero_shot is not None
    every = data.zero_shot.among(others.zero_shot.text).logits(x)
    assert kept.zero_shot == float((every.argmax(dim=1) == labels + 4).double().mean())
    greedy = fit(Recipe(method=GDA(alpha=100.0)), among)
    assert head_retention(greedy, among).tuned == pytest.approx(kept.zero_shot, abs=0.2)
