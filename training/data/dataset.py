"""Labelled samples in memory: what every method trains on.

Two kinds: `features` (an encoder's unit vectors, several views a training image) and `images`
(pixels in [0, 1], before any preprocessing).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from training.errors import DataError


@dataclass(frozen=True, eq=False)
class Samples:
    """One side of a split.

    inputs: float32 [N, V, D] (features, V views), or [N, 3, H, W] (images), or [N, D] (plain
    vectors) labels: int64 [N]
    groups: int64 [N]; duplicates and near-duplicates share a number. None: each on its own
    names: where each came from, for messages; may be empty
    """

    inputs: Tensor
    labels: Tensor
    groups: Tensor | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise DataError(f"{len(self.inputs)} inputs, but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        """SHA-256 over inputs and labels, in order."""
        sha = hashlib.sha256()
        for tensor in (self.inputs, self.labels):
            sha.update(repr(tuple(tensor.shape)).encode())
            sha.update(tensor.contiguous().numpy().tobytes())
        return sha.hexdigest()

    def pick(self, rows: Tensor | Sequence[int]) -> Samples:
        """The samples of these rows, in this order."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        return Samples(
            self.inputs[index],
            self.labels[index],
            None if self.groups is None else self.groups[index],
            tuple(self.names[i] for i in index.tolist()) if self.names else (),
        )

    def first_views(self) -> Tensor:
        """Inputs without augmentation: [N, D] of features, or the images themselves."""
        return self.inputs[:, 0] if self.inputs.ndim == 3 else self.inputs

    def all_views(self) -> tuple[Tensor, Tensor]:
        """Features of all views as rows [N * V, D], and their labels [N * V]."""
        if self.inputs.ndim != 3:
            return self.inputs, self.labels
        return self.inputs.flatten(0, 1), self.labels.repeat_interleave(self.inputs.shape[1])


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """The classes as the encoder's text tower sees them: what a head starts from.

    text: float32 [C, D], a unit vector for each class
    logit_scale, logit_bias: the model's own; a bias makes it a sigmoid model
    fingerprint: the encoder's
    prompts: the texts behind each class's vector
    """

    text: Tensor
    logit_scale: float
    logit_bias: float | None = None
    fingerprint: str = ""
    prompts: tuple[tuple[str, ...], ...] = ()

    def logits(self, features: Tensor) -> Tensor:
        """[N, D] -> [N, C]: scale times cosine, plus the bias of a sigmoid model."""
        logits = self.logit_scale * (features @ self.text.T)
        return logits if self.logit_bias is None else logits + self.logit_bias

    def among(self, others: Tensor | None) -> ZeroShot:
        """The classes followed by other categories [M, D], whose prompts aren't known."""
        if others is None:
            return self
        return replace(self, text=torch.cat([self.text, others]), prompts=())


