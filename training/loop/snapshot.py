"""A session's whole state into a checkpoint, and back: what resuming to the bit takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.errors import CheckpointError
from training.history import History
from training.loop.checkpoint import (
    Checkpoint,
    pack_optimizer,
    pack_random,
    unpack_optimizer,
    unpack_random,
)
from training.randomness import capture, restore
from training.stopping import StoppingState

if TYPE_CHECKING:
    from training.loop.session import Session


def take(session: Session) -> Checkpoint:
    """Everything that a later step of the session depends on."""
    random_tensors, random_plain = pack_random(capture())
    optimizer_tensors, optimizer_plain = pack_optimizer(session.optimizer)
    tensors = {"order": session.order, **random_tensors, **optimizer_tensors}
    tensors |= {f"network/{k}": v for k, v in session.pipeline.state_dict().items()}
    if session.ema is not None:
        tensors |= {f"ema/{k}": v for k, v in session.ema.module.state_dict().items()}
    if session.best is not None:
        tensors |= {f"best/{k}": v for k, v in session.best.items()}
    schedule = session.scheduler.state_dict()
    del schedule["lr_lambdas"]  # functions; the recipe makes them anew
    state = {
        "recipe": session.recipe.digest,
        "data": session.data_digest,
        "epoch": session.epoch,
        "batch": session.batch,
        "step": session.step,
        "done": session.done,
        "stopping": vars(session.stopping),
        "gradients": session.gradients,
        "history": session.history.to_json(),
        "random": random_plain,
        "optimizer": optimizer_plain,
        "scheduler": schedule,
        "scaler": session.scaler.state_dict(),
    }
    return Checkpoint(tensors, state)


def put_back(session: Session, checkpoint: Checkpoint) -> None:
    """Make a freshly built session the one that `take` saw.

    Raises: CheckpointError where the checkpoint is of another recipe or other data.
    """
    state = checkpoint.state
    for name, mine in (("recipe", session.recipe.digest), ("data", session.data_digest)):
        if state[name] != mine:
            raise CheckpointError(
                f"the checkpoint in {session.folder} is of another {name}; give another run_dir, "
                'or resume="never" to start anew',
                param="run_dir",
            )
    session.pipeline.load_state_dict(checkpoint.group("network"))
    if session.ema is not None:
        session.ema.module.load_state_dict(checkpoint.group("ema"))
    session.best = checkpoint.group("best") or None
    unpack_optimizer(session.optimizer, checkpoint)
    # load_state_dict wants the key; None leaves our own formulas in place
    lambdas = [None] * len(session.optimizer.param_groups)
    session.scheduler.load_state_dict({**state["scheduler"], "lr_lambdas": lambdas})
    session.scaler.load_state_dict(state["scaler"])
    session.epoch, session.batch, session.step = state["epoch"], state["batch"], state["step"]
    session.done, session.order = state["done"], checkpoint.tensors["order"]
    session.stopping = StoppingState(**state["stopping"])
    session.gradients = state["gradients"]
    loaded = History.from_json(state["history"])
    vars(session.history).update(vars(loaded))  # in place: the hooks' view holds this object
    if not session.done:
        session.history.stopped = None  # a hook had stopped it; now it goes on
    restore(unpack_random(checkpoint))
