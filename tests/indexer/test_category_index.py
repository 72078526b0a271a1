from __future__ import annotations

import threading

import numpy as np
import pytest

from indexer import (
    BrokenIndexError,
    Category,
    CategoryError,
    CategoryIndex,
    ConflictError,
    LayoutOptions,
    PromptTooLongError,
    VectorError,
    WrongModelError,
)
from indexer.categories.other_categories import WORDS
from tests.indexer.fakes import HashEncoder

PETS = [
    Category("cat", synonyms=("kitty",), group="pets", metadata={"id": 1}),
    Category("dog", group="pets"),
    Category("lorry", prompts=("a lorry", "a big truck"), group="vehicles"),
    Category("nothing", background=True),
]


@pytest.fixture
def encoder():
    return HashEncoder()


@pytest.fixture
def index(encoder):
    return CategoryIndex.build(PETS, encoder, templates=["a {}", "one {}"])


def ensemble(encoder, *prompts):
    total = encoder.encode_texts(prompts).sum(axis=0)
    return total / np.linalg.norm(total)


def test_prompts_are_averaged_and_brought_back_to_unit_length(index, encoder):
    match = index.search(ensemble(encoder, "a dog", "one dog")[None], 1)[0][0]
    assert (match.label, match.rank) == ("dog", 1)
    assert match.score == pytest.approx(1, abs=1e-5)


def test_probabilities_are_a_softmax_over_all_categories_not_over_those_returned(index, encoder):
    query = encoder.encode_texts(["a query"])
    rows = [
        ensemble(encoder, "a cat", "one cat"),
        ensemble(encoder, "a kitty", "one kitty"),
        ensemble(encoder, "a dog", "one dog"),
        ensemble(encoder, "a lorry", "a big truck"),
        ensemble(encoder, "a nothing", "one nothing"),
    ]
    scores = np.array([row @ query[0] for row in rows], dtype=np.float64)
    scores = np.array([scores[:2].max(), *scores[2:]])
    expected = np.exp(20 * scores) / np.exp(20 * scores).sum()
    matches = index.search(query, 2)[0]
    labels = ["cat", "dog", "lorry", "nothing"]
    order = np.argsort(-scores)[:2]
    assert [match.label for match in matches] == [labels[at] for at in order]
    assert [match.probability for match in matches] == pytest.approx(expected[order].tolist())
    assert index.probability_kind == "exact"


def test_synonyms_roll_up_into_one_label_and_metadata_comes_along(index, encoder):
    matches = index.search(ensemble(encoder, "a kitty", "one kitty")[None], 4)[0]
    assert [match.label for match in matches].count("cat") == 1
    assert matches[0].label == "cat"
    assert matches[0].score == pytest.approx(1, abs=1e-5)
    assert matches[0].metadata == {"id": 1}
    assert matches[0].group == "pets"


def test_groups_add_up(index, encoder):
    ranking = index.rank(encoder.encode_texts(["x"]), 4)[0]
    by_label = {match.label: match.probability for match in ranking.matches}
    groups = {group.group: group.probability for group in ranking.groups}
    assert groups["pets"] == pytest.approx(by_label["cat"] + by_label["dog"])
    assert groups["vehicles"] == pytest.approx(by_label["lorry"])
    assert sum(by_label.values()) == pytest.approx(1)
    assert [group.rank for group in ranking.groups] == [1, 2]


def test_a_sigmoid_model_gives_each_category_its_own_probability():
    encoder = HashEncoder(logit_scale=10, logit_bias=-3)
    index = CategoryIndex.build(["cat", "dog"], encoder, templates="plain")
    query = encoder.encode_texts(["cat"])
    ranking = index.rank(query, 2)[0]
    assert ranking.probability_kind == "sigmoid"
    for match in ranking.matches:
        assert match.probability == pytest.approx(1 / (1 + np.exp(3 - 10 * match.score)))


def test_multi_mode_gives_independent_probabilities(encoder):
    query = encoder.encode_texts(["cat"])
    alone = CategoryIndex.build(["cat"], encoder, templates="plain")
    among = CategoryIndex.build(["cat", "dog", "cow"], encoder, templates="plain")
    one = alone.rank(query, 1, mode="multi")[0]
    many = among.rank(query, 3, mode="multi")[0]
    assert one.probability_kind == many.probability_kind == "sigmoid"
    assert one.matches[0].probability == pytest.approx(many.matches[0].probability)
    words = encoder.encode_texts(WORDS) @ query[0]
    against = 20 * words.mean() + (20 * words.std()) ** 2 / 2 + np.log(len(WORDS))
    assert one.matches[0].probability == pytest.approx(1 / (1 + np.exp(against - 20)), abs=1e-4)


