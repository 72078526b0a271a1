"""All words that the text tower learns from, and what each of them means.

A word's meaning is a distribution over targets: ImageNet's classes, their hypernyms and the
concepts of the drawings. "dog" is the name of a drawing and of a hypernym: half of its weight lies
on each side, so that one vector has to serve both.

Rows of targets: 0..999 the classes, then the hypernyms (sorted by wnid), then the concepts in file
order.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Evidence of a wording, by where it stands.
NAME, SYNONYM, HEAD, PART, KEYWORD = 1.0, 0.7, 0.5, 0.3, 0.15
OTHER = 0.2
# From this weighted Jaccard index on, two keywords are taken for translations of each other.
AGREEMENT = 0.25
HELD_OUT_CLASSES = 200


@dataclass(frozen=True)
class Known:
    """A wording whose targets are known.

    rows, weights: the targets and their shares, which sum to one
    kind: "concept", "keyword", "korean", "korean_keyword" or "photograph"
    """

    text: str
    rows: tuple[int, ...]
    weights: tuple[float, ...]
    kind: str


@dataclass(frozen=True)
class Noun:
    """A synset of WordNet that is neither a class nor a hypernym of one.

    known: rows of its nearest known ancestors (classes or hypernyms)
    steps: how many steps of hypernymy lie between
    """

    words: tuple[str, ...]
    known: tuple[int, ...]
    steps: int


class Words:
    """The word lists of `data` (the folder that holds words/ and pictograms/).

    concept_rows: the row that each concept shares with a class or a hypernym, or its own
        (`ClassTable.concept_rows`)
    held_out: classes left out of everything, for the separate run that measures words which the
        tower has never read: their names and synonyms, concepts and nouns named alike, and
        hypernyms that have no other leaf
    """

    def __init__(
        self, data: Path, *, concept_rows: Sequence[int], held_out: Iterable[int] = ()
    ) -> None:
        self.classes = _lines(data / "words" / "imagenet.jsonl")
        self.concepts = _lines(data / "pictograms" / "names.jsonl")
        synsets = {row["wnid"]: row for row in _nouns(data / "words" / "nouns.jsonl.gz")}
        self.hypernyms = sorted({wnid for row in self.classes for wnid in row["hypernyms"]})
        self.concept_rows = tuple(concept_rows)
        self.held_out = frozenset(held_out)
        self.leaves = self._leaves()
        self.hypernym_words = [tuple(synsets[wnid]["words"]) for wnid in self.hypernyms]
        self.silent = self._silent_words()
        self.known = self._known()
        self.nouns = self._other_nouns(synsets)

    @property
    def targets(self) -> int:
        """Classes, hypernyms and concepts together."""
        return len(self.classes) + len(self.hypernyms) + len(self.concepts)

    @property
    def concepts_from(self) -> int:
        """The first row of the concepts."""
        return len(self.classes) + len(self.hypernyms)

    def texts(self) -> list[str]:
        """Every distinct English wording, sorted: what the teacher has to read."""
        found = {known.text for known in self.known if not known.kind.startswith("korean")}
        found |= {word for noun in self.nouns for word in noun.words}
        return sorted(found)

    def all_texts(self) -> list[str]:
        """Every wording, Korean included, as often as the vocabulary is to count it."""
        names = {"concept", "photograph", "korean"}
        texts = []
        for known in self.known:
            texts += [known.text] * (8 if known.kind in names else 4)
        return texts + [word for noun in self.nouns for word in noun.words]

    def _leaves(self) -> dict[str, list[int]]:
        leaves: dict[str, list[int]] = {wnid: [] for wnid in self.hypernyms}
        for row in self.classes:
            if row["index"] not in self.held_out:
                for wnid in row["hypernyms"]:
                    leaves[wnid].append(row["index"])
        return leaves

    def _silent_words(self) -> frozenset[str]:
        """Lower-cased wordings of the held-out classes."""
        silent = set()
        for index in self.held_out:
            row = self.classes[index]
            silent |= {word.lower() for word in (row["name"], *row["synonyms"])}
        return frozenset(silent)

    def _known(self) -> list[Known]:
        # text -> side ("photo", "drawing") -> row -> evidence
        found: dict[str, dict[str, dict[int, float]]] = {}
        kinds: dict[str, str] = {}

        def add(text: str, side: str, row: int, evidence: float, kind: str) -> None:
            text = text.strip()
            if not text or text.lower() in self.silent:
                return
            rows = found.setdefault(text, {}).setdefault(side, {})
            rows[row] = max(evidence, rows.get(row, 0.0))
            kinds.setdefault(text, kind)

        offset = self.concepts_from
        for row, concept in enumerate(self.concepts, start=offset):
            add(concept["name"], "drawing", row, NAME, "concept")
            if concept["name_ko"]:
                add(concept["name_ko"], "drawing", row, NAME, "korean")
        for row, concept in enumerate(self.concepts, start=offset):
            for word in concept["keywords"]:
                add(word, "drawing", row, _evidence(word, concept["name"]), "keyword")
            for word in concept["keywords_ko"]:
                evidence = _evidence(word, concept["name_ko"] or "")
                add(word, "drawing", row, evidence, "korean_keyword")
        lowered: dict[str, list[str]] = {}
        for text in found:
            lowered.setdefault(text.lower(), []).append(text)
        photo: dict[str, dict[int, float]] = {}
        for class_ in self.classes:
            if class_["index"] not in self.held_out:
                for word in class_["synonyms"]:
                    photo.setdefault(word, {})[class_["index"]] = SYNONYM
                photo.setdefault(class_["name"], {})[class_["index"]] = NAME
        for row, (wnid, words) in enumerate(
            zip(self.hypernyms, self.hypernym_words, strict=True), start=len(self.classes)
        ):
            if self.leaves[wnid]:
                for word in words:
                    photo.setdefault(word, {}).setdefault(row, SYNONYM)
        for word, rows in photo.items():
            for text in {word, *lowered.get(word.lower(), ())}:
                for row, evidence in rows.items():
                    add(text, "photo", row, evidence, "photograph")
        self._translate(photo, add)
        self._settle_senses(found)
        return [_normalised(text, sides, kinds[text]) for text, sides in found.items()]

    def _translate(self, photo: dict[str, dict[int, float]], add: Any) -> None:
        """A Korean word also means the photographs that its English word means.

        CLDR does not pair the keywords of two languages: a Korean keyword is taken for the English
        word whose concepts agree most with its own (weighted Jaccard index).
        """
        lowered: dict[str, dict[int, float]] = {}
        for word, rows in photo.items():
            lowered.setdefault(word.lower(), {}).update(rows)
        pairs = {c["name_ko"]: (c["name"].lower(), NAME) for c in self.concepts if c["name_ko"]}
        words, korean = (
            self._evidences("name", "keywords"),
            self._evidences("name_ko", "keywords_ko"),
        )
        english = {word: rows for word, rows in words.items() if word in lowered}
        for word, rows in korean.items():
            if len(rows) > 1 and pairs.get(word, ("", 0.0))[0] not in lowered:
                agreed = {other: _agreement(rows, theirs) for other, theirs in english.items()}
                best = max(agreed, key=lambda other: (agreed[other], other))
                if agreed[best] >= AGREEMENT:
                    pairs[word] = (best, SYNONYM)
        offset = self.concepts_from
        for word, meant in _lexicon():
            pairs[word] = (meant.lower(), NAME)
            for row, evidence in words.get(meant.lower(), {}).items():
                add(word, "drawing", row + offset, evidence, "korean")
        for word, (meant, evidence) in pairs.items():
            for row in lowered.get(meant, ()):
                add(word, "photo", row, evidence, "korean_keyword")

    def _settle_senses(self, found: dict[str, dict[str, dict[int, float]]]) -> None:
        """A concept's name means the photographs that share its row; other senses step back."""
        for concept, shared in zip(self.concepts, self.concept_rows, strict=True):
            for name in (concept["name"], concept["name_ko"]):
                photo = found.get(name, {}).get("photo")
                if not photo:
                    continue
                if shared in photo:
                    found[name]["photo"] = {shared: NAME}
                elif shared >= self.concepts_from:
                    found[name]["photo"] = {row: min(value, PART) for row, value in photo.items()}

    def _evidences(self, name: str, keywords: str) -> dict[str, dict[int, float]]:
        """lower-cased word -> concept -> evidence, in one language."""
        found: dict[str, dict[int, float]] = {}
        for row, concept in enumerate(self.concepts):
            own = concept[name] or ""
            for word in concept[keywords]:
                found.setdefault(word.lower(), {})[row] = _evidence(word, own)
            if own:
                found.setdefault(own.lower(), {})[row] = NAME
        return found

    def _other_nouns(self, synsets: dict[str, Any]) -> list[Noun]:
        row_of = {row["wnid"]: row["index"] for row in self.classes}
        row_of |= {
            wnid: row
            for row, wnid in enumerate(self.hypernyms, start=len(self.classes))
            if self.leaves[wnid]
        }
        for index in self.held_out:
            row_of.pop(self.classes[index]["wnid"], None)
        known = {known.text.lower() for known in self.known}
        nouns = []
        for wnid, row in synsets.items():
            if row.get("name") or wnid in row_of:
                continue
            words = tuple(
                word
                for word in row["words"]
                if word.lower() not in known and word.lower() not in self.silent
            )
            if words:
                nouns.append(Noun(words, *_nearest(row["hypernyms"], row_of, synsets)))
        return nouns


