"""From a folder of images to a tuned recipe or an adapter with its report: what the commands do.

`finetune_folder` is the one call behind `clipdex finetune` and the service's jobs, for every method:

    head  gda  tip-adapter  tip-adapter-f  linear-probe  logistic-probe  prolip     changes = "head"
    lora  partial  full                                                          changes = "weights"
    auto    one of them, by the amount of data and the hardware; `Finetuned.why` says why

- Callbacks are the hooks of training.loop. One that calls `run.stop(...)` ends the training early,
  and what was learnt until then is measured and published; one that raises ends the call: nothing is
  published, and run_dir keeps the last checkpoint. Methods that choose their settings by
  cross-fitting train several times; each training's hooks start anew, `RunView.stage` says which.
- With run_dir the same call goes on from the last checkpoint after a kill, and ends with the same
  weights to the bit. Without run_dir nothing is kept.
- The adapter is published as a new version, not live. `AdapterStore.load` gives `Adapter` (a head:
  `.logits(x)`, `.project(x)`; both towers as they were) or `TunedModel` (`.model_id` is a
  "local-dir:..." for load_encoder; its fingerprint is new, so indexes are embedded anew). Both have
  `.manifest` (with `.changes`) and `.metrics`.
- Weight methods read the images again from `Samples.names`, the files that Sources.read noted, so
  the files have to stay until the call returns.
- `Sources.retention`: a folder of categories that are not trained on, to measure what was forgotten.
- Under torchrun the weight methods train on all processes; the first one alone writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.encoder import Encoder
from training.adapter_store import AdapterStore
from training.choice import choose_head
from training.data import CACHE, Dataset, ImageFolder, encode
from training.errors import RecipeError
from training.export import export
from training.heads import GDA, LinearProbe, LogisticProbe, TextHead, TipAdapter
from training.loop import Callback, Run, fit
from training.method import Method
from training.optimisers import AdamW
from training.recipe import Recipe
from training.report import write_report
from training.search import Choice, LogUniform, Space, Trial, Tuning, tune
from training.steps import ChecklistReport, StepResult, checklist

METHODS: Mapping[str, Method] = {
    "head": TextHead(),
    "gda": GDA(),
    "tip-adapter": TipAdapter(),
    "linear-probe": LinearProbe(),
    "logistic-probe": LogisticProbe(),
}
AUTO = "auto"
HEAD_RECIPE = Recipe(optimizer=AdamW(lr=1e-2), epochs=30)
HEAD_SPACE: Space = {
    "optimizer.lr": LogUniform(1e-4, 1e-1, points=7),
    "method": Choice([TextHead(), TextHead(anchor=0.0), LinearProbe()]),
    "optimizer.weight_decay": LogUniform(1e-4, 1e-1, points=3),
}


@dataclass(frozen=True)
class Sources:
    """Where images and words come from.

    folder: class folders; val: a share, or a folder of its own; templates: sentences with {}
    """

    folder: Path
    val: float | Path = 0.2
    templates: Sequence[str] = ("{}",)
    views: int = 4
    seed: int = 0
    skip_bad: bool = False
    cache: Path | None = CACHE
    skipped: list[tuple[Path, str]] = field(default_factory=list)

    def read(
        self, encoder: Encoder, on_progress: Callable[[int, int], None] | None = None
    ) -> Dataset:
        """Check, split and encode. Files left out by `skip_bad` are noted in `skipped`.

        Raises: DataError, naming every offender.
        """
        data = ImageFolder(self.folder, val=self.val, seed=self.seed, skip_bad=self.skip_bad)
        self.skipped[:] = data.skipped
        return encode(
            encoder,
            data,
            views=self.views,
            templates=self.templates,
            cache=self.cache,
            on_progress=on_progress,
        )


@dataclass(frozen=True, eq=False)
class Finetuned:
    """What `finetune_folder` made. why: this method; version: of the adapter, not live yet."""

    run: Run
    why: str
    metrics: Mapping[str, Any]
    version: int
    report: Path
    checklist: ChecklistReport | None


def head_recipe(
    data: Dataset, method: str, recipe: Recipe | None, *, seed: int
) -> tuple[Recipe, str]:
    """The recipe for a method's name, and why; "auto" chooses by the amount of data.

    Raises: RecipeError for an unknown name.
    """
    base = HEAD_RECIPE.replace(seed=seed) if recipe is None else recipe
    if method == AUTO:
        choice = choose_head(data, base)
        return base.replace(method=choice.method), choice.why
    if method not in METHODS:
        known = ", ".join([*METHODS, AUTO])
        raise RecipeError(f"method must be one of {known}, got {method!r}", param="method")
    if recipe is not None:
        return recipe, "as the recipe says"
    return base.replace(method=METHODS[method]), "as asked for"


def finetune_folder(
    encoder: Encoder,
    data: Dataset,
    *,
    store: AdapterStore,
    name: str,
    method: str = "head",
    recipe: Recipe | None = None,
    seed: int = 0,
    budget: str | float | None = None,
    report: Path,
    run_dir: Path | None = None,
    callbacks: Sequence[Callback] = (),
    on_step: Callable[[StepResult], None] | None = None,
) -> Finetuned:
    """Train a head, write its report, and publish it as a new version of an adapter (not live yet).

    budget: for the checklist before it; None leaves the checklist out. recipe: instead of the
    method's own (then `method` must be "head").
    """
    chosen, why = head_recipe(data, method, recipe, seed=seed)
    checked = None if budget is None else checklist(chosen, data, budget=budget, on_step=on_step)
    run = fit(chosen, data, callbacks=callbacks, run_dir=run_dir)
    write_report(report, run=run, checklist=checked, title=f"Adapter {name}")
    version = store.publish(
        name, lambda folder: export(folder, run, data, base_model=encoder.model_id)
    )
    metrics = store.load(name, version, fingerprint=encoder.fingerprint).metrics
    return Finetuned(run, why, metrics, version, report, checked)


def tune_folder(
    data: Dataset,
    *,
    method: str = "tpe",
    trials: int = 20,
    budget: str | float | None = None,
    study: Path | None = None,
    jobs: int = 1,
    seed: int = 0,
    on_trial: Callable[[Trial], None] | None = None,
) -> Tuning:
    """Search the heads' settings on the validation split."""
    return tune(
        HEAD_SPACE,
        data,
        recipe=HEAD_RECIPE.replace(seed=seed),
        method=method,
        trials=trials,
        budget=budget,
        study=study,
        jobs=jobs,
        seed=seed,
        on_trial=on_trial,
    )
