"""What the images are compared with: one table of class vectors for photographs and drawings.

Rows: 0..999 ImageNet's classes, then their 860 hypernyms (sorted by wnid), then the concepts of
the drawings in file order. A concept that is named like a class or a hypernym has no row of its
own: its drawings share the row of the photographs, so that one word can lie near both.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from training.pretraining.drawings import Concept

CLASSES = 1000
# Drawings of another thing than the class that is named alike (a bank is a money box there).
OTHER_SENSE = frozenset(
    {"bank", "construction", "ear", "gear", "hook", "kite", "mouse", "notebook", "package", "pick"}
    | {"place of worship", "sewing needle", "shield", "wing", "wireless", "wood"}
)
# Where several classes or hypernyms are named alike: which of them the drawing shows.
SENSE = {
    "dress": 2,
    "panda": 1,
    "sunglasses": 1,
    "duck": 1,
    "scarf": 1,
    "wheel": 1,
    "mountain": 1,
    "sailboat": 1,
    "harp": 1,
}


@dataclass(frozen=True)
class ClassTable:
    """The rows and how they belong together.

    members: float32 [hypernyms, 1000], which classes lie under each hypernym
    concept_rows: int64 [concepts], the row of each concept
    names: the words of each class and hypernym, in the table's order
    """

    members: torch.Tensor
    concept_rows: torch.Tensor
    names: tuple[tuple[str, ...], ...]

    @property
    def nodes(self) -> int:
        """Classes and hypernyms together: the rows that photographs have."""
        return CLASSES + len(self.members)

    def shared(self) -> torch.Tensor:
        """bool [concepts]: whether photographs share the concept's row."""
        return self.concept_rows < self.nodes

    def ancestry(self) -> torch.Tensor:
        """bool [1000, nodes]: each class itself and its hypernyms."""
        return torch.cat([torch.eye(CLASSES, dtype=torch.bool), self.members.T.bool()], dim=1)

    def sizes(self) -> torch.Tensor:
        """float32 [nodes]: the number of classes under each node."""
        return torch.cat([torch.ones(CLASSES), self.members.sum(dim=1)])


def load_class_table(data: Path, concepts: list[Concept]) -> ClassTable:
    """Read words/ and match the concepts' names."""
    lines = (data / "words" / "imagenet.jsonl").read_text(encoding="utf-8").splitlines()
    classes = [json.loads(line) for line in lines]
    hypernyms = sorted({wnid for row in classes for wnid in row["hypernyms"]})
    row_of = {wnid: row for row, wnid in enumerate(hypernyms)}
    members = torch.zeros(len(hypernyms), CLASSES)
    for row in classes:
        for wnid in row["hypernyms"]:
            members[row_of[wnid], row["index"]] = 1
    names: list[tuple[str, ...]] = [(row["name"], *row["synonyms"]) for row in classes]
    words: dict[str, tuple[str, ...]] = {}
    with gzip.open(data / "words" / "nouns.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            noun = json.loads(line)
            if noun["wnid"] in row_of:
                words[noun["wnid"]] = tuple(noun["words"])
    names += [words[wnid] for wnid in hypernyms]
    return ClassTable(members, _concept_rows(concepts, names), tuple(names))


def _concept_rows(concepts: list[Concept], names: list[tuple[str, ...]]) -> torch.Tensor:
    named: dict[str, list[int]] = {}
    for row, synonyms in enumerate(names):
        for name in dict.fromkeys(_plain(name) for name in synonyms):
            named.setdefault(name, []).append(row)
    rows = torch.arange(len(concepts)) + len(names)
    for index, concept in enumerate(concepts):
        senses = named.get(_plain(concept.name))
        if senses and concept.name not in OTHER_SENSE:
            rows[index] = senses[min(SENSE.get(concept.name, 0), len(senses) - 1)]
    return rows


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").strip()
