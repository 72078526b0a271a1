"""Fixtures that several rooms share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models import Encoder, load_encoder

TINY_CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 64,
        "heads": 2,
        "layers": 2,
    },
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first: `make test` runs files on two processes, and a long file at
    the end would leave one of them without work.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP with seeded random weights in open_clip's local-dir format."""
    import torch
    from safetensors.torch import save_file

    from models.openclip import declare_missing_operators

    declare_missing_operators()
    import open_clip
    from open_clip.model import CLIP

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny-clip")
    model = CLIP(**TINY_CONFIG)  # type: ignore[arg-type]
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    config = {"model_cfg": TINY_CONFIG, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The embedded model, as users get it by default."""
    return load_encoder("everyday")
