from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from tests.training.samples import features
from training import Dataset, fit
from training.finetune import HEAD_RECIPE
from training.heads import LinearHead, TipAdapter
from training.heads.blend import Blend, Member, Support, softmax_regression, stack
from training.heads.level import fitted_level, imagined_images
from training.judging.comparison import measure
from training.judging.leaderboard import BLEND, CANDIDATES, Leaderboard, leaderboard, out_of_fold

WORDLESS = 30.0  # noise of text vectors that say nothing


def accuracy(board: Leaderboard, data: Dataset) -> float:
    head = board.winner.method.build(data).eval()
    answers = head(data.val.first_views()).argmax(dim=1)
    return float((answers == data.val.labels).double().mean())


def zero_shot_accuracy(data: Dataset) -> float:
    assert data.zero_shot is not None
    answers = data.zero_shot.logits(data.val.first_views()).argmax(dim=1)
    return float((answers == data.val.labels).double().mean())


def regression_accuracy(data: Dataset) -> float:
    x, y = data.train.first_views().numpy(), data.train.labels.numpy()
    model = LogisticRegression(C=10.0, max_iter=500).fit(x, y)
    return float(model.score(data.val.first_views().numpy(), data.val.labels.numpy()))


@pytest.mark.parametrize("shots", [1, 2, 8])
@pytest.mark.parametrize("text_noise", [0.7, WORDLESS])
def test_never_much_worse_than_the_better_of_words_and_regression(
    shots: int, text_noise: float
) -> None:
    """Over several draws, with words that fit and with words that say nothing."""
    gaps = []
    for seed in range(5):
        data = features(seed, classes=8, shots=shots, text_noise=text_noise, noise=1.0)
        best = max(zero_shot_accuracy(data), regression_accuracy(data))
        gaps.append(accuracy(leaderboard(data), data) - best)
    assert np.mean(gaps) > -0.02


def test_all_candidates_stand_on_the_board_and_the_rule_of_one_standard_error_decides() -> None:
    board = leaderboard(features(shots=6, noise=1.0))
    rows = {row.name: row for row in board.standings}
    assert set(rows) == set(CANDIDATES)
    assert [row.behind for row in board.standings] == sorted(row.behind for row in board.standings)
    assert board.standings[0].behind == 0.0
    near = [name for name in CANDIDATES if rows[name].behind <= rows[name].error]
    assert board.winner.name == (BLEND if BLEND in near else near[0])
    assert (board.images, board.folds, board.repeats) == (24, 5, 2)
    plain = board.plain()
    assert plain["winner"] == board.winner.name
    assert {row["name"] for row in plain["candidates"]} == set(CANDIDATES)
    assert all(row["interval"][0] <= row["accuracy"] <= row["interval"][1] for row in
               plain["candidates"])  # fmt: skip


def test_labels_by_chance_are_not_learnt_out_of_fold() -> None:
    """An image that helped to answer for itself would be right."""
    data = features(classes=4, shots=16, text_noise=WORDLESS)
    dice = torch.Generator().manual_seed(0)
    shuffled = data.train.labels[torch.randperm(len(data.train), generator=dice)]
    board = leaderboard(replace(data, train=replace(data.train, labels=shuffled)))
    for row in board.standings:
        assert row.accuracy is not None
        assert row.accuracy < 0.45, row.name


def test_near_duplicates_are_held_out_together() -> None:
    data = features(shots=8, noise=4.0, text_noise=WORDLESS)
    twice = data.train.pick(list(range(32)) * 2)
    alone = replace(data, train=twice)
    together = replace(data, train=replace(twice, groups=torch.arange(32).repeat(2)))
    fooled, honest = (leaderboard(d, only=("tip-adapter",)).winner for d in (alone, together))
    assert fooled.accuracy is not None
    assert honest.accuracy is not None
    assert fooled.accuracy > honest.accuracy + 0.2


def test_the_words_share_follows_how_much_they_say() -> None:
    shares = {}
    for noise in (0.1, WORDLESS):
        for shots in (1, 4):
            data = features(classes=10, shots=shots, text_noise=noise, noise=1.5)
            board = leaderboard(data, only=("class-means",))
            assert isinstance(board.winner.method, Blend)
            shares[noise, shots] = board.winner.method.words
    for shots in (1, 4):
        assert shares[WORDLESS, shots] < 0.4 * shares[0.1, shots]


