"""What training code gets: modules to build, load and save in open_clip's local format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models.openclip import load_weights
from models.towers import (
    _in_fp32,
    build_clip,
    build_tokenizer,
    default_merges,
    load_clip,
    save_clip,
)
from tests.models.conftest import CLIP, MODELS, pictures


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded_it_is_the_same(
    name: str, clip_dir: Callable[[str], Path], tmp_path: Path
) -> None:
    clip = load_clip(f"local-dir:{clip_dir(name)}")
    save_clip(
        tmp_path / "again",
        clip.module.state_dict(),
        model_cfg=clip.model_cfg,
        preprocess_cfg=clip.preprocess_cfg,
        half=False,
    )
    again = load_clip(f"local-dir:{tmp_path / 'again'}")
    assert again.preprocess == clip.preprocess
    state = again.module.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in clip.module.state_dict().items())


def test_half_stores_half_and_loads_whole(tmp_path: Path) -> None:
    module = build_clip(CLIP)
    save_clip(tmp_path, module.state_dict(), model_cfg=CLIP, preprocess_cfg={}, half=True)
    loaded = load_clip(f"local-dir:{tmp_path}").module.state_dict()
    assert all(value.dtype != torch.float16 for value in loaded.values())
    for name, value in module.state_dict().items():
        torch.testing.assert_close(loaded[name], value.half().float())
    size = (tmp_path / "open_clip_model.safetensors").stat().st_size
    assert size < 2.1 * sum(p.numel() for p in module.parameters()) + 10_000


def test_a_loaded_module_trains() -> None:
    clip = load_clip("everyday")
    assert all(parameter.requires_grad for parameter in clip.module.parameters())
    tokens = clip.tokenize(["a cat", "a dog"])
    assert tokens.dtype == torch.int64
    clip.module.encode_text(tokens, normalize=True).sum().backward()
    assert clip.module.token_embedding.weight.grad is not None


def test_building_fetches_nothing_and_leaves_its_config_alone() -> None:
    config = {**CLIP, "vision_cfg": {"timm_model_name": "test_vit", "timm_model_pretrained": True}}
    build_clip(config)
    assert config["vision_cfg"]["timm_model_pretrained"] is True


def test_the_default_merges_make_the_default_tokenizer(tmp_path: Path) -> None:
    import gzip

    lines = default_merges()
    assert len(lines) == 48895
    (tmp_path / "merges.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    own = build_tokenizer(
        {"text_cfg": {"tokenizer_kwargs": {"bpe_path": "merges.txt.gz"}}}, tmp_path
    )
    default = build_tokenizer({"text_cfg": {}}, None)
    texts = ["a photo of a cat", "Übergröße, 42!"]
    assert torch.equal(own(texts), default(texts))


def test_only_safetensors_are_opened(tmp_path: Path) -> None:
    from models import ModelBrokenError

    for name in ("model.bin", "model.pt", "model.pth", "model.npz"):
        (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
        with pytest.raises(ModelBrokenError, match="safetensors only"):
            load_weights(build_clip(CLIP), tmp_path / name)


def test_the_module_and_the_encoder_agree(clip_dir: Callable[[str], Path], cache_dir: Path) -> None:
    from models import load_encoder
    from models.image.preprocess import Preprocessor

    model_id = f"local-dir:{clip_dir('clip')}"
    clip = load_clip(model_id)
    preprocess = Preprocessor(clip.preprocess)
    pixels = torch.from_numpy(np.stack([preprocess(image) for image in pictures()]))
    with torch.inference_mode():
        ours = clip.module.encode_image(pixels, normalize=True).numpy()
    encoder = load_encoder(model_id, backend="torch", precision="fp32", cache_dir=cache_dir)
    np.testing.assert_allclose(encoder.encode_images(pictures()), ours, atol=1e-6)


def test_weights_of_a_text_tower_become_fp32_and_indices_stay_whole_numbers() -> None:
    assert _in_fp32(torch.ones(2, dtype=torch.float16)).dtype == torch.float32
    assert _in_fp32(torch.arange(2)).dtype == torch.int64