def test_a_large_index_brings_its_other_categories_itself(encoder):
    labels = [f"label {n}" for n in range(300)]
    query = encoder.encode_texts(["label 7"])
    index = CategoryIndex.build(labels, encoder, templates="plain")
    assert index.manifest.other_rows == 0
    scores = encoder.encode_texts(labels) @ query[0]
    against = 20 * scores.mean() + (20 * scores.std()) ** 2 / 2 + np.log(300)
    match = index.rank(query, 1, mode="multi")[0].matches[0]
    assert match.label == "label 7"
    assert match.probability == pytest.approx(1 / (1 + np.exp(against - 20)), abs=1e-4)


def test_everyday_words_come_and_go_with_the_number_of_categories(encoder):
    small = CategoryIndex.build(["cat", "dog"], encoder, templates="plain")
    assert small.manifest.other_rows == len(WORDS)
    encoder.encoded.clear()
    still_small = small.changed(encoder, add=["cow"])
    assert encoder.encoded == ["cow"]
    assert still_small.manifest.other_rows == len(WORDS)
    query = encoder.encode_texts(["cow"])
    fresh = CategoryIndex.build(["cat", "dog", "cow"], encoder, templates="plain")
    assert still_small.rank(query, 3, mode="multi") == fresh.rank(query, 3, mode="multi")
    large = still_small.changed(encoder, add=[f"label {n}" for n in range(60)])
    assert large.manifest.other_rows == 0
    small_again = large.changed(encoder, remove=[f"label {n}" for n in range(60)])
    assert small_again.rank(query, 3, mode="multi") == fresh.rank(query, 3, mode="multi")


def test_large_indexes_answer_the_same_whatever_the_layout(encoder):
    labels = [
        Category(f"label {n}", synonyms=(f"name {n}",), group=f"g{n % 7}") for n in range(2000)
    ]
    flat = CategoryIndex.build(labels, encoder, templates="plain")
    lists = CategoryIndex.build(
        labels, encoder, templates="plain", options=LayoutOptions(exact_up_to=0, recall=1)
    )
    assert lists.manifest.layout.type == "ivf"
    assert lists.probability_kind == "estimated"
    queries = encoder.encode_texts([f"name {n}" for n in range(0, 2000, 100)])
    for exact, estimated in zip(flat.rank(queries, 3), lists.rank(queries, 3), strict=True):
        assert estimated.matches[0].label == exact.matches[0].label
        assert estimated.matches[0].probability == pytest.approx(
            exact.matches[0].probability, abs=0.02
        )
        assert estimated.groups[0].group == exact.groups[0].group
        assert estimated.groups[0].probability == pytest.approx(
            exact.groups[0].probability, abs=0.03
        )


def test_more_matches_than_the_nearest_lists_hold(encoder):
    labels = [f"label {n}" for n in range(1500)]
    index = CategoryIndex.build(
        labels, encoder, templates="plain", options=LayoutOptions(exact_up_to=0, recall=0.2)
    )
    matches = index.search(encoder.encode_texts(["label 3"]), 1500)[0]
    assert sorted(match.label for match in matches) == sorted(labels)


def test_there_and_back_from_disk(index, encoder, tmp_path):
    index.save(tmp_path / "pets")
    loaded = CategoryIndex.load(tmp_path / "pets", fingerprint=encoder.fingerprint)
    query = encoder.encode_texts(["x", "y"])
    assert loaded.rank(query, 4) == index.rank(query, 4)
    assert loaded.labels() == ["cat", "dog", "lorry", "nothing"]
    assert [loaded.category(at) for at in range(4)] == PETS
    with pytest.raises(ConflictError, match="exists already"):
        index.save(tmp_path / "pets")
    assert [entry.name for entry in tmp_path.iterdir()] == ["pets"]


def test_another_models_vectors_are_refused(index, encoder, tmp_path):
    other = HashEncoder(fingerprint="b" * 64)
    index.save(tmp_path / "pets")
    with pytest.raises(WrongModelError, match="built with hash"):
        CategoryIndex.load(tmp_path / "pets", fingerprint=other.fingerprint)
    with pytest.raises(WrongModelError):
        index.check_encoder(other)
    with pytest.raises(WrongModelError):
        index.changed(other, add=["cow"])


@pytest.mark.parametrize(
    ("vectors", "top_k"),
    [
        (np.zeros(32, dtype=np.float32), 1),
        (np.zeros((1, 31), dtype=np.float32), 1),
        (np.full((1, 32), np.nan, dtype=np.float32), 1),
        (np.zeros((1, 32), dtype=np.float32), 0),
    ],
)
def test_queries_that_make_no_sense(index, vectors, top_k):
    with pytest.raises(VectorError):
        index.search(vectors, top_k)


def test_no_queries_no_answers(index):
    assert index.search(np.empty((0, 32), dtype=np.float32), 3) == []