def test_with_one_image_a_class_nothing_is_measured_and_that_is_said() -> None:
    board = leaderboard(features(shots=1))
    assert board.winner.method.members == (Member("class-means", weight=0.5),)
    assert board.winner.accuracy is None
    assert board.answers is None
    assert "nothing is measured" in board.why
    data = replace(features(shots=1), val=features().val.pick([]))
    run = fit(HEAD_RECIPE.replace(method=board.winner.method), data)
    assert set(measure(run, data, board)) == {"leaderboard"}


def test_reported_accuracy_is_that_of_new_images() -> None:
    """Over draws, within what folds of fewer images cost."""
    gaps = []
    for seed in range(6):
        data = features(seed, classes=6, shots=8, noise=1.2)
        board = leaderboard(data)
        assert board.winner.accuracy is not None
        gaps.append(board.winner.accuracy - accuracy(board, data))
    assert abs(np.mean(gaps)) < 0.05


def test_answers_are_calibrated() -> None:
    """Four images a class; over draws, so that bins hold enough of them."""
    sure, right = [], []
    for seed in range(8):
        data = features(seed, classes=6, shots=4, noise=1.2, text_noise=WORDLESS, val=40)
        head = leaderboard(data).winner.method.build(data).eval()
        top, answers = head(data.val.first_views()).softmax(dim=1).max(dim=1)
        sure.append(top.numpy())
        right.append((answers == data.val.labels).numpy())
    confidence, hits = np.concatenate(sure), np.concatenate(right)
    bins = (confidence * 10).astype(int)
    error = sum(abs((hits[bins == b] - confidence[bins == b]).sum()) for b in range(10))
    assert error / len(hits) < 0.1


def test_permuted_classes_permute_the_answers() -> None:
    data = features(classes=5, shots=4, noise=1.0)
    order = [3, 0, 4, 1, 2]
    other = data.among(order)
    method = Blend(0.7, (Member("gda", 0.4, 0.5), Member("anchored", 0.1, 0.5)))
    x = data.val.first_views()
    first, second = method.build(data)(x), method.build(other)(x)
    assert torch.allclose(first[:, order], second, atol=2e-2)


def test_regression_is_that_of_scikit_learn() -> None:
    data = features(classes=5, shots=8, noise=1.0)
    x, y = data.train.first_views().double().numpy(), data.train.labels.numpy()
    for penalty in (1.0, 0.1):
        weight, bias, _ = softmax_regression(x, y, 5, penalty=penalty)
        oracle = LogisticRegression(C=1 / penalty, max_iter=2000, tol=1e-8).fit(x, y)
        assert x @ weight.T + bias == pytest.approx(oracle.decision_function(x), abs=0.02)


def test_the_reduced_problem_is_the_whole_one() -> None:
    """The penalty keeps weights in the span of the images, so that nothing is lost."""
    data = features(classes=3, shots=3, views=1, dim=32)
    assert data.zero_shot is not None
    support = Support(data.train, data.zero_shot.text.double().numpy(), 20.0)
    weight, bias = support.solve("regression", 0.1)
    x, y = data.train.first_views().double().numpy(), data.train.labels.numpy()
    whole, shift, _ = softmax_regression(x - x.mean(axis=0), y, 3, penalty=0.1)
    answers = data.val.first_views().double().numpy()
    expected = (answers - x.mean(axis=0)) @ whole.T + shift
    assert answers @ weight.T + bias == pytest.approx(expected, abs=0.02)


def test_an_anchored_regression_with_a_strong_penalty_is_the_words() -> None:
    data = features(shots=4)
    assert data.zero_shot is not None
    support = Support(data.train, data.zero_shot.text.double().numpy(), 20.0)
    weight, _ = support.solve("anchored", 1e6)
    cosines = F.cosine_similarity(torch.from_numpy(weight), data.zero_shot.text.double())
    assert cosines.min() > 0.999


def test_stacked_weights_fall_where_a_classifier_says_nothing() -> None:
    dice = np.random.default_rng(0)
    labels = np.arange(300) % 3
    good = 2.0 * np.eye(3)[labels] + dice.normal(size=(300, 3))
    noise = 3.0 * dice.normal(size=(300, 3))
    weights = stack(np.stack([good, noise]), labels, np.ones(300))
    assert weights[1] < 0.1 * weights[0]


