"""How often the gate passes what is better, and what isn't: `python -m benchmarks.gate_power`.

Simulated tasks of ten classes: unit features around class centres, and words (text vectors) that
fit them to a degree. `auto` is measured out of fold and judged as in `clipdex finetune`; the truth
comes from 2,000 further images.

    gain       words as bad as gives a true gain of about the size asked for
    no gain    the words are the class centres themselves: nothing is left to learn

Required: 8 images a class and 15 points, 16 and 10 points alike, pass in at least 80 % of 40 draws;
without gain at most 5 % of 200 draws pass.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from training import Dataset, Samples, ZeroShot, fit
from training.finetune import HEAD_RECIPE
from training.judging.comparison import measure
from training.judging.leaderboard import leaderboard

CLASSES, WIDTH, TESTED = 10, 64, 200
CASES = (  # images a class, noise of the images, noise of the words, draws, share that must pass
    ("8 images, a gain of about 15 points", 8, 2.4, 1.2, 40, 0.8),
    ("16 images, a gain of about 10 points", 16, 2.4, 0.87, 40, 0.8),
    ("8 images, no gain", 8, 2.4, 0.0, 200, None),
)
MOST_WITHOUT = 0.05


def draw(seed: int, shots: int, noise: float, word_noise: float) -> tuple[Dataset, Samples]:
    """A support set, and images to measure the truth with."""
    dice = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        values: torch.Tensor = torch.randn(*shape, generator=dice) / WIDTH**0.5
        return values

    centres = F.normalize(normal(CLASSES, WIDTH), dim=1)
    text = F.normalize(centres + word_noise * normal(CLASSES, WIDTH), dim=1)

    def side(count: int) -> Samples:
        labels = torch.arange(CLASSES).repeat_interleave(count)
        x = F.normalize(centres[labels] + noise * normal(len(labels), WIDTH), dim=1)
        return Samples(x[:, None], labels)

    names = tuple(map(str, range(CLASSES)))
    support, test = side(shots), side(TESTED)
    words = ZeroShot(text=text, logit_scale=10.0, fingerprint="simulated")
    return Dataset(support, support.pick([]), names, words), test


def judged(seed: int, shots: int, noise: float, word_noise: float) -> tuple[bool, float, float]:
    """Whether the gate passed, the true gain, and the gain out of fold."""
    data, test = draw(seed, shots, noise, word_noise)
    board = leaderboard(data, seed=seed)
    run = fit(HEAD_RECIPE.replace(method=board.winner.method), data)
    metrics = measure(run, data, board)
    x, y = test.first_views(), test.labels
    assert data.zero_shot is not None
    tuned, zero = (
        float((answers.argmax(dim=1) == y).double().mean())
        for answers in (run.logits(x), data.zero_shot.logits(x))
    )
    return bool(metrics["gate"]["passed"]), tuned - zero, float(metrics["gain"]["mean"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if the gate is too strict or too lax."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--draws", type=int, help="instead of 40 and 200")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    fine = True
    print("| task | draws | true gain | gain out of fold | passed |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, shots, noise, word_noise, draws, needed in CASES:
        count = options.draws or draws
        found = [judged(seed, shots, noise, word_noise) for seed in range(count)]
        passed = float(np.mean([p for p, _, _ in found]))
        true, told = (float(np.mean([row[i] for row in found])) for i in (1, 2))
        fine &= passed >= needed if needed is not None else passed <= MOST_WITHOUT
        print(f"| {name} | {count} | {true:+.1%} | {told:+.1%} | {passed:.0%} |", flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
