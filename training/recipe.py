"""A recipe: all that shapes a training run, as one frozen dataclass that reads and writes YAML."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.augment import Augment
from training.data.folder import BALANCES
from training.errors import RecipeError, require
from training.heads import TextHead
from training.losses import CrossEntropy, ElasticNet, Loss
from training.networks import Method
from training.optimisers import AdamW, Optimiser
from training.parts import check_choice, check_positive, check_share, from_plain, part, to_plain
from training.preprocessing import Preprocessing
from training.schedules import Cosine, Schedule
from training.stopping import Patience
from training.transfer import Transfer

PRECISIONS = ("fp32", "bf16", "fp16")


@part
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run.

    method: what is trained; transfer: which of a pretrained network's weights may change
    optimizer, schedule: the peak rate and its course; clip: largest gradient norm
    ema: decay of the running average of weights that is then evaluated and kept
    penalty, augment: regularisers (dropout and the like belong to the method, smoothing to the
        loss); preprocess: fitted on the training split, then part of the network
    stop: early stopping; balance: "none", "weights" or "sampler" for classes of different size
    epochs, batch_size: passes over the training split, samples a step; precision: "fp32", "bf16",
        "fp16"; seed: of everything random
    chosen_on: digest of the held-out samples that a search chose this recipe by, if one did: they
        can't judge it any more

    Raises: RecipeError for a part of the wrong kind or a value out of range.
    """

    method: Method = field(default_factory=TextHead)
    loss: Loss = field(default_factory=CrossEntropy)
    optimizer: Optimiser = field(default_factory=AdamW)
    schedule: Schedule = field(default_factory=lambda: Cosine(warmup=0.05))
    penalty: ElasticNet | None = None
    augment: Sequence[Augment] = ()
    preprocess: Preprocessing | None = None
    transfer: Transfer | None = None
    stop: Patience | None = None
    balance: str = "none"
    epochs: int = 50
    batch_size: int = 64
    clip: float | None = None
    ema: float | None = None
    precision: str = "fp32"
    seed: int = 0
    chosen_on: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "augment", tuple(self.augment))
        kinds: dict[str, tuple[Any, bool]] = {
            "method": (Method, False),
            "loss": (Loss, False),
            "optimizer": (Optimiser, False),
            "schedule": (Schedule, False),
            "penalty": (ElasticNet, True),
            "preprocess": (Preprocessing, True),
            "transfer": (Transfer, True),
            "stop": (Patience, True),
        }
        for name, (kind, optional) in kinds.items():
            value = getattr(self, name)
            if not (optional and value is None) and not isinstance(value, kind):
                raise RecipeError(f"{name} can't be {value!r}", param=name)
        for item in self.augment:
            if not isinstance(item, Augment):
                raise RecipeError(f"augment can't hold {item!r}", param="augment")
        check_choice("balance", self.balance, BALANCES)
        check_choice("precision", self.precision, PRECISIONS)
        check_positive("epochs", self.epochs)
        check_positive("batch_size", self.batch_size)
        if self.clip is not None:
            check_positive("clip", self.clip)
        if self.ema is not None:
            check_share("ema", self.ema, upper_open=True)

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some fields changed; "optimizer.lr" style paths reach into parts.

        Raises: RecipeError for a path that leads nowhere.
        """
        recipe = self
        for path, value in changes.items():
            recipe = replace_at(recipe, path, value)
        return recipe

    def plain(self) -> Recipe:
        """The same with every regulariser off."""
        return dataclasses.replace(
            self,
            method=self.method.plain(),
            loss=self.loss.plain(),
            optimizer=self.optimizer.plain(),
            penalty=None,
            augment=(),
            ema=None,
            stop=None,
        )

    @property
    def digest(self) -> str:
        """SHA-256 over all fields."""
        text = json.dumps(to_plain(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The recipe as YAML text."""
        yaml = require("yaml", needed_for="a recipe as YAML")
        text: str = yaml.safe_dump(to_plain(self)["Recipe"], sort_keys=False)
        return text

    @classmethod
    def from_yaml(cls, text: str) -> Recipe:
        """What `to_yaml` wrote, or a hand-written part of it: fields left out take their defaults.

        Raises: RecipeError for broken YAML, or anything unknown in it.
        """
        yaml = require("yaml", needed_for="a recipe as YAML")
        try:
            plain = yaml.load(text, Loader=_loader(yaml))
        except yaml.YAMLError as exc:
            raise RecipeError(f"the recipe is no YAML: {exc}") from exc
        recipe = from_plain({"Recipe": plain or {}})
        assert isinstance(recipe, Recipe)
        return recipe

    @classmethod
    def from_file(cls, path: str | Path) -> Recipe:
        """`from_yaml` of a file's text.

        Raises: RecipeError where it can't be read.
        """
        try:
            return cls.from_yaml(Path(path).read_text(encoding="utf-8"))
        except OSError as exc:
            raise RecipeError(f"can't read the recipe {path}: {exc.strerror}") from exc


def replace_at(target: Any, path: str, value: Any) -> Any:
    """A frozen dataclass with the field at a dotted path changed.

    Raises: RecipeError for a path that leads nowhere.
    """
    name, _, rest = path.partition(".")
    if not dataclasses.is_dataclass(target) or name not in {
        known.name for known in dataclasses.fields(target)
    }:
        raise RecipeError(f"{type(target).__name__} has no field {name!r}", param=name)
    if rest:
        value = replace_at(getattr(target, name), rest, value)
    return dataclasses.replace(target, **{name: value})  # type: ignore[type-var]


def _loader(yaml: Any) -> Any:
    """A safe loader that reads 1e-3 as a number, as people write it (YAML 1.1 wants 1.0e-3)."""
    loader: Any = type("RecipeLoader", (yaml.SafeLoader,), {})
    loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"),
        list("-+0123456789"),
    )
    return loader
