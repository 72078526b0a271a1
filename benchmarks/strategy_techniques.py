"""Writes docs/strategy/techniques.md from the toolkit's own docstrings.

    python -m benchmarks.strategy_techniques docs/strategy/techniques.md

Each technique has its formula and source in its docstring: this page collects them by topic. A test
compares the file with what this writes, so that page and code can't drift apart.
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

*Written by `python -m benchmarks.strategy_techniques docs/strategy/techniques.md` from the
docstrings it names: change those, not this page.*

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
    """A heading of the page.

    parts: (title, "file below training/:class or function", or the file alone for its own
    docstring); tests: files in tests/
    """

    title: str
    parts: Sequence[tuple[str, str]]
    tests: Sequence[str]


TOPICS = (
    Topic(
        "Activations",
        [
            ("All of them", "layers.py:activation"),
            ("Maxout", "layers.py:Maxout"),
            ("Dead and saturated units, measured", "loop/facts.py:activation_health"),
        ],
        ["training/test_layers.py", "training/loop/test_loop.py"],
    ),
    Topic(
        "Preprocessing",
        [
            ("Mean image", "preprocessing.py:MeanImage"),
            ("Channel mean", "preprocessing.py:ChannelMean"),
            ("Channel mean and standard deviation", "preprocessing.py:ChannelStandard"),
            ("PCA and ZCA whitening", "preprocessing.py:Whitening"),
            ("Grayscale", "preprocessing.py:replicate_channels"),
            ("Red and blue mixed up", "preprocessing.py:swapped_against"),
        ],
        ["training/test_preprocessing.py"],
    ),
    Topic(
        "Initialisation",
        [
            ("Zero", "initialisation.py:Zero"),
            ("Small random", "initialisation.py:SmallRandom"),
            ("Xavier", "initialisation.py:Xavier"),
            ("He", "initialisation.py:He"),
            ("What vanishes, what explodes", "initialisation.py:variance_report"),
        ],
        ["training/test_initialisation.py"],
    ),
    Topic("Batch statistics", [("Norms", "layers.py:norm2d")], ["training/test_layers.py"]),
    Topic(
        "Regularisation",
        [
            ("L1, L2, elastic net", "losses.py:ElasticNet"),
            ("Decoupled weight decay", "optimisers.py:AdamW"),
            ("Dropout", ""),
            ("DropConnect", "layers.py:DropConnect"),
            ("Stochastic depth, zero-start residual branches", "layers.py:Residual"),
            ("Fractional max pooling", "layers.py:FractionalMaxPool"),
            ("Cutout", "augment/images.py:Cutout"),
            ("Mixup", "augment/mixing.py:Mixup"),
            ("CutMix", "augment/mixing.py:CutMix"),
            ("Flips", "augment/images.py:Flip"),
            ("Crops and scales", "augment/images.py:Crop"),
            ("Shifts", "augment/images.py:Shift"),
            ("Colour jitter", "augment/images.py:ColourJitter"),
            ("Early stopping", "stopping.py"),
            ("Ensembles", "averaging.py:ensemble_probabilities"),
            ("Multi-crop testing", "augment/images.py:crops"),
            ("Classes of different sizes", "data/folder.py:class_weights"),
        ],
        [
            "training/test_penalty.py",
            "training/test_layers.py",
            "training/augment/test_augment.py",
            "training/test_stopping.py",
        ],
    ),
    Topic(
        "Losses",
        [
            ("Mean squared error", "losses.py:SquaredError"),
            ("Mean absolute error", "losses.py:AbsoluteError"),
            ("Binary cross-entropy", "losses.py:BinaryCrossEntropy"),
            ("Cross-entropy and label smoothing", "losses.py:CrossEntropy"),
            ("Symmetric InfoNCE", "losses.py:info_nce"),
            ("Pairwise sigmoid", "losses.py:pairwise_sigmoid"),
        ],
        ["training/test_losses.py"],
    ),
    Topic(
        "Optimisers",
        [
            ("SGD", "optimisers.py:SGD"),
            ("Momentum", "optimisers.py:Momentum"),
            ("RMSprop", "optimisers.py:RMSprop"),
            ("Adam", "optimisers.py:Adam"),
            ("AdamW", "optimisers.py:AdamW"),
            ("What decays, and how fast each layer learns", "optimisers.py:parameter_groups"),
        ],
        ["training/test_optimisers.py"],
    ),
    Topic(
        "Learning rate",
        [
            ("Warmup and time", "schedules.py:Schedule"),
            ("Constant", "schedules.py:Constant"),
            ("Step", "schedules.py:Step"),
            ("Linear", "schedules.py:Linear"),
            ("Cosine", "schedules.py:Cosine"),
            ("Inverse square root", "schedules.py:InverseSqrt"),
        ],
        ["training/test_schedules.py"],
    ),
    Topic("Search", [("Search", "search/tuning.py")], ["training/search/test_search.py"]),
    Topic(
        "Transfer learning",
        [
            ("Which method for how much data", "transfer.py:advise"),
            ("Feature extraction", "transfer.py:FeatureExtraction"),
            ("Partial unfreeze", "transfer.py:PartialUnfreeze"),
            ("Full fine-tuning", "transfer.py:FullFineTune"),
            ("LoRA", "transfer.py:LoRA"),
            ("Weight-space interpolation", "averaging.py:sweep_alpha"),
        ],
        ["training/test_transfer.py"],
    ),
    Topic(
        "Heads on CLIP features",
        [
            ("Text head", "heads/text_head.py"),
            ("Gaussian discriminant", "heads/gda.py"),
            ("Tip-Adapter", "heads/tip_adapter.py"),
            ("Words and images in one linear head", "heads/blend.py"),
            ("Weights of a blend", "heads/blend.py:stack"),
            ("A level against other categories", "heads/level.py"),
            ("ProLIP", "heads/prolip.py"),
            ("Linear probe", "heads/linear.py"),
            ("Logistic probe", "heads/linear.py:LogisticProbe"),
        ],
        ["training/heads/test_heads.py", "training/heads/test_prolip.py"],
    ),
    Topic(
        "The checklist",
        [
            ("1 initial loss", "steps/steps.py:initial_loss"),
            ("2 overfit a tiny sample", "steps/steps.py:overfit_tiny"),
            ("3 learning-rate search", "steps/steps.py:lr_search"),
            ("4 coarse search", "steps/steps.py:coarse_search"),
            ("5 refine", "steps/steps.py:refine"),
            ("6 read the curves", "steps/steps.py:read_curves"),
            ("What the curves say", "diagnosis/curves.py"),
        ],
        ["training/steps/test_steps.py", "training/diagnosis/test_diagnosis.py"],
    ),
    Topic(
        "Data",
        [
            ("Near-duplicates", "data/splits.py:near_pairs"),
            ("Splits", "data/splits.py"),
            ("The gate that an adapter has to pass", "judging/gate.py"),
        ],
        ["training/data/test_data.py", "training/judging/test_gate.py"],
    ),
)


def techniques() -> str:
    """The whole page."""
    lines = [_INTRODUCTION]
    for topic in TOPICS:
        tests = ", ".join(f"`tests/{test}`" for test in topic.tests)
        lines.append(f"## {topic.title}\n\nTested in {tests}.\n")
        for title, place in topic.parts:
            file, _, name = place.partition(":")
            where = f"`training/{file}`" + (f": `{name}`" if name else "")
            shown = where if place else "`torch.nn.Dropout`"
            lines.append(
                f"### {title}\n\n{shown}\n\n{_docstring(file, name) if file else _DROPOUT}"
            )
            if place == "layers.py:activation":
                lines.append(_activations())
    return "\n".join(lines).rstrip() + "\n"


def _docstring(file: str, name: str) -> str:
    path = ROOT / "training" / file
    place: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    if name:
        place = next(node for node in ast.walk(place) if getattr(node, "name", None) == name)
    text = ast.get_docstring(place)  # type: ignore[arg-type]
    if text is None:
        raise ValueError(f"{place} has no docstring")
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