def test_a_tip_adapter_that_won_is_rebuilt_with_its_temperature() -> None:
    data = features(shots=6, noise=1.0)
    board = leaderboard(data, only=("tip-adapter",))
    method = board.winner.method
    assert isinstance(method, TipAdapter)
    head = method.build(data).eval()
    again = type(head).from_tensors(head.state_dict())
    x = data.val.first_views()
    assert torch.equal(head(x), again(x))
    assert board.answers is not None
    error = F.cross_entropy(head(x), data.val.labels)
    folded = F.cross_entropy(board.answers.tuned, board.answers.labels)
    assert abs(error - folded) < 0.3


def others_of(data: Dataset, count: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Text vectors of other categories, and one image of each, made as the data's are."""
    more = features(seed, classes=count, shots=1, views=1)
    assert more.zero_shot is not None
    return more.zero_shot.text, more.train.first_views()


@pytest.mark.parametrize("name", ["class-means", "gda", "regression", "anchored", "tip-adapter"])
def test_taught_classes_learn_a_level_against_other_categories(name: str) -> None:
    data = features(classes=4, shots=6, text_noise=2.0, noise=1.0)
    others, images = others_of(data, 200)
    among = replace(data, others=others)
    board = leaderboard(among, only=(name,))
    method = board.winner.method
    assert method.level is not None
    head = method.build(among).eval()
    plain = replace(method, level=None).build(among).eval()
    x, y = data.val.first_views(), data.val.labels
    found, before = (
        (h.ranked(x, others).argmax(dim=1) == y).double().mean() for h in (head, plain)
    )
    assert found > before + 0.05
    kept = (head.ranked(images, others).argmax(dim=1) >= 4).double().mean()
    assert kept > 0.5
    again = type(head).from_tensors(head.state_dict())
    assert torch.equal(head.at_level(x), again.at_level(x))
    assert board.answers is not None
    assert board.answers.tuned.shape[1] == 204


def test_a_head_without_a_level_keeps_that_of_zero_shot() -> None:
    data = features()
    assert data.zero_shot is not None
    head = LinearHead(data.zero_shot)
    x = data.val.first_views()
    assert torch.allclose(head.at_level(x), head.set_level((1.0, 0.0, 0.0)).at_level(x))


def test_imagined_images_follow_the_words_as_far_as_the_taught_ones_do() -> None:
    data = features(classes=8, shots=8, text_noise=0.1)
    others, _ = others_of(data, 50)
    assert data.zero_shot is not None
    imagined = imagined_images(data, data.zero_shot, others, seed=0)
    assert torch.allclose(imagined.norm(dim=1), torch.ones(50), atol=1e-5)
    own = (imagined @ others.T).argmax(dim=1)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert (own == order).double().mean() > 0.5


def test_a_level_tells_what_only_the_head_can_tell() -> None:
    dice = np.random.default_rng(0)
    one = np.ones(400)
    taught = (dice.normal(size=400), 6 + dice.normal(size=400), dice.normal(size=400), one)
    rest = (dice.normal(size=400), dice.normal(size=400), dice.normal(size=400), one)
    a, b, c = fitted_level(taught, rest)
    assert b > 0.3

    def share(side: tuple[np.ndarray, ...]) -> float:
        return float((a * side[0] + b * side[1] + c > side[2]).mean())

    assert share(taught) > 0.9
    assert share(rest) < 0.3  # taught images count four times as much


def test_any_head_answers_out_of_fold() -> None:
    data = features(shots=5, noise=1.0)
    recipe = HEAD_RECIPE.replace(epochs=3)
    answers = out_of_fold(recipe, data)
    assert sorted(answers.image.tolist()) == list(range(20))
    assert torch.equal(answers.labels, data.train.labels[answers.image])
    blind = replace(data, val=data.val.pick([]))
    found = measure(fit(recipe, blind), blind)
    assert found["measured"] == "out of fold"
    assert found["tuned"]["n"] == 20
    assert "gate" in found


def test_a_blend_sums_its_members() -> None:
    data = features(shots=4)
    x = data.val.first_views()
    parts = [Blend(0.0, (Member(kind, 0.4, 1.0),)).build(data)(x) for kind in ("gda", "anchored")]
    words = Blend(0.3).build(data)(x)
    both = Blend(0.3, (Member("gda", 0.4, 0.5), Member("anchored", 0.4, 2.0))).build(data)(x)
    assert torch.allclose(both, words + 0.5 * parts[0] + 2.0 * parts[1], atol=1e-3)
    assert leaderboard(data, only=("gda", "anchored", BLEND)).standings
