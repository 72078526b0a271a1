"""From a ranking to an answer: one category, several, or an honest `unknown`."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.errors import PolicyError
from indexer.ranking.calibration import Calibration
from indexer.ranking.match import GroupMatch, Match, ProbabilityKind, Ranking
from indexer.ranking.ranking import Mode

_DEFAULT_MINIMUM = {"single": 0.0, "multi": 0.5}


@dataclass(frozen=True)
class Policy:
    """What has to hold for a match to be believed.

    mode: "single" for the one category that wins, "multi" for every one that passes by itself
    min_probability: None for 0 (single) or 0.5 (multi)
    min_score: least cosine
    precision: wanted share of right ones among the answers given, in (0, 1); takes the threshold
        that the index's calibration found for it
    Raises: PolicyError for a value out of range, or `precision` with several labels.
    """

    mode: Mode = "single"
    min_probability: float | None = None
    min_score: float = -1.0
    precision: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in _DEFAULT_MINIMUM:
            raise PolicyError(f"mode must be 'single' or 'multi', not {self.mode!r}", param="mode")
        _check_range("min_probability", self.min_probability, 0, 1)
        _check_range("min_score", self.min_score, -1, 1)
        _check_range("precision", self.precision, 0, 1)
        if self.precision is not None and self.mode == "multi":
            raise PolicyError(
                "precision is calibrated for mode=single; use min_probability with mode=multi",
                param="precision",
            )


@dataclass(frozen=True)
class Answer:
    """What is said of one image.

    matches: best first; in single mode all that were asked for, in multi mode those believed
    unknown: nothing is believed; reason: why not, else None
    """

    matches: tuple[Match, ...]
    unknown: bool
    reason: str | None
    groups: tuple[GroupMatch, ...]
    probability_kind: ProbabilityKind


def answer(ranking: Ranking, policy: Policy, calibration: Calibration | None) -> Answer:
    """Apply a policy to a ranking made in the same mode.

    Raises: PolicyError if the policy needs a calibration that isn't there or didn't reach it.
    """
    least = minimum(policy, calibration)
    if policy.mode == "multi":
        believed = tuple(m for m in ranking.matches if _doubt(m, least, policy) is None)
        reason = None if believed else "no category passes"
        return Answer(believed, not believed, reason, ranking.groups, ranking.probability_kind)
    reason = _doubt(ranking.matches[0], least, policy)
    return Answer(
        ranking.matches, reason is not None, reason, ranking.groups, ranking.probability_kind
    )


def minimum(policy: Policy, calibration: Calibration | None) -> float:
    """The least probability that a policy believes.

    Raises: PolicyError if `precision` can't be had.
    """
    default = _DEFAULT_MINIMUM[policy.mode]
    least = default if policy.min_probability is None else policy.min_probability
    if policy.precision is None:
        return least
    if calibration is None:
        raise PolicyError(
            "this index isn't calibrated, so no threshold is known for a precision; run "
            "`clipdex eval FOLDER --calibrate`, or give min_probability",
            param="precision",
        )
    for threshold in calibration.thresholds:
        if threshold.precision >= policy.precision and threshold.min_probability is not None:
            return max(least, threshold.min_probability)
    reached = [t.precision for t in calibration.thresholds if t.min_probability is not None]
    best = f"the best is {max(reached)}" if reached else "none was"
    raise PolicyError(
        f"no threshold reached a precision of {policy.precision} when this index was calibrated on "
        f"{calibration.images} images; {best}",
        param="precision",
    )


def _doubt(match: Match, least: float, policy: Policy) -> str | None:
    if match.background:
        return "a background category wins"
    if match.probability < least:
        return f"probability below {least:.4g}"
    if match.score < policy.min_score:
        return f"score below {policy.min_score:.4g}"
    return None


def _check_range(name: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:
        raise PolicyError(f"{name} must be between {least} and {most}, not {value}", param=name)
