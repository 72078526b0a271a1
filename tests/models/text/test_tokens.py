"""Which words a vocabulary knows nothing of."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.openclip import import_open_clip
from models.sources.names import resolve
from models.text.tokens import Tokenize, build_tokenizer, unknown_words


@pytest.fixture(scope="module", params=["pictogram", "clip"])
def english(request: pytest.FixtureRequest) -> Tokenize:
    """pictogram's vocabulary of 6,514 pieces, and OpenAI's of 49,408: both learnt on English."""
    if request.param == "clip":
        return import_open_clip().SimpleTokenizer()
    source = resolve("pictogram")
    return build_tokenizer(source.model_cfg, source.folder)


@pytest.mark.parametrize(
    "word", ["강아지", "집", "사과", "자동차", "犬", "金魚", "собака", "σκύλος", "סוס", "สุนัข"]
)
def test_words_in_scripts_that_it_has_no_merges_of_are_unknown(
    english: Tokenize, word: str
) -> None:
    assert unknown_words(english, [word]) == [(word,)]


@pytest.mark.parametrize(
    "word",
    [
        "house",
        "zzqx",
        "TV",
        "7",
        "café",
        "naïve",
        "Zürich",
        "jalapeño",
        "piñata",
        "over—there",
        "…",
    ],
)
def test_english_words_and_loanwords_with_accents_are_known(english: Tokenize, word: str) -> None:
    assert unknown_words(english, [word]) == [()]


def test_the_unknown_words_of_a_text_are_named_in_order(english: Tokenize) -> None:
    texts = ["a red house", "빨간 house", "집 a 고양이 집"]
    assert unknown_words(english, texts) == [(), ("빨간",), ("집", "고양이", "집")]


def test_everyday_knows_hangul_but_no_other_script_than_latin() -> None:
    source = resolve("everyday")
    tokenize = build_tokenizer(source.model_cfg, source.folder)
    texts = ["a red house", "빨간 사과", "собака", "犬"]
    assert unknown_words(tokenize, texts) == [(), (), ("собака",), ("犬",)]


def test_a_hugging_face_vocabulary_knows_what_it_has_pieces_for(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pieces = ["<pad>", "<unk>", "▁", "강아지", "金", "魚"]
    scores = [(piece, -float(at)) for at, piece in enumerate(pieces)]
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram(scores, unk_id=1)),
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(tmp_path)
    tokenizer = build_tokenizer({"text_cfg": {"hf_tokenizer_name": "any"}}, tmp_path)
    assert unknown_words(tokenizer, ["강아지 金魚 고양이 犬"]) == [("고양이", "犬")]
