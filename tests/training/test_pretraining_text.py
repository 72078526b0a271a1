"""The text side of the pretraining on a handful of words: vocabulary, meanings, teacher, tower."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from models.towers import build_tokenizer
from training.pretraining.captions import Captioner, CaptionTable, build_captions, plural
from training.pretraining.teacher import KernelRidge
from training.pretraining.text import (
    TextRecipe,
    TextTraining,
    encode_texts,
    rate_share,
    refit_projection,
)
from training.pretraining.vocabulary import learn_merges, write_merges
from training.pretraining.words import Words, held_out_classes

CLASSES = [
    ("n1", "tabby cat", ["tabby", "tabby cat"], ["n8", "n9"]),
    ("n2", "Persian cat", ["Persian cat"], ["n8", "n9"]),
    ("n3", "umbrella", ["umbrella"], ["n9"]),
]
SYNSETS = [
    ("n1", ["tabby", "tabby cat"], ["n8"], False),
    ("n2", ["Persian cat"], ["n8"], False),
    ("n3", ["umbrella"], ["n9"], False),
    ("n4", ["parasol"], ["n3"], False),
    ("n5", ["Seoul"], ["n9"], True),
    ("n8", ["cat", "true cat"], ["n9"], False),
    ("n9", ["thing"], [], False),
]
CONCEPTS = [
    ("cat", ["animal", "cat", "pet"], "고양이", ["고양이", "동물"]),
    ("black cat", ["animal", "cat"], "검은 고양이", ["고양이", "동물"]),
    ("umbrella", ["rain", "umbrella"], "우산", ["비", "우산"]),
]
# The classes are rows 0..2, the hypernyms n8 and n9 rows 3 and 4, the concepts rows 5..7.
CAT, UMBRELLA = 3, 2
CONCEPT_ROWS = (CAT, 6, UMBRELLA)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "words").mkdir()
    (folder / "pictograms").mkdir()
    classes = [
        {"index": i, "wnid": w, "name": n, "synonyms": s, "gloss": "", "hypernyms": h}
        for i, (w, n, s, h) in enumerate(CLASSES)
    ]
    (folder / "words" / "imagenet.jsonl").write_text("\n".join(map(json.dumps, classes)))
    with gzip.open(folder / "words" / "nouns.jsonl.gz", "wt", encoding="utf-8") as file:
        for wnid, words, hypernyms, name in SYNSETS:
            row = {"wnid": wnid, "words": words, "gloss": "", "hypernyms": hypernyms}
            file.write(json.dumps(row | ({"name": True} if name else {})) + "\n")
    concepts = [
        {"id": str(i), "name": n, "keywords": k, "name_ko": o, "keywords_ko": p}
        for i, (n, k, o, p) in enumerate(CONCEPTS)
    ]
    (folder / "pictograms" / "names.jsonl").write_text("\n".join(map(json.dumps, concepts)))
    return folder


@pytest.fixture(scope="module")
def words(data: Path) -> Words:
    return Words(data, concept_rows=CONCEPT_ROWS)


@pytest.fixture(scope="module")
def vectors(words: Words) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(words.targets, 16, generator=generator), dim=1)


@pytest.fixture(scope="module")
def embedding(words: Words) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {t: F.normalize(torch.randn(384, generator=generator), dim=0) for t in words.texts()}


@pytest.fixture(scope="module")
def table(words: Words, vectors: torch.Tensor, embedding: dict[str, torch.Tensor]) -> CaptionTable:
    return build_captions(words, vectors, embedding)


@pytest.fixture(scope="module")
def vocabulary(words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    write_merges(folder / "merges.txt.gz", learn_merges(words.all_texts() * 3, merges=200))
    return folder


def shares(words: Words, text: str) -> dict[int, float]:
    (known,) = [known for known in words.known if known.text == text]
    return dict(zip(known.rows, known.weights, strict=True))


def test_a_name_means_its_drawing_and_its_photographs_alike(words: Words) -> None:
    meant = shares(words, "cat")
    assert sum(meant.values()) == pytest.approx(1)
    assert meant[CAT] == pytest.approx(0.5)
    assert meant[5] > 5 * meant[6] > 0  # "black cat" is only called a cat too


def test_a_korean_name_means_the_photographs_of_its_english_name(words: Words) -> None:
    assert shares(words, "우산")[UMBRELLA] == pytest.approx(0.5)


def test_a_noun_knows_its_nearest_class_and_instances_are_left_out(words: Words) -> None:
    (noun,) = words.nouns
    assert (noun.words, noun.known, noun.steps) == (("parasol",), (UMBRELLA,), 1)


def test_held_out_words_are_nowhere(data: Path) -> None:
    words = Words(data, concept_rows=CONCEPT_ROWS, held_out=[2])
    assert not [known.text for known in words.known if known.text.lower() == "umbrella"]
    assert all(2 not in known.rows for known in words.known)
    (noun,) = words.nouns
    assert noun.known == (4,)  # not the class that is held out, but the one above it


def test_the_held_out_classes_are_always_the_same() -> None:
    classes = [{"index": i, "wnid": f"n{i}"} for i in range(1000)]
    chosen = held_out_classes(classes)
    assert len(set(chosen)) == 200
    assert chosen == held_out_classes(classes[::-1])


def test_kernel_ridge_keeps_its_examples_and_generalises() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = F.normalize(torch.randn(300, 8, generator=generator), dim=1)
    outputs = inputs @ torch.randn(8, 4, generator=generator)
    ridge = KernelRidge(inputs[:250], outputs[:250])
    near = F.cosine_similarity(ridge(inputs[250:]), outputs[250:])
    assert near.mean() > 0.95


def test_captions_of_a_known_word_lie_at_its_targets(
    words: Words, table: CaptionTable, vectors: torch.Tensor
) -> None:
    row = table.texts.index("우산")
    meant = shares(words, "우산")
    mean = sum(weight * vectors[target] for target, weight in meant.items())
    assert torch.allclose(table.targets[row], F.normalize(mean, dim=0), atol=1e-5)
    assert table.kinds[table.texts.index("parasol")] == "noun"
    assert torch.allclose(table.targets.norm(dim=1), torch.ones(len(table.texts)), atol=1e-5)


def test_every_caption_holds_its_word_or_a_form_of_it(table: CaptionTable) -> None:
    texts, rows = Captioner(table).draw(300, random.Random(0))
    for text, row in zip(texts, rows, strict=True):
        word = table.texts[row]
        assert word in text or plural(word) in text


@pytest.mark.parametrize(
    ("one", "many"), [("dog", "dogs"), ("box", "boxes"), ("berry", "berries"), ("toy", "toys")]
)
def test_plurals(one: str, many: str) -> None:
    assert plural(one) == many


def test_the_vocabulary_is_read_by_open_clips_tokenizer(vocabulary: Path) -> None:
    config = {"text_cfg": {"context_length": 16, "tokenizer_kwargs": {"bpe_path": "merges.txt.gz"}}}
    tokenizer = build_tokenizer(config, vocabulary)
    assert len(tokenizer.encode("우산")) == 1  # type: ignore[attr-defined]
    assert len(tokenizer.encode("umbrella")) == 1  # type: ignore[attr-defined]
    assert len(tokenizer.encode("zyx")) == 3  # type: ignore[attr-defined]


def test_training_brings_words_to_their_vectors(
    table: CaptionTable,
    vectors: torch.Tensor,
    vocabulary: Path,
    embedding: dict[str, torch.Tensor],
) -> None:
    torch.set_num_threads(1)
    recipe = replace(TextRecipe(), steps=30, batch=16, pool=2, warmup_steps=3)
    run = TextTraining(recipe, table, vectors, vocabulary)
    run.start_embeddings(embedding)
    measured = list(run.steps())
    assert len(measured) == 30
    last = sum(m["distance"] for m in measured[-5:]) / 5
    assert last < 0.7 < 0.9 < measured[0]["distance"]
    run.clip.load_state_dict(run.average)
    found = encode_texts(run.clip, run.tokenizer, ["umbrella", "우산"])
    assert (found @ vectors.T).argmax(dim=1).tolist()[0] in (UMBRELLA, 7)


def test_a_tower_is_turned_towards_new_class_vectors(vectors: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(2)
    many = F.normalize(torch.randn(200, 16, generator=generator), dim=1)
    turn, _ = torch.linalg.qr(torch.randn(16, 16, generator=generator))
    state = {"text_projection": torch.eye(16)}
    refitted = refit_projection(state, many, many @ turn)["text_projection"]
    assert F.cosine_similarity(vectors @ refitted, vectors @ turn).min() > 0.99


def test_the_rate_warms_up_and_ends_at_zero() -> None:
    recipe = TextRecipe(steps=200, warmup_steps=10)
    assert rate_share(recipe, 0) == pytest.approx(0.1)
    assert rate_share(recipe, 10) == pytest.approx(1)
    assert rate_share(recipe, 199) < 0.001
