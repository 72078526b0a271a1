"""Captions: wordings of what a target is called, and where in the common space each belongs.

Every wording has a target vector of unit length. A known word's is the weighted mean of its class
vectors; any other noun's is the teacher's prediction, drawn towards the nearest class or hypernym
that WordNet puts above it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from training.pretraining.teacher import KernelRidge
from training.pretraining.words import Noun, Words

# Most captions are the bare word: what users write, and the cheapest to compute.
PLAIN_SHARE = 0.75
TEMPLATES = (
    "a {}",
    "the {}",
    "a photo of a {}",
    "a photo of a {}",
    "a photo of a {}",
    "a photo of {}",
    "a photo of the {}",
    "a blurry photo of a {}",
    "a close-up photo of a {}",
    "a low resolution photo of a {}",
    "a good photo of a {}",
    "a bright photo of a {}",
    "a cropped photo of a {}",
    "a picture of a {}",
    "an image of a {}",
    "a drawing of a {}",
    "a drawing of a {}",
    "a drawing of {}",
    "an icon of a {}",
    "an icon of a {}",
    "an icon of {}",
    "a pictogram of a {}",
    "an emoji of a {}",
    "the {} emoji",
    "a flat icon of a {}",
    "a line drawing of a {}",
    "a sketch of a {}",
    "a cartoon {}",
    "pixel art of a {}",
    "clip art of a {}",
    "a symbol of a {}",
    "a sign showing a {}",
    "an illustration of a {}",
    "a 3d render of a {}",
    "a sticker of a {}",
    "this is a {}",
    "there is a {} in the scene",
    "itap of a {}",
    "a photo of my {}",
    "a photo of one {}",
    "a photo of a {}, a type of thing",
    "art of the {}",
)
KOREAN_TEMPLATES = (
    "{} 사진",
    "{} 사진",
    "{}의 사진",
    "{} 그림",
    "{} 그림",
    "{}의 그림",
    "{} 아이콘",
    "{} 아이콘",
    "{} 이모지",
    "{}을(를) 찍은 사진",
    "{}의 선명한 사진",
    "{}의 흐릿한 사진",
    "{}의 확대 사진",
    "작은 {}의 사진",
    "큰 {}의 사진",
)
ADJECTIVES = (
    "small",
    "large",
    "big",
    "little",
    "old",
    "new",
    "young",
    "red",
    "white",
    "black",
    "green",
    "blue",
    "yellow",
    "brown",
    "wooden",
    "beautiful",
    "cute",
    "nice",
    "my",
    "some",
    "wild",
    "two",
    "colorful",
)
# How often each kind of caption is drawn.
SHARES = {
    "concept": 0.22,
    "keyword": 0.08,
    "korean": 0.18,
    "korean_keyword": 0.05,
    "photograph": 0.37,
    "noun": 0.10,
}
ANCESTOR_SHARE = {1: 0.5, 2: 0.3, 3: 0.15}
VARIED_SHARE = 0.12


@dataclass(frozen=True)
class CaptionTable:
    """All wordings.

    texts: N wordings; kinds: keys of SHARES
    targets: float32 [N, D], unit rows
    known: float16 [K, T], the distributions over targets of the first K, the known words; nouns
        stand behind them
    """

    texts: list[str]
    kinds: list[str]
    targets: torch.Tensor
    known: torch.Tensor


def build_captions(
    words: Words, vectors: torch.Tensor, embedding: dict[str, torch.Tensor]
) -> CaptionTable:
    """The table for these class vectors.

    vectors: float32 [T, D], unit rows of all targets
    embedding: the teacher's vector, float32 [384], of every English wording
    """
    known = torch.zeros(len(words.known), words.targets)
    for row, word in enumerate(words.known):
        known[row, list(word.rows)] = torch.tensor(word.weights)
    targets = F.normalize(known @ vectors, dim=1)
    english = [row for row, k in enumerate(words.known) if not k.kind.startswith("korean")]
    ridge = KernelRidge(
        torch.stack([embedding[words.known[row].text] for row in english]),
        targets[english],
        weights=torch.tensor(
            [0.3 if words.known[row].kind == "keyword" else 1.0 for row in english]
        ),
    )
    texts: list[str] = []
    above: list[Noun] = []
    for noun in words.nouns:
        texts += noun.words
        above += [noun] * len(noun.words)
    taught = F.normalize(ridge(torch.stack([embedding[text] for text in texts])), dim=1)
    ancestors = torch.zeros_like(taught)
    for row, noun in enumerate(above):
        share = ANCESTOR_SHARE.get(noun.steps, 0.0)
        if share and noun.known:
            mean = F.normalize(vectors[list(noun.known)].mean(0), dim=0)
            ancestors[row] = share / (1 - share) * mean
    return CaptionTable(
        [known.text for known in words.known] + texts,
        [known.kind for known in words.known] + ["noun"] * len(texts),
        torch.cat([targets, F.normalize(taught + ancestors, dim=1)]),
        known.half(),
    )


def reading(words: Words, embedding: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The teacher's vectors, and for Korean words those of what they mean: float32 [384] each."""
    names = [row["name"] for row in words.classes]
    names += [wordings[0] for wordings in words.hypernym_words]
    names += [row["name"] for row in words.concepts]
    found = dict(embedding)
    for known in words.known:
        if known.kind.startswith("korean"):
            vectors = [
                weight * embedding[names[row]]
                for row, weight in zip(known.rows, known.weights, strict=True)
                if names[row] in embedding
            ]
            if vectors:
                found[known.text] = F.normalize(torch.stack(vectors).sum(0), dim=0)
    return found


class Captioner:
    """Draws captions from a table."""

    def __init__(self, table: CaptionTable) -> None:
        self._table = table
        self._rows: dict[str, list[int]] = {kind: [] for kind in SHARES}
        for row, kind in enumerate(table.kinds):
            self._rows[kind].append(row)

    def draw(self, count: int, chance: random.Random) -> tuple[list[str], list[int]]:
        """`count` captions and the table's rows that they were made from."""
        kinds = chance.choices(list(SHARES), weights=list(SHARES.values()), k=count)
        rows = [chance.choice(self._rows[kind]) for kind in kinds]
        return [self._word(row, chance) for row in rows], rows

    def _word(self, row: int, chance: random.Random) -> str:
        text, korean = self._table.texts[row], self._table.kinds[row].startswith("korean")
        if not korean and chance.random() < VARIED_SHARE:
            text = vary(text, chance)
        if chance.random() < PLAIN_SHARE:
            return text
        return chance.choice(KOREAN_TEMPLATES if korean else TEMPLATES).format(text)


def vary(text: str, chance: random.Random) -> str:
    """The plural, or an adjective before it: what the word means stays the same."""
    if chance.random() < 0.5:
        return plural(text)
    return f"{chance.choice(ADJECTIVES)} {text}"


def plural(text: str) -> str:
    """The regular English plural of the last word."""
    if text.endswith(("s", "x", "z", "ch", "sh")):
        return text + "es"
    if text.endswith("y") and text[-2:-1] not in "aeiou":
        return text[:-1] + "ies"
    return text + "s"