@dataclass(frozen=True, eq=False)
class Retention:
    """Images of categories that aren't trained on, to measure what tuning forgets.

    samples: inputs as in the Dataset it belongs to; classes, zero_shot: of these categories alone
    """

    samples: Samples
    classes: tuple[str, ...]
    zero_shot: ZeroShot

    def halves(self) -> tuple[Retention, Retention]:
        """Every second image: one half to choose strengths with, one to measure with."""
        rows = torch.arange(len(self.samples))
        return (
            replace(self, samples=self.samples.pick(rows[0::2])),
            replace(self, samples=self.samples.pick(rows[1::2])),
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and validation, with class names.

    zero_shot: where an encoder is behind it; retention: where there are images of other categories
    others: float32 [M, D], unit text vectors of other categories, without images, among which the
        classes have to be found: what answers ranks them all together
    """

    train: Samples
    val: Samples
    classes: tuple[str, ...]
    zero_shot: ZeroShot | None = None
    retention: Retention | None = None
    others: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise DataError("there must be at least 2 classes to tell apart")
        for side in (self.train, self.val):
            if len(side) and not 0 <= int(side.labels.min()) <= int(side.labels.max()) < len(
                self.classes
            ):
                raise DataError(f"labels must lie in 0..{len(self.classes) - 1}")
        counts = self.counts
        if empty := [name for name, count in zip(self.classes, counts, strict=True) if not count]:
            raise DataError(f"no training image for: {', '.join(empty)}")
        if self.zero_shot is not None and len(self.zero_shot.text) != len(self.classes):
            raise DataError("one text vector is needed for each class")
        if self.retention is not None:
            known = {name.casefold() for name in self.classes}
            if both := [n for n in self.retention.classes if n.casefold() in known]:
                raise DataError(f"trained on, so nothing to retain: {', '.join(both)}")

    @property
    def counts(self) -> list[int]:
        """Training samples of each class."""
        return torch.bincount(self.train.labels, minlength=len(self.classes)).tolist()

    @property
    def shots(self) -> int:
        """Training samples of the smallest class."""
        return min(self.counts)

    @property
    def distinct_counts(self) -> list[int]:
        """Different training images of each class: near-duplicates count once."""
        groups = self.train.groups
        if groups is None:
            return self.counts
        return [
            len(groups[self.train.labels == number].unique()) for number in range(len(self.classes))
        ]

    @property
    def distinct_shots(self) -> int:
        """Different training images of the class that has fewest: what can be held out of."""
        return min(self.distinct_counts)

    @property
    def has_images(self) -> bool:
        """Whether the inputs are images rather than vectors."""
        return self.train.inputs.ndim == 4

    @property
    def digest(self) -> str:
        """SHA-256 over all of it but the retention set: what a checkpoint belongs to."""
        sha = hashlib.sha256("\0".join(self.classes).encode())
        tensors = [self.train.inputs, self.train.labels, self.val.inputs, self.val.labels]
        if self.zero_shot is not None:
            tensors.append(self.zero_shot.text)
            sha.update(repr((self.zero_shot.logit_scale, self.zero_shot.logit_bias)).encode())
        if self.others is not None:
            tensors.append(self.others)
        for tensor in tensors:
            sha.update(repr(tuple(tensor.shape)).encode())
            sha.update(tensor.contiguous().numpy().tobytes())
        return sha.hexdigest()

    def only_train(self, rows: Tensor | Sequence[int]) -> Dataset:
        """The same with fewer training samples; validation stays."""
        return replace(self, train=self.train.pick(rows))

    def fold(self, train_rows: Sequence[int], val_rows: Sequence[int]) -> Dataset:
        """A split of the training side alone: for cross-validation within the support set."""
        held_out = self.train.pick(val_rows)
        return replace(
            self,
            train=self.train.pick(train_rows),
            val=replace(held_out, inputs=held_out.first_views()[:, None])
            if self.train.inputs.ndim == 3
            else held_out,
        )

    def among(self, chosen: Sequence[int]) -> Dataset:
        """The same with these classes alone, numbered anew in the order given."""
        number = torch.full((len(self.classes),), -1)
        number[list(chosen)] = torch.arange(len(chosen))

        def side(samples: Samples) -> Samples:
            kept = samples.pick(torch.nonzero(number[samples.labels] >= 0)[:, 0])
            return replace(kept, labels=number[kept.labels])

        zero_shot = self.zero_shot
        if zero_shot is not None:
            prompts = zero_shot.prompts and tuple(zero_shot.prompts[i] for i in chosen)
            zero_shot = replace(zero_shot, text=zero_shot.text[list(chosen)], prompts=prompts)
        return replace(
            self,
            train=side(self.train),
            val=side(self.val),
            classes=tuple(self.classes[i] for i in chosen),
            zero_shot=zero_shot,
        )


def save_dataset(path: Path, data: Dataset) -> None:
    """Write a Dataset as one safetensors file, to hand it to another process."""
    tensors: dict[str, Tensor] = {}
    about: dict[str, Any] = {"classes": data.classes}
    _pack_samples("train", data.train, tensors, about)
    _pack_samples("val", data.val, tensors, about)
    _pack_words("zero_shot", data.zero_shot, tensors, about)
    if data.retention is not None:
        about["retention"] = data.retention.classes
        _pack_samples("retained", data.retention.samples, tensors, about)
        _pack_words("retained_words", data.retention.zero_shot, tensors, about)
    if data.others is not None:
        tensors["others"] = data.others.contiguous()
    # safetensors refuses tensors that share their memory
    whole = {name: tensor.clone() for name, tensor in tensors.items()}
    save_file(whole, path, metadata={"about": json.dumps(about)})


def load_dataset(path: Path) -> Dataset:
    """What `save_dataset` wrote."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()["about"])

    retention = None
    if "retention" in about:
        words = _unpack_words("retained_words", tensors, about)
        assert words is not None
        kept = _unpack_samples("retained", tensors, about)
        retention = Retention(kept, tuple(about["retention"]), words)
    return Dataset(
        train=_unpack_samples("train", tensors, about),
        val=_unpack_samples("val", tensors, about),
        classes=tuple(about["classes"]),
        zero_shot=_unpack_words("zero_shot", tensors, about),
        retention=retention,
        others=tensors.get("others"),
    )


def _pack_samples(
    name: str, samples: Samples, tensors: dict[str, Tensor], about: dict[str, Any]
) -> None:
    tensors[f"{name}/inputs"] = samples.inputs.contiguous()
    tensors[f"{name}/labels"] = samples.labels.contiguous()
    if samples.groups is not None:
        tensors[f"{name}/groups"] = samples.groups.contiguous()
    about[f"{name}/names"] = samples.names


def _unpack_samples(name: str, tensors: dict[str, Tensor], about: dict[str, Any]) -> Samples:
    return Samples(
        tensors[f"{name}/inputs"],
        tensors[f"{name}/labels"],
        tensors.get(f"{name}/groups"),
        tuple(about[f"{name}/names"]),
    )


def _pack_words(
    name: str, words: ZeroShot | None, tensors: dict[str, Tensor], about: dict[str, Any]
) -> None:
    if words is None:
        return
    tensors[f"{name}/text"] = words.text.contiguous()
    about[name] = {
        "logit_scale": words.logit_scale,
        "logit_bias": words.logit_bias,
        "fingerprint": words.fingerprint,
        "prompts": words.prompts,
    }


def _unpack_words(name: str, tensors: dict[str, Tensor], about: dict[str, Any]) -> ZeroShot | None:
    if name not in about:
        return None
    prompts = tuple(tuple(texts) for texts in about[name]["prompts"])
    return ZeroShot(**{**about[name], "text": tensors[f"{name}/text"], "prompts": prompts})