def _nearest(
    above: list[str], row_of: dict[str, int], synsets: dict[str, Any]
) -> tuple[tuple[int, ...], int]:
    """The nearest known ancestors, and how many steps up they lie."""
    steps = 1
    while above:
        rows = tuple(sorted({row_of[wnid] for wnid in above if wnid in row_of}))
        if rows:
            return rows, steps
        above = [parent for wnid in above for parent in synsets[wnid]["hypernyms"]]
        steps += 1
    return (), steps


def _normalised(text: str, sides: dict[str, dict[int, float]], kind: str) -> Known:
    """Each side's evidence sums to one, then the sides share by their strongest evidence."""
    strength = {side: max(rows.values()) for side, rows in sides.items()}
    total = sum(strength.values())
    rows, weights = [], []
    for side, evidence in sides.items():
        # What is called so outweighs what it is only a keyword of.
        best = strength[side]
        sharpened = {
            row: value**2 * (1.0 if value == best or best < NAME else OTHER)
            for row, value in evidence.items()
        }
        whole = sum(sharpened.values())
        for row, value in sharpened.items():
            rows.append(row)
            weights.append(strength[side] / total * value / whole)
    return Known(text, tuple(rows), tuple(weights), kind)


def _evidence(keyword: str, name: str) -> float:
    """A keyword that the name ends with says more of a concept than any other."""
    parts = name.lower().split()
    if parts and keyword.lower() == parts[-1]:
        return HEAD
    return PART if keyword.lower() in parts else KEYWORD


def _agreement(left: dict[int, float], right: dict[int, float]) -> float:
    """Weighted Jaccard index."""
    rows = left.keys() | right.keys()
    pairs = [(left.get(row, 0.0), right.get(row, 0.0)) for row in rows]
    return sum(map(min, pairs)) / sum(map(max, pairs))


def _lexicon() -> list[tuple[str, str]]:
    """Korean and English words of everyday things, from korean.txt beside this file."""
    lines = (Path(__file__).parent / "korean.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("\t") for line in lines if line and not line.startswith("#"))
    return [(korean, english) for korean, english in pairs]


def held_out_classes(classes: list[dict[str, Any]]) -> list[int]:
    """200 classes, those whose wnid has the smallest SHA-256 after a fixed prefix."""

    def key(row: dict[str, Any]) -> str:
        return hashlib.sha256(f"words:{row['wnid']}".encode()).hexdigest()

    return sorted(row["index"] for row in sorted(classes, key=key)[:HELD_OUT_CLASSES])


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _nouns(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
