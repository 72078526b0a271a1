"""From a folder of images to a tuned recipe or an adapter with its report: what the commands do.

`finetune_folder` is the call behind `clipdex finetune` and the service's jobs, for every method:

    head  gda  tip-adapter  tip-adapter-f  linear-probe  logistic-probe  prolip     changes = "head"
    lora  partial  full                                                          changes = "weights"
    auto    one of them, by the amount of data and the hardware; `Finetuned.why` says why

- Callbacks are the hooks of training.loop. One that calls `run.stop(...)` ends the training early,
  and what was learnt until then is measured and published; one that raises ends the call: nothing
  is published, and run_dir keeps the last checkpoint. The weight methods choose their settings in
  shorter trainings before; each one's hooks start anew, `RunView.stage` says which.
- With run_dir the same call goes on from the last checkpoint after a kill, and ends with the same
  weights to the bit. Without run_dir nothing is kept.
- The adapter is published as a new version, not live. `AdapterStore.load` gives `Adapter` (a head:
  `.logits(x)`, `.project(x)`; both towers as they were) or `TunedModel` (`.model_id` is a
  "local-dir:..." for load_encoder; its fingerprint is new, so indexes are embedded anew). Both have
  `.manifest` (with `.changes`) and `.metrics`.
- Weight methods read the images again from `Samples.names`, the files that Sources.read noted, so
  the files have to stay until the call returns.
- `Sources.retention`: a folder of categories that are not trained on, to measure what is forgotten.
- Under torchrun the weight methods train on all processes; the first one alone writes.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from models.encoder import Encoder
from models.image.parity import synthetic_images
from storage.durable import sha256_of
from training.adapters.export import export, export_tower, measure, measure_tower
from training.adapters.manifest import HEAD, MANIFEST, WEIGHTS
from training.adapters.store import AdapterStore
from training.data import CACHE, Dataset, ImageFolder, Retention, encode
from training.errors import RecipeError, require_extra
from training.heads import GDA, LinearProbe, LogisticProbe, ProLIP, TextHead, TipAdapter
from training.judging.choice import choose_method, choose_strength
from training.judging.leaderboard import Leaderboard, leaderboard
from training.loop import Callback, Run, fit
from training.loop.distributed import joined
from training.names import AUTO, MEASURED_NAMES, METHOD_NAMES
from training.networks import Method
from training.optimisers import AdamW
from training.recipe import Recipe
from training.report import write_report
from training.search import Choice, LogUniform, Space, Trial, Tuning, tune
from training.steps import ChecklistReport, StepResult, checklist
from training.tower import TOWER_METHODS, Tuned, tune_tower
from training.tower.tuning import TRIALS

METHODS: Mapping[str, Method] = {
    "head": TextHead(),
    "gda": GDA(),
    "tip-adapter": TipAdapter(),
    "tip-adapter-f": TipAdapter(trained=True),
    "linear-probe": LinearProbe(),
    "logistic-probe": LogisticProbe(),
    "prolip": ProLIP(),
}
_MARK = "published"  # in run_dir: the digest of the manifest that is about to be published
_SEEN = (
    "as the recipe says, which was chosen by these very held-out images: their figures flatter it; "
    "judge with a folder of others"
)
HEAD_RECIPE = Recipe(optimizer=AdamW(lr=1e-2), epochs=30)
HEAD_SPACE: Space = {
    "optimizer.lr": LogUniform(1e-4, 1e-1, points=7),
    "method": Choice([TextHead(), TextHead(anchor=0.0), LinearProbe()]),
    "optimizer.weight_decay": LogUniform(1e-4, 1e-1, points=3),
}


@dataclass(frozen=True)
class Sources:
    """Where images and words come from.

    folder: class folders; val: a share, or a folder of its own, or None: a fifth where every class
        has at least 30 images, else none; templates: sentences with {}
    retention: class folders of other categories, None for none
    """

    folder: Path
    val: float | Path | None = None
    templates: Sequence[str] = ("{}",)
    views: int = 4
    seed: int = 0
    skip_bad: bool = False
    cache: Path | None = CACHE
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    retention: Path | None = None

    def read(
        self, encoder: Encoder, on_progress: Callable[[int, int], None] | None = None
    ) -> Dataset:
        """Check, split and encode. Files left out by `skip_bad` are noted in `skipped`.

        Raises: MissingExtraError, before the minutes that encoding may take; DataError, naming
        every offender.
        """
        require_extra(needed_for="fine-tuning")
        data = ImageFolder(self.folder, val=self.val, seed=self.seed, skip_bad=self.skip_bad)
        self.skipped[:] = data.skipped
        encoded = encode(
            encoder,
            data,
            views=self.views,
            templates=self.templates,
            cache=self.cache,
            on_progress=on_progress,
        )
        if self.retention is None:
            return encoded
        others = ImageFolder(self.retention, val=0.0, skip_bad=self.skip_bad)
        self.skipped.extend(others.skipped)
        kept = encode(encoder, others, templates=self.templates, cache=self.cache)
        assert kept.zero_shot is not None
        return replace(encoded, retention=Retention(kept.train, kept.classes, kept.zero_shot))


@dataclass(frozen=True, eq=False)
class Finetuned:
    """What `finetune_folder` made.

    method: its name, never "auto"; why: this method with these strengths
    changes: "head" or "weights"; version: of the adapter, not live yet
    """

    run: Run
    method: str
    why: str
    changes: str
    metrics: Mapping[str, Any]
    version: int
    report: Path
    checklist: ChecklistReport | None


def head_recipe(
    data: Dataset, method: str, recipe: Recipe | None, *, seed: int
) -> tuple[Recipe, str]:
    """The recipe for a head method's name, and why; "auto" chooses by the amount of data.

    Raises: RecipeError for an unknown name.
    """
    if method not in (*METHODS, *MEASURED_NAMES, AUTO):
        known = ", ".join(METHOD_NAMES)
        raise RecipeError(f"method must be one of {known}, got {method!r}", param="method")
    if recipe is not None:
        if recipe.chosen_on is not None and recipe.chosen_on == data.val.digest:
            return recipe, _SEEN
        return recipe, "as the recipe says"
    base = HEAD_RECIPE.replace(seed=seed)
    if (board := head_leaderboard(data, method, seed=seed)) is not None:
        return base.replace(method=board.winner.method), board.why
    return base.replace(method=METHODS[method]), "as asked for"


def head_leaderboard(data: Dataset, method: str, *, seed: int) -> Leaderboard | None:
    """The candidates that a head method's name stands for, measured; None where it has settings of
    its own.
    """
    if method == AUTO:
        return leaderboard(data, seed=seed)
    return leaderboard(data, seed=seed, only=(method,)) if method in MEASURED_NAMES else None


def default_val(method: str) -> float | None:
    """What is held out where nobody says: weight methods have no folds, they need a split."""
    return 0.2 if method in TOWER_METHODS else None


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
    """Train, measure, write the report, and publish a new version of an adapter (not live yet).

    See the top of this module for methods, callbacks and resuming.

    budget: for the checklist before it; None leaves the checklist out; heads only. recipe: instead
    of the method's own (then `method` is "head", or the weight method that it is for).

    Raises: RecipeError for an unknown method, or a recipe that doesn't fit it; DataError;
        CheckpointError where run_dir holds another training.
    """
    with joined() as group:
        if budget is not None and (group.size > 1 or method in TOWER_METHODS):
            raise RecipeError(
                "the checklist is for heads, in one process; leave the budget out", param="budget"
            )
        why = ""
        board: Leaderboard | None = None
        if method == AUTO and recipe is None and budget is None:
            method, why = choose_method(data, accelerator=torch.cuda.is_available())
        preprocess = preprocess_digest(encoder)
        checked: ChecklistReport | None = None
        tuned: Tuned | None = None
        metrics: Mapping[str, Any] = {}
        if method in TOWER_METHODS:
            tuned = tune_tower(
                encoder.model_id,
                data,
                method=method,
                recipe=recipe,
                seed=seed,
                callbacks=callbacks,
                run_dir=run_dir,
            )
            run, why = tuned.run, "; ".join(filter(None, [why, tuned.settings.why]))
        else:
            board = None if recipe is not None else head_leaderboard(data, method, seed=seed)
            if board is not None:
                chosen = HEAD_RECIPE.replace(seed=seed, method=board.winner.method)
                why, method = board.why, board.winner.name
            else:
                chosen, why = head_recipe(data, method, recipe, seed=seed)
                if recipe is None:
                    chosen, strength = choose_strength(data, chosen)
                    why = "; ".join(filter(None, [why, strength]))
            if budget is not None:
                checked = checklist(chosen, data, budget=budget, on_step=on_step)
            run = fit(chosen, data, callbacks=callbacks, run_dir=run_dir)
            if board is None:
                method = _name_of(chosen.method, method)
        version = 0
        if group.first:
            metrics = measure(run, data, board) if tuned is None else measure_tower(tuned)
            write_report(
                report, run=run, checklist=checked, title=f"Adapter {name}", metrics=metrics
            )

            def write(folder: Path) -> None:
                if tuned is None:
                    export(
                        folder,
                        run,
                        data,
                        base_model=encoder.model_id,
                        preprocess=preprocess,
                        why=f"{method}: {why}",
                        report=report,
                        metrics=metrics,
                    )
                else:
                    export_tower(
                        folder,
                        tuned,
                        data,
                        base_model=encoder.model_id,
                        preprocess=preprocess,
                        why=f"{method}: {why}",
                        report=report,
                        metrics=metrics,
                    )
                if run_dir is not None:
                    (run_dir / _MARK).write_text(sha256_of(folder / MANIFEST), encoding="ascii")

            published = None if run_dir is None else _published(store, name, run_dir)
            version = store.publish(name, write) if published is None else published
            store.load(name, version, fingerprint=encoder.fingerprint)  # it verifies itself
            if run_dir is not None:
                shutil.rmtree(run_dir / TRIALS, ignore_errors=True)
        version = group.same(version)
        changes = HEAD if tuned is None else WEIGHTS
        return Finetuned(run, method, why, changes, metrics, version, report, checked)


def _published(store: AdapterStore, name: str, run_dir: Path) -> int | None:
    """The version that this very run has published, if it was killed only after that.

    Its manifest's digest was noted before the version got its name: so there is a version with that
    digest, or none was published.
    """
    mark = run_dir / _MARK
    if not mark.exists() or name not in store.names():
        return None
    digest = mark.read_text(encoding="ascii")
    found = [
        v for v in store.versions(name) if sha256_of(store.folder(name, v) / MANIFEST) == digest
    ]
    return found[0] if found else None


def preprocess_digest(encoder: Encoder) -> str:
    """SHA-256 of what an encoder's preprocessing makes of a fixed picture."""
    (picture,) = synthetic_images(1, seed=1)
    return hashlib.sha256(encoder.preprocess(picture).tobytes()).hexdigest()


def _name_of(method: Method, asked: str) -> str:
    """The name of a head method, whatever its settings; else what was asked for."""
    same = [name for name, known in METHODS.items() if known == method]
    kind = [name for name, known in METHODS.items() if type(known) is type(method)]
    return (*same, *kind, asked)[0]


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