def test_a_prompt_too_long_is_named_with_its_tokens_and_nothing_is_encoded(encoder):
    with pytest.raises(
        PromptTooLongError, match=r"'a b( b)+' has 15 tokens; hash reads at most 12"
    ):
        CategoryIndex.build(["cat", "a " + "b " * 12], encoder, templates="plain")
    assert encoder.encoded == []


def test_a_change_encodes_only_what_is_new(encoder):
    labels = [f"label {n}" for n in range(10_000)]
    index = CategoryIndex.build(labels, encoder, templates=["a {}", "one {}"])
    encoder.encoded.clear()
    new = [f"new {n}" for n in range(10)]
    changed = index.changed(encoder, add=new, remove=["label 3", "label 9999"])
    assert sorted(encoder.encoded) == sorted(
        [f"a new {n}" for n in range(10)] + [f"one new {n}" for n in range(10)]
    )
    assert len(changed) == 10_008
    assert changed.labels()[-11:] == ["label 9998", *new]
    assert len(index) == 10_000
    rebuilt = CategoryIndex.build(changed.labels(), HashEncoder(), templates=["a {}", "one {}"])
    query = encoder.encode_texts(["q1", "q2"])
    assert [
        [(match.label, pytest.approx(match.probability)) for match in line]
        for line in rebuilt.search(query, 5)
    ] == [[(match.label, match.probability) for match in line] for line in changed.search(query, 5)]


def test_a_label_removed_and_added_is_replaced(index, encoder):
    changed = index.changed(encoder, add=[Category("cat", metadata={"id": 2})], remove=["cat"])
    assert changed.labels() == ["dog", "lorry", "nothing", "cat"]
    assert changed.category(3).metadata == {"id": 2}
    matches = changed.search(ensemble(encoder, "a dog", "one dog")[None], 1)[0]
    assert matches[0].label == "dog"


@pytest.mark.parametrize(
    ("add", "remove", "says"),
    [
        ([], [], "nothing to add"),
        ([], ["cow", "pig"], "labelled 'cow', 'pig'"),
        ([], ["kitty"], "labelled 'kitty'"),
        (["cat"], [], "already a category named 'cat'"),
        (["kitty"], [], "already a category named 'kitty'"),
        (["cow", "cow"], [], "twice"),
        ([], ["cat", "cat"], "twice"),
        ([], ["cat", "dog", "lorry", "nothing"], "every category"),
    ],
)
def test_changes_that_make_no_sense(index, encoder, add, remove, says):
    with pytest.raises(CategoryError, match=says):
        index.changed(encoder, add=add, remove=remove)


def test_a_change_of_a_large_index_keeps_its_lists(encoder):
    labels = [f"label {n}" for n in range(1200)]
    options = LayoutOptions(exact_up_to=100, recall=0.9)
    index = CategoryIndex.build(labels, encoder, templates="plain", options=options)
    changed = index.changed(encoder, add=["new"], remove=["label 0"], options=options)
    assert changed.manifest.layout == index.manifest.layout
    assert changed.search(encoder.encode_texts(["new"]), 1)[0][0].label == "new"
    assert changed.search(encoder.encode_texts(["label 1199"]), 1)[0][0].label == "label 1199"
    grown = index.changed(encoder, add=[f"new {n}" for n in range(700)], options=options)
    assert grown.manifest.layout.trained_on == 1900  # too many for the old lists
    shrunk = index.changed(encoder, remove=labels[50:], options=options)
    assert shrunk.manifest.layout.type == "flat"
    assert shrunk.search(encoder.encode_texts(["label 7"]), 1)[0][0].label == "label 7"


def test_progress_is_told(encoder):
    stages = []
    CategoryIndex.build(
        [f"a much longer label than {n}" for n in range(600)],
        encoder,
        templates="plain",
        on_progress=lambda progress: stages.append((progress.stage, progress.done, progress.total)),
    )
    assert stages == [("checking", 600, 600), ("encoding", 512, 600), ("encoding", 600, 600)]


def test_many_threads_search_one_index(encoder):
    labels = [f"label {n}" for n in range(1200)]
    index = CategoryIndex.build(
        labels, encoder, templates="plain", options=LayoutOptions(exact_up_to=0, recall=0.9)
    )
    queries = encoder.encode_texts(labels[:40])
    expected = index.search(queries, 3)
    wrong = []

    def ask():
        for start in range(0, 40, 5):
            if index.search(queries[start : start + 5], 3) != expected[start : start + 5]:
                wrong.append(start)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_index_of_images_is_no_index_of_categories(tmp_path, encoder):
    from PIL import Image

    from indexer import ImageIndex

    Image.new("RGB", (9, 9), "red").save(tmp_path / "red.png")
    ImageIndex.build(tmp_path, encoder).save(tmp_path / "index")
    with pytest.raises(BrokenIndexError, match="an index of images, not of categories"):
        CategoryIndex.load(tmp_path / "index")
