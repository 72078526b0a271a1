"""load_encoder against open_clip by itself, for every kind of model it builds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models import Encoder, ModelBrokenError, UnknownModelError, UserError, load_encoder
from models.openclip import import_open_clip
from models.towers import build_clip, save_clip
from tests.models.conftest import MODELS, dump, open_clip_vectors, pictures, write_clip

TEXTS = [
    "a photo of a cat.",
    "a photo of a catamaran in the harbour.",
    "",
    "a photo of a cat.",
    "Ein Bild von Bäumen & Büschen, 42!",
    "a",
    " ".join(["much too long for any tower to see whole"] * 20),
    "an origami dog",
]


def load_reference(folder: Path, cache_dir: Path) -> Encoder:
    return load_encoder(
        f"local-dir:{folder}", backend="torch", precision="fp32", cache_dir=cache_dir
    )


@pytest.mark.parametrize("name", MODELS)
def test_same_vectors_as_open_clip(
    name: str, clip_dir: Callable[[str], Path], cache_dir: Path
) -> None:
    folder = clip_dir(name)
    encoder = load_reference(folder, cache_dir)
    assert isinstance(encoder, Encoder)
    images, texts = open_clip_vectors(folder, pictures(), TEXTS)
    np.testing.assert_allclose(encoder.encode_images(pictures()), images, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts, atol=1e-5)
    assert encoder.dim == images.shape[1]
    assert encoder.encode_images([]).shape == (0, encoder.dim)
    assert encoder.encode_texts([]).shape == (0, encoder.dim)


def test_vit_b_32_has_open_clips_vectors(tmp_path: Path) -> None:
    """The acceptance test of part 1: a real architecture, saved with random weights."""
    import torch

    torch.manual_seed(0)
    model_cfg = import_open_clip().get_model_config("ViT-B-32")
    module = build_clip(model_cfg)
    folder = tmp_path / "ViT-B-32"
    save_clip(folder, module.state_dict(), model_cfg=model_cfg, preprocess_cfg={}, half=False)
    encoder = load_reference(folder, tmp_path / "cache")
    images, texts = open_clip_vectors(folder, pictures(2), TEXTS[:4])
    np.testing.assert_allclose(encoder.encode_images(pictures(2)), images, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS[:4]), texts, atol=1e-5)


def test_scale_and_bias_are_the_models_own(
    clip_dir: Callable[[str], Path], cache_dir: Path
) -> None:
    softmax = load_reference(clip_dir("clip"), cache_dir)
    assert softmax.logit_bias is None
    assert softmax.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    sigmoid = load_reference(clip_dir("siglip"), cache_dir)
    assert sigmoid.logit_bias == pytest.approx(-10)
    assert (sigmoid.context_length, softmax.context_length) == (64, 77)


def test_the_embedded_model(encoder: Encoder) -> None:
    assert encoder.model_id == "everyday"
    assert encoder.image_size == (192, 192)
    vectors = encoder.encode_texts(["cat", "dog"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert encoder.count_tokens(["cat", ""]) == [3, 2]


def test_preprocess_and_encode_pixels_are_encode_images(
    clip_dir: Callable[[str], Path], cache_dir: Path
) -> None:
    encoder = load_reference(clip_dir("clip"), cache_dir)
    pixels = np.stack([encoder.preprocess(image) for image in pictures()])
    assert pixels.shape == (5, 3, 32, 32)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(encoder.encode_pixels(pixels), encoder.encode_images(pictures()))
    many = pictures(6) * 25  # several blocks
    np.testing.assert_allclose(
        encoder.encode_images(many), np.tile(encoder.encode_images(pictures(6)), (25, 1)), atol=1e-5
    )
    np.testing.assert_allclose(
        encoder.encode_images(many[:1]), encoder.encode_images(many[:2])[:1], atol=1e-5
    )
    with pytest.raises(ValueError, match=r"\[N, 3, 32, 32\], not \[3, 32, 32\]"):
        encoder.encode_pixels(pixels[0])


def test_texts_longer_than_the_context_are_counted_whole_and_cut(
    clip_dir: Callable[[str], Path], cache_dir: Path
) -> None:
    encoder = load_reference(clip_dir("clip"), cache_dir)
    assert encoder.count_tokens(["a photo of a cat", TEXTS[6]])[0] == 7
    assert encoder.count_tokens([TEXTS[6]])[0] > 77
    cut = encoder.encode_texts([TEXTS[6], TEXTS[6] + " and more"])
    np.testing.assert_allclose(cut[0], cut[1], atol=1e-6)


def test_a_tokenizer_in_the_folder_is_used(
    clip_dir: Callable[[str], Path], tmp_path: Path, cache_dir: Path
) -> None:
    import gzip

    from models.towers import default_merges

    config = copy.deepcopy(MODELS["clip"])
    config["text_cfg"]["vocab_size"] = 512 + 100 + 2
    config["text_cfg"]["tokenizer_kwargs"] = {"bpe_path": "merges.txt.gz"}
    folder = tmp_path / "model"
    folder.mkdir()
    merges = "\n".join(default_merges()[:101])
    (folder / "merges.txt.gz").write_bytes(gzip.compress(merges.encode()))
    write_clip(folder, config, {})
    encoder = load_reference(folder, cache_dir)
    assert encoder.encode_texts(["a photograph"]).shape == (1, 32)
    whole = load_reference(clip_dir("clip"), cache_dir)
    assert encoder.count_tokens(["a photograph"])[0] > whole.count_tokens(["a photograph"])[0]


def test_fingerprints_tell_models_apart_and_copies_not(
    clip_dir: Callable[[str], Path], tmp_path: Path, cache_dir: Path
) -> None:
    import shutil

    folder = clip_dir("clip")
    one = load_reference(folder, cache_dir).fingerprint
    shutil.copytree(folder, tmp_path / "copy")
    assert load_reference(tmp_path / "copy", cache_dir).fingerprint == one
    assert load_reference(clip_dir("quick-gelu"), cache_dir).fingerprint != one
    again = tmp_path / "copy" / "open_clip_config.json"
    dump(again, {"model_cfg": MODELS["clip"], "preprocess_cfg": {"resize_mode": "squash"}})
    assert load_reference(tmp_path / "copy", cache_dir).fingerprint != one


class TestFolders:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownModelError, match="there is no folder"):
            load_encoder(f"local-dir:{tmp_path / 'nowhere'}", cache_dir=tmp_path)

    def test_no_config(self, tmp_path: Path) -> None:
        with pytest.raises(ModelBrokenError, match=r"holds no open_clip_config\.json"):
            load_encoder(f"local-dir:{tmp_path}", cache_dir=tmp_path)

    @pytest.mark.parametrize(
        "text", ["{", "[]", "{}", '{"model_cfg": 3}', '{"model_cfg": {"vision_cfg": {}}}']
    )
    def test_a_config_that_is_none(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "open_clip_config.json").write_text(text)
        (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
        with pytest.raises(ModelBrokenError, match=str(tmp_path)):
            load_encoder(f"local-dir:{tmp_path}", cache_dir=tmp_path)

    def test_pickled_weights_are_named_and_not_opened(self, tmp_path: Path) -> None:
        dump(tmp_path / "open_clip_config.json", {"model_cfg": MODELS["clip"]})
        (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
        with pytest.raises(ModelBrokenError, match=r"open_clip_pytorch_model\.bin may run code"):
            load_encoder(f"local-dir:{tmp_path}", cache_dir=tmp_path)

    @pytest.mark.parametrize("damage", ["empty", "truncated", "not safetensors"])
    def test_damaged_weights(
        self, tmp_path: Path, clip_dir: Callable[[str], Path], damage: str
    ) -> None:
        sound = (clip_dir("clip") / "open_clip_model.safetensors").read_bytes()
        data = {"empty": b"", "truncated": sound[:-9], "not safetensors": b"PK\3\4" * 99}[damage]
        dump(tmp_path / "open_clip_config.json", {"model_cfg": MODELS["clip"]})
        (tmp_path / "open_clip_model.safetensors").write_bytes(data)
        with pytest.raises(ModelBrokenError, match="damaged"):
            load_encoder(f"local-dir:{tmp_path}", backend="torch", cache_dir=tmp_path)

    def test_weights_of_another_architecture(
        self, tmp_path: Path, clip_dir: Callable[[str], Path]
    ) -> None:
        sound = (clip_dir("clip") / "open_clip_model.safetensors").read_bytes()
        dump(tmp_path / "open_clip_config.json", {"model_cfg": MODELS["siglip"]})
        (tmp_path / "open_clip_model.safetensors").write_bytes(sound)
        with pytest.raises(ModelBrokenError, match="not those of the model"):
            load_encoder(f"local-dir:{tmp_path}", cache_dir=tmp_path)

    def test_a_config_that_open_clip_cannot_build(self, tmp_path: Path) -> None:
        config = {**MODELS["clip"], "vision_cfg": {"hue": 3}}
        dump(tmp_path / "open_clip_config.json", {"model_cfg": config})
        (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
        with pytest.raises(ModelBrokenError, match="cannot build"):
            load_encoder(f"local-dir:{tmp_path}", cache_dir=tmp_path)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "param"),
        [
            ({"backend": "onnx"}, "backend"),
            ({"precision": "fp8"}, "precision"),
            ({"device": "tpu"}, "device"),
            ({"precision": "fp16", "device": "cpu"}, "precision"),
            ({"precision": "int8", "backend": "torch"}, "backend"),
            ({"device": "cuda", "backend": "openvino"}, "backend"),
            ({"device": "cuda", "precision": "int8"}, "precision"),
        ],
    )
    def test_what_makes_no_sense_is_the_users_mistake(
        self, options: dict[str, str], param: str
    ) -> None:
        with pytest.raises(UserError) as caught:
            load_encoder("everyday", **options)
        assert caught.value.param == param
