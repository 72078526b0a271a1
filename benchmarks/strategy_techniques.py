"""Writes docs/strategy/techniques.md from the toolkit's own docstrings.

    python -m benchmarks.strategy_techniques docs/strategy/techniques.md

One technique a file, its formula and source on top: this page is those tops, in the order of the
syllabus. A test compares the file with what this writes, so that page and code can't drift apart.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.layers import ACTIVATIONS

ROOT = Path(__file__).parents[1]
_INTRODUCTION = """\
# The techniques: formulas, sources, where they live

*Written by `python -m benchmarks.strategy_techniques docs/strategy/techniques.md` from the tops of
the files it names: change those, not this page.*

How to use them: [../training.md](../training.md). What each one added to a small network:
[cifar10.md](cifar10.md).
"""
_DROPOUT = """\
Drop units at random while training; what is left is scaled up, so that serving needs no change
("inverted" dropout).

    training:  y = x * m / (1 - p),   m_i ~ Bernoulli(1 - p)
    serving:   y = x

It is torch's `nn.Dropout`, before the last layer: `SmallCNN(dropout=)`, `LinearProbe(dropout=)`,
`TextHead(dropout=)`; after every hidden layer: `MLP(dropout=)`.

Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
"""


@dataclass(frozen=True)
class Topic:
    """A row of the syllabus. parts: (title, file below training/); tests: files in tests/."""

    title: str
    parts: Sequence[tuple[str, str]]
    tests: Sequence[str]


TOPICS = (
    Topic(
        "Activations",
        [
            ("All of them", "layers/activations.py"),
            ("Maxout", "layers/maxout.py"),
            ("Dead and saturated units, measured", "loop/health.py"),
        ],
        ["training/test_layers.py", "training/test_loop.py"],
    ),
    Topic(
        "Preprocessing",
        [
            ("Mean image", "preprocessing/mean_image.py"),
            ("Channel mean", "preprocessing/channel_mean.py"),
            ("Channel mean and standard deviation", "preprocessing/channel_standard.py"),
            ("PCA and ZCA whitening", "preprocessing/whitening.py"),
            ("Grayscale", "preprocessing/grayscale.py"),
            ("Red and blue mixed up", "preprocessing/channel_order.py"),
        ],
        ["training/test_preprocessing.py"],
    ),
    Topic(
        "Initialisation",
        [
            ("Zero", "initialisation/zero.py"),
            ("Small random", "initialisation/small_random.py"),
            ("Xavier", "initialisation/xavier.py"),
            ("He", "initialisation/he.py"),
            ("What vanishes, what explodes", "initialisation/variance.py"),
        ],
        ["training/test_initialisation.py"],
    ),
    Topic("Batch statistics", [("Norms", "layers/norms.py")], ["training/test_layers.py"]),
    Topic(
        "Regularisation",
        [
            ("L1, L2, elastic net", "penalty.py"),
            ("Decoupled weight decay", "optimisers/adamw.py"),
            ("Dropout", ""),
            ("DropConnect", "layers/dropconnect.py"),
            ("Stochastic depth, zero-start residual branches", "layers/residual.py"),
            ("Fractional max pooling", "layers/fractional_pool.py"),
            ("Cutout", "augment/cutout.py"),
            ("Mixup", "augment/mixup.py"),
            ("CutMix", "augment/cutmix.py"),
            ("Flips, crops, scales", "augment/geometry.py"),
            ("Colour jitter", "augment/jitter.py"),
            ("Early stopping", "stopping.py"),
            ("Ensembles", "ensemble.py"),
            ("Multi-crop testing", "augment/multicrop.py"),
            ("Classes of different sizes", "data/imbalance.py"),
        ],
        [
            "training/test_penalty.py",
            "training/test_layers.py",
            "training/test_augment.py",
            "training/test_stopping.py",
        ],
    ),
    Topic(
        "Losses",
        [
            ("Mean squared error", "losses/squared_error.py"),
            ("Mean absolute error", "losses/absolute_error.py"),
            ("Binary cross-entropy", "losses/binary_cross_entropy.py"),
            ("Cross-entropy and label smoothing", "losses/cross_entropy.py"),
            ("Symmetric InfoNCE", "losses/info_nce.py"),
            ("Pairwise sigmoid", "losses/pairwise_sigmoid.py"),
        ],
        ["training/test_losses.py"],
    ),
    Topic(
        "Optimisers",
        [
            ("SGD", "optimisers/sgd.py"),
            ("Momentum", "optimisers/momentum.py"),
            ("RMSprop", "optimisers/rmsprop.py"),
            ("Adam", "optimisers/adam.py"),
            ("AdamW", "optimisers/adamw.py"),
            ("What decays, and how fast each layer learns", "optimisers/groups.py"),
        ],
        ["training/test_optimisers.py"],
    ),
    Topic(
        "Learning rate",
        [
            ("Warmup and time", "schedules/schedule.py"),
            ("Constant", "schedules/constant.py"),
            ("Step", "schedules/step.py"),
            ("Linear", "schedules/linear.py"),
            ("Cosine", "schedules/cosine.py"),
            ("Inverse square root", "schedules/inverse_sqrt.py"),
        ],
        ["training/test_schedules.py"],
    ),
    Topic("Search", [("Search", "search/tuning.py")], ["training/test_search.py"]),
    Topic(
        "Transfer learning",
        [
            ("Which method for how much data", "transfer/advice.py"),
            ("Feature extraction", "transfer/feature_extraction.py"),
            ("Partial unfreeze", "transfer/partial_unfreeze.py"),
            ("Full fine-tuning", "transfer/full_finetune.py"),
            ("LoRA", "transfer/lora.py"),
            ("Weight-space interpolation", "transfer/weight_average.py"),
        ],
        ["training/test_transfer.py"],
    ),
    Topic(
        "Heads on CLIP features",
        [
            ("Text head", "heads/text_head.py"),
            ("Gaussian discriminant", "heads/gda.py"),
            ("Tip-Adapter", "heads/tip_adapter.py"),
            ("ProLIP", "heads/prolip.py"),
            ("Linear probe", "heads/linear_probe.py"),
            ("Logistic probe", "heads/logistic_probe.py"),
        ],
        ["training/test_heads.py"],
    ),
    Topic(
        "The checklist",
        [
            ("1 initial loss", "steps/initial_loss.py"),
            ("2 overfit a tiny sample", "steps/overfit_tiny.py"),
            ("3 learning-rate search", "steps/lr_search.py"),
            ("4 coarse search", "steps/coarse.py"),
            ("5 refine", "steps/refine.py"),
            ("6 read the curves", "steps/read_curves.py"),
            ("What the curves say", "diagnosis/curves.py"),
        ],
        ["training/test_steps.py", "training/test_diagnosis.py"],
    ),
    Topic(
        "Data",
        [
            ("Near-duplicates", "data/duplicates.py"),
            ("Splits", "data/splits.py"),
            ("The gate that an adapter has to pass", "gate.py"),
        ],
        ["training/test_data.py", "training/test_gate.py"],
    ),
)


def techniques() -> str:
    """The whole page."""
    lines = [_INTRODUCTION]
    for topic in TOPICS:
        tests = ", ".join(f"`tests/{test}`" for test in topic.tests)
        lines.append(f"## {topic.title}\n\nTested in {tests}.\n")
        for title, file in topic.parts:
            where = f"`training/{file}`" if file else "`torch.nn.Dropout`"
            lines.append(f"### {title}\n\n{where}\n\n{_top(file) if file else _DROPOUT}")
            if file == "layers/activations.py":
                lines.append(_activations())
    return "\n".join(lines).rstrip() + "\n"


def _top(file: str) -> str:
    path = ROOT / "training" / file
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if text is None:
        raise ValueError(f"{path} has no docstring")
    # Markdown wants a blank line around what is set off by four spaces
    text = re.sub(r"(?m)^(\S.*)\n(?=    )", r"\1\n\n", text)
    return re.sub(r"(?m)^(    .*)\n(?=\S)", r"\1\n\n", text) + "\n"


def _activations() -> str:
    rows = ["| name | formula | saturates | both signs | can die | source |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    for name, facts in ACTIVATIONS.items():
        marks = (facts.saturates, facts.zero_centred, facts.can_die)
        cells = " | ".join("yes" if mark else "no" for mark in marks)
        rows.append(f"| `{name}` | `{facts.formula}` | {cells} | {facts.source} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(techniques(), encoding="utf-8")
