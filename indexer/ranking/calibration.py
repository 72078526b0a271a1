"""What was learnt from labelled images about how far an index's probabilities can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indexer.errors import BrokenIndexError


@dataclass(frozen=True)
class Threshold:
    """Answers at or above `min_probability` were right this often.

    precision: the one asked for, in (0, 1]
    min_probability: of the best match; None where no threshold reached the precision
    coverage: share of images answered at that threshold
    """

    precision: float
    min_probability: float | None
    coverage: float


@dataclass(frozen=True)
class Calibration:
    """Fitted by `clipdex eval --calibrate`, kept in the manifest of the index.

    temperature: divides the logits before the softmax
    slope, offset: the logit of an independent probability is slope * cosine + offset
    thresholds: by wanted precision, for abstaining
    images, labels: how many there were to fit on; categories: in the index at that time
    ece_before, ece_after: expected calibration error on the half that wasn't fitted on
    """

    temperature: float
    slope: float
    offset: float
    thresholds: tuple[Threshold, ...]
    images: int
    labels: int
    categories: int
    ece_before: float
    ece_after: float
    created: str

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """Raises: BrokenIndexError if a field is missing."""
        try:
            thresholds = tuple(Threshold(**item) for item in value["thresholds"])
            return cls(**{**value, "thresholds": thresholds})
        except (TypeError, KeyError) as error:
            raise BrokenIndexError(f"the calibration in the manifest lacks {error}") from error
