"""The training loop. What it does in one step, in order:

    batch -> augment -> logits -> loss (weighted) + penalty + the network's own penalty -> backward
    -> [after_backward] -> clip -> optimiser -> schedule -> running average -> history
    -> checkpoint, if due -> [on_step_end]

and at the end of an epoch: evaluation without regularisers, health of the layers, early stopping,
[on_epoch_end], checkpoint. Everything that a later step depends on is in the checkpoint, so a
resumed run equals an uninterrupted one to the bit (on the same machine, on CPU).

Of several processes (`training.loop.distributed`) each takes a share of every batch; the first
one alone
calls hooks and writes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.dataset import Dataset
from training.data.folder import balanced_order, class_weights
from training.diagnosis import diagnose
from training.errors import CheckpointError, TrainingError, with_torchvision
from training.history import History
from training.loop.checkpoint import (
    Checkpoint,
    pack_optimizer,
    pack_random,
    save_checkpoint,
    unpack_optimizer,
    unpack_random,
)
from training.loop.distributed import Group, current_group
from training.loop.facts import (
    SAMPLE,
    Health,
    activation_health,
    gradient_facts,
    gradient_health,
    loss_and_accuracy,
    spread_rows,
    starting_facts,
)
from training.loop.hooks import Callback, Hooks, RunView
from training.loop.pipeline import Pipeline
from training.loop.run import Run
from training.losses import soft_targets
from training.randomness import capture, preserved, restore
from training.recipe import Recipe
from training.stopping import StoppingState
from training.transfer import settle_frozen


def draw_batch(
    recipe: Recipe, data: Dataset, rows: Tensor, *, device: str
) -> tuple[Tensor, Tensor]:
    """Rows of the training split -> inputs [B, ...] and targets ([B], or soft [B, C]).

    Draws from the global generators: one view of each sample by chance, then the augmentations.
    """
    inputs, targets = data.train.inputs[rows], data.train.labels[rows]
    if inputs.ndim == 3:  # features: one view of each, by chance
        views = inputs.shape[1]
        chosen = torch.randint(views, (len(rows),)) if views > 1 else torch.zeros(len(rows)).long()
        inputs = inputs[torch.arange(len(rows)), chosen]
    if recipe.augment:
        targets = soft_targets(targets, len(data.classes))
        for augment in recipe.augment:
            inputs, targets = augment.apply(inputs, targets)
    return inputs.to(device), targets.to(device)


def draw_order(recipe: Recipe, data: Dataset, epoch: int) -> Tensor:
    """Rows of the training split, int64 [N], for one epoch (from 0).

    Drawn from the seed and the epoch alone: it doesn't hang on what else draws random numbers.
    """
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    if recipe.balance == "sampler":
        return balanced_order(data.train.labels, len(data.classes), generator)
    return torch.randperm(len(data.train), generator=generator)


def batch_spans(count: int, size: int) -> list[tuple[int, int]]:
    """(start, end) of each batch of an epoch. A last batch of one sample is left out: BatchNorm
    can't take it; the order changes each epoch, so every sample has its turn.
    """
    spans = [(start, min(start + size, count)) for start in range(0, count, size)]
    if len(spans) > 1 and spans[-1][1] - spans[-1][0] == 1:
        spans.pop()
    return spans


class Objective:
    """Of one process: summed over the group it is the objective of the whole batch.

    Logits beyond the classes' are those of other categories, which are never right. What they take
    is

        log(1 + exp(logsumexp(others) - logsumexp(classes)))

    which added to the cross-entropy over the classes makes the one over both.

    balance "weights": sum_i w_i * loss_i / sum_i w_i over the batch, w the weights of the classes.
    """

    def __init__(self, recipe: Recipe, data: Dataset, group: Group) -> None:
        self._recipe, self._group = recipe, group
        self._classes = len(data.classes)
        self._weights = (
            class_weights(data.train.labels, len(data.classes))
            if recipe.balance == "weights"
            else None
        )

    def __call__(
        self, pipeline: Pipeline, logits: Tensor, targets: Tensor, own: slice, weight: float
    ) -> Tensor:
        """The objective of the rows `own`.

        logits: [B, C], or [B, C + M] with other categories; targets: of the whole batch; weight:
        the rows' part of it
        """
        recipe, size = self._recipe, self._group.size
        logits, others = logits[:, : self._classes], logits[:, self._classes :]
        each = recipe.loss.per_sample(logits, targets[own])
        if others.shape[1]:
            each = each + F.softplus(others.logsumexp(dim=1) - logits.logsumexp(dim=1))
        if self._weights is None:
            loss = each.mean() * weight
        else:
            heavy = soft_targets(targets, logits.shape[1]) @ self._weights.to(each.device)
            # weight 0 is a stand-in row, of a process that has none
            loss = (heavy[own] * each).sum() / heavy.sum() * math.ceil(weight)
        if recipe.penalty is not None:
            loss = loss + recipe.penalty(pipeline.network) / size
        extra = pipeline.own_penalty()
        return loss if extra is None else loss + extra / size


_EVALUATED = 2000  # training samples looked at after each epoch
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Session:
    """One call of `fit`: all that changes while it runs."""

    def __init__(
        self,
        recipe: Recipe,
        data: Dataset,
        pipeline: Pipeline,
        callbacks: Sequence[Callback],
        folder: Path | None,
        checkpoint_every: int | None,
        device: str,
    ) -> None:
        self.recipe, self.data, self.pipeline, self.device = recipe, data, pipeline, device
        self.folder, self.checkpoint_every = folder, checkpoint_every
        self.group = current_group()
        self.spans = batch_spans(len(data.train), recipe.batch_size)
        self.history = History()
        total = recipe.epochs * len(self.spans)
        self.view = RunView(recipe, data, pipeline, recipe.epochs, total, self.history)
        self.hooks = Hooks(callbacks if self.group.first else (), self.view)
        self.epoch = self.batch = self.step = 0  # batch: of the epoch, from 0
        self.order = torch.zeros(0, dtype=torch.int64)
        self.stopping = StoppingState()
        self.best: dict[str, Tensor] | None = None
        self.gradients: Health = {}
        self.data_digest = data.digest if folder is not None else ""
        self._objective = Objective(recipe, data, self.group)
        self.done, self.watched = False, True

    # The run

    def closed_form(self) -> Run:
        """A method that is done when it is built: one row of metrics, no steps."""
        self.history.facts = self._facts()
        self.hooks.call("on_fit_start")
        self.history.epochs.append({**self._metrics(self.pipeline), "lr": 0.0})
        self.hooks.call("on_epoch_end")
        return self._finish(resumed_at=None)

    def train(self, checkpoint: Checkpoint | None) -> Run:
        """All epochs, or those that a checkpoint has left."""
        recipe, pipeline = self.recipe, self.pipeline
        shares = (
            recipe.transfer.lr_shares(pipeline.network) if recipe.transfer is not None else None
        )
        self.optimizer = recipe.optimizer.build(pipeline.network, lr_shares=shares)
        self.scheduler = recipe.schedule.scheduler(
            self.optimizer, epochs=recipe.epochs, steps_per_epoch=len(self.spans)
        )
        self.scaler = torch.amp.GradScaler(self.device, enabled=recipe.precision == "fp16")
        self.ema = (
            None
            if recipe.ema is None
            else with_torchvision("timm.utils").ModelEmaV3(
                pipeline, decay=recipe.ema, use_warmup=True
            )
        )
        resumed_at = None
        if checkpoint is not None:
            self._resume(checkpoint)
            resumed_at = self.step
        else:
            with preserved():
                self.history.facts = self._facts()
        self._update_view()
        self.hooks.call("on_fit_start")
        self._agree()
        while not self.done and self.view.stop_reason is None:
            self._epoch()
        return self._finish(resumed_at=resumed_at)

    def _epoch(self) -> None:
        if self.batch == 0:
            self.order = draw_order(self.recipe, self.data, self.epoch)
            self.hooks.call("on_epoch_start")
        self.pipeline.train()
        settle_frozen(self.pipeline)
        self.group.check(self.pipeline)
        while self.batch < len(self.spans):
            start, end = self.spans[self.batch]
            self._step(self.order[start:end])
            if self.done or self.view.stop_reason is not None:
                return
        row = {**self._metrics(self.kept), "lr": self.history.lr[-1]}
        self.history.epochs.append(row)
        self.history.epoch_ends.append(self.step)
        if self.watched:
            self.history.health.append(self._health())
        if self.recipe.stop is not None:
            rule = self.recipe.stop
            self.stopping = self.stopping.after(rule, row[rule.monitor], self.epoch)
            if rule.restore_best and self.stopping.best_epoch == self.epoch:
                self.best = {k: v.detach().clone() for k, v in self.kept.state_dict().items()}
            if self.stopping.stop is not None:
                self.history.stopped, self.done = self.stopping.stop, True
        self.hooks.call("on_epoch_end")
        self._agree()
        self.epoch, self.batch = self.epoch + 1, 0
        self.done = self.done or self.epoch >= self.recipe.epochs
        self._save()
        self._update_view()

    def _step(self, rows: Tensor) -> None:
        recipe, network = self.recipe, self.pipeline
        inputs, targets = draw_batch(recipe, self.data, rows, device=self.device)
        device_type = torch.device(self.device).type
        kind = _TYPES[recipe.precision]
        own, weight = self.group.share(len(inputs))
        with (
            self.group.own_chance(recipe.seed, self.step),
            torch.autocast(device_type, dtype=kind, enabled=recipe.precision != "fp32"),
        ):
            logits = network(inputs[own])
        loss = self._objective(self.pipeline, logits.float(), targets, own, weight)
        if not loss.requires_grad:
            raise TrainingError(
                "the loss doesn't depend on any trainable weight (DETACHED_GRAPH): look for "
                "detach(), "
                "no_grad() or .data between the head and the loss"
            )
        value = self.group.total(float(loss.detach()))
        rate = max(float(rate) for rate in self.scheduler.get_last_lr())
        if not math.isfinite(value):
            self.history.loss.append(value)
            self.history.lr.append(rate)
            self.history.gradient.append(math.nan)
            self.history.stopped = f"the loss became {value} at step {self.step + 1}"
            self.done = True
            return
        self.scaler.scale(loss).backward()
        self.group.sum_gradients(list(network.parameters()))
        self.scaler.unscale_(self.optimizer)
        if self.step == 0 and self.watched:
            self.history.facts["without_gradient"] = gradient_facts(network)
        self.hooks.call("after_backward")
        if self.batch == len(self.spans) - 1:
            self.gradients = gradient_health(network)
        learning = [p for p in network.parameters() if p.grad is not None]
        limit = math.inf if recipe.clip is None else recipe.clip
        norm = float(nn.utils.clip_grad_norm_(learning, limit))
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler.get_scale() >= scale:  # else half precision overflowed: no step was taken
            self.scheduler.step()
        self.step, self.batch = self.step + 1, self.batch + 1
        if self.ema is not None:
            self.ema.update(network, step=self.step)
        self.history.loss.append(value)
        self.history.lr.append(rate)
        self.history.gradient.append(norm)
        if self.checkpoint_every is not None and self.step % self.checkpoint_every == 0:
            self._save()
        self._update_view()
        self.hooks.call("on_step_end")
        self._agree()

    # Parts of an epoch's end

    @property
    def kept(self) -> nn.Module:
        """The weights that are evaluated and kept: the running average, if there is one."""
        return self.pipeline if self.ema is None else self.ema.module

    def _facts(self) -> dict[str, Any]:
        if not self.watched:
            return {}
        return starting_facts(self.recipe, self.data, self.pipeline, device=self.device)

    def _metrics(self, network: nn.Module) -> dict[str, float]:
        if not self.watched:
            return {}
        train = self.data.train.pick(spread_rows(len(self.data.train), _EVALUATED))
        sides = {"train": train, "val": self.data.val}
        row: dict[str, float] = {}
        for name, side in sides.items():
            if len(side):
                loss, accuracy = loss_and_accuracy(
                    network, side, self.recipe.loss, device=self.device
                )
                row |= {f"{name}/loss": loss, f"{name}/accuracy": accuracy}
        return row

    def _health(self) -> Health:
        rows = spread_rows(len(self.data.train), SAMPLE)
        inputs = self.data.train.pick(rows).first_views().to(self.device)
        table = {name: dict(measures) for name, measures in self.gradients.items()}
        for name, measures in activation_health(self.pipeline, inputs).items():
            table.setdefault(name, {}).update(measures)
        return table

    def _agree(self) -> None:
        """Let all processes know that a hook of the first one has stopped the run."""
        self.view.stop_reason = self.group.same(self.view.stop_reason)

    def _update_view(self) -> None:
        self.view.epoch, self.view.step = self.epoch, self.step

    def _finish(self, *, resumed_at: int | None) -> Run:
        if self.view.stop_reason is not None and self.history.stopped is None:
            self.history.stopped = self.view.stop_reason
            if self.recipe.method.trained:
                self._save()
        network = self.pipeline
        if self.recipe.method.trained:
            network.load_state_dict(self.kept.state_dict())
            if self.best is not None:
                network.load_state_dict(self.best)
        self.hooks.call("on_fit_end")
        if self.recipe.transfer is not None:
            network.network = self.recipe.transfer.finish(network.network)
        network.requires_grad_(False).eval()
        if self.folder is not None and self.group.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "history.json").write_text(self.history.to_json(), encoding="utf-8")
        best_epoch = self.stopping.best_epoch if self.best is not None else None
        return Run(
            recipe=self.recipe,
            network=network,
            history=self.history,
            diagnosis=diagnose(self.history),
            metrics=self._metrics(network),
            classes=self.data.classes,
            best_epoch=len(self.history.epochs) - 1 if best_epoch is None else best_epoch,
            resumed_at=resumed_at,
        )

    def _save(self) -> None:
        if self.folder is None or not self.group.first:
            return
        save_checkpoint(self.folder, self._checkpoint())
        self._update_view()
        self.hooks.call("on_checkpoint")

    def _checkpoint(self) -> Checkpoint:
        """Everything that a later step depends on."""
        random_tensors, random_plain = pack_random(capture())
        optimizer_tensors, optimizer_plain = pack_optimizer(self.optimizer)
        tensors = {"order": self.order, **random_tensors, **optimizer_tensors}
        tensors |= {f"network/{k}": v for k, v in self.pipeline.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema/{k}": v for k, v in self.ema.module.state_dict().items()}
        if self.best is not None:
            tensors |= {f"best/{k}": v for k, v in self.best.items()}
        schedule = self.scheduler.state_dict()
        del schedule["lr_lambdas"]  # functions; the recipe makes them anew
        state = {
            "recipe": self.recipe.digest,
            "data": self.data_digest,
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "done": self.done,
            "stopping": vars(self.stopping),
            "gradients": self.gradients,
            "history": self.history.to_json(),
            "random": random_plain,
            "optimizer": optimizer_plain,
            "scheduler": schedule,
            "scaler": self.scaler.state_dict(),
        }
        return Checkpoint(tensors, state)

    def _resume(self, checkpoint: Checkpoint) -> None:
        """Go on where the session that made the checkpoint was.

        Raises: CheckpointError where the checkpoint is of another recipe or other data.
        """
        state = checkpoint.state
        for name, mine in (("recipe", self.recipe.digest), ("data", self.data_digest)):
            if state[name] != mine:
                raise CheckpointError(
                    f"the checkpoint in {self.folder} is of another {name}; give another run_dir, "
                    'or resume="never" to start anew',
                    param="run_dir",
                )
        self.pipeline.load_state_dict(checkpoint.group("network"))
        if self.ema is not None:
            self.ema.module.load_state_dict(checkpoint.group("ema"))
        self.best = checkpoint.group("best") or None
        unpack_optimizer(self.optimizer, checkpoint)
        # load_state_dict wants the key; None leaves our own formulas in place
        lambdas = [None] * len(self.optimizer.param_groups)
        self.scheduler.load_state_dict({**state["scheduler"], "lr_lambdas": lambdas})
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.batch, self.step = state["epoch"], state["batch"], state["step"]
        self.done, self.order = state["done"], checkpoint.tensors["order"]
        self.stopping = StoppingState(**state["stopping"])
        self.gradients = state["gradients"]
        loaded = History.from_json(state["history"])
        vars(self.history).update(vars(loaded))  # in place: the hooks' view holds this object
        if not self.done:
            self.history.stopped = None  # a hook had stopped it; now it goes on
        restore(unpack_random(checkpoint))
