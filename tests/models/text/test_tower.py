"""The text tower's three ways: which config takes which, and that all lead to the same vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import models.text.tower
from models.openclip import import_open_clip
from models.sources.names import resolve
from models.text.paths import text_path
from models.text.tokens import build_tokenizer
from models.text.tower import TextTower, build_text
from models.towers import load_clip, load_module, load_text_module
from tests.models.conftest import MODELS, dump, open_clip_vectors, pictures, variant, write_clip

PATHS = {
    "clip": "tree",
    "quick-gelu": "tree",
    "custom-text": "tree",
    "eos-pooled": "tree",
    "no-projection": "tree",
    "normed-attention": "trimmed",
    "siglip": "plain",
    "mobileclip-s1": "plain",
    "coca": "plain",
}
LABELS = ["cat", "cathedral", "dog", "hot dog", "a very specific kind of red bicycle", "Übergröße"]
TEMPLATES = ["a photo of a {}.", "a photo of the {}.", "{}", "a bad photo of a {} in the rain."]
PROMPTS = [template.format(label) for label in LABELS for template in TEMPLATES]


def make_tower(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[TextTower, np.ndarray]:
    source = resolve(f"local-dir:{folder}")
    tower = TextTower(
        load_text_module(source), source.model_cfg, device=torch.device("cpu"), dtype=dtype
    )
    tokens = build_tokenizer(source.model_cfg, folder)(PROMPTS).numpy()
    return tower, tokens


def expected(folder: Path) -> np.ndarray:
    clip = load_clip(f"local-dir:{folder}")
    with torch.inference_mode():
        return clip.module.encode_text(clip.tokenize(PROMPTS), normalize=True).numpy()


@pytest.mark.parametrize(("name", "path"), PATHS.items())
def test_the_config_decides_the_path(name: str, path: str) -> None:
    assert text_path(MODELS[name]) == path


@pytest.mark.parametrize(
    "text",
    [
        {"hf_model_name": "roberta-base"},
        {"pool_type": "last"},
        {"pool_type": "first"},
        {"no_causal_mask": True},
        {"embed_cls": True},
    ],
)
def test_what_is_not_causal_or_pools_otherwise_is_plain(text: dict[str, object]) -> None:
    assert text_path(variant(text=text)) == "plain"


def test_open_clips_own_models() -> None:
    configs = import_open_clip()
    ways = {name: text_path(configs.get_model_config(name)) for name in configs.list_models()}
    assert ways["ViT-B-32"] == ways["ViT-H-14-378"] == ways["RN50"] == "tree"
    assert ways["ViT-B-16-SigLIP"] == ways["ViT-B-16-SigLIP2"] == "plain"
    assert ways["coca_ViT-B-32"] == ways["MobileCLIP-S1"] == "plain"
    assert ways["roberta-ViT-B-32"] == ways["mt5-base-ViT-B-32"] == "plain"


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("nodes", [7, 4096])
def test_same_vectors_as_open_clip(
    name: str, nodes: int, clip_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where texts are spread over many small chunks."""
    monkeypatch.setattr(models.text.tower, "_NODES_CPU", nodes)
    tower, tokens = make_tower(clip_dir(name))
    assert tower.path == PATHS[name]
    np.testing.assert_allclose(tower(tokens), expected(clip_dir(name)), atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "normed-attention", "siglip"])
def test_bf16_stays_within_its_bound(name: str, clip_dir: Callable[[str], Path]) -> None:
    tower, tokens = make_tower(clip_dir(name), torch.bfloat16)
    assert (tower(tokens) * expected(clip_dir(name))).sum(axis=1).min() > 0.999


def test_the_tree_computes_fewer_tokens(clip_dir: Callable[[str], Path]) -> None:
    tower, tokens = make_tower(clip_dir("clip"))
    computed = []
    tower._tower.transformer.resblocks[0].ln_1.register_forward_hook(
        lambda module, inputs, output: computed.append(len(output))
    )
    tower(tokens)
    distinct = {
        tuple(row[: n + 1]) for row in tokens.tolist() for n in range(int(np.argmax(row)) + 1)
    }
    assert sum(computed) == len(distinct) < (tokens > 0).sum() / 1.5


def test_repeated_texts_get_the_same_vector_in_their_own_place(
    clip_dir: Callable[[str], Path],
) -> None:
    for name in ("clip", "normed-attention", "siglip"):
        tower, tokens = make_tower(clip_dir(name))
        picked = [3, 0, 3, 5, 0]
        np.testing.assert_array_equal(tower(tokens[picked])[0], tower(tokens[picked])[2])
        np.testing.assert_allclose(tower(tokens[picked]), tower(tokens)[picked], atol=1e-5)


@pytest.mark.parametrize("name", PATHS)
def test_the_text_module_is_the_whole_ones(name: str, clip_dir: Callable[[str], Path]) -> None:
    source = resolve(f"local-dir:{clip_dir(name)}")
    module = load_text_module(source)
    ours = not type(module).__module__.startswith("open_clip")
    assert ours == (PATHS[name] == "tree")  # built without open_clip, but for rarer kinds
    whole, text = load_module(source).state_dict(), module.state_dict()
    assert not any(key.startswith("visual.") for key in text)
    assert {key for key in whole if not key.startswith("visual.")} == set(text)
    assert all(torch.equal(value, whole[key]) for key, value in text.items())


def test_only_open_clip_builds_a_tower_with_an_option_that_we_do_not_know() -> None:
    assert build_text(MODELS["clip"], {}) is not None
    assert build_text(variant(text={"final_ln_after_pool": True}), {}) is None
    assert build_text({**MODELS["clip"], "multimodal_cfg": {}}, {}) is None


def test_weights_of_the_older_layout_load_too(
    clip_dir: Callable[[str], Path], tmp_path: Path
) -> None:
    """A custom-text config over weights that carry the text tower's parts at their top."""
    config = {"model_cfg": {**MODELS["clip"], "custom_text": True}, "preprocess_cfg": {}}
    dump(tmp_path / "open_clip_config.json", config)
    weights = clip_dir("clip") / "open_clip_model.safetensors"
    (tmp_path / "open_clip_model.safetensors").write_bytes(weights.read_bytes())
    tower, tokens = make_tower(tmp_path)
    np.testing.assert_allclose(tower(tokens), expected(clip_dir("clip")), atol=1e-5)


@pytest.fixture(scope="module")
def tokenizer_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "the", *LABELS]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestHuggingFaceTowers:
    """Text towers and tokenizers of the transformers package, from folders."""

    @pytest.fixture(params=["roberta", "mt5"])
    def folder(
        self, request: pytest.FixtureRequest, tokenizer_files: dict[str, bytes], tmp_path: Path
    ) -> Path:
        from transformers import MT5Config, RobertaConfig

        for name, data in tokenizer_files.items():
            (tmp_path / name).write_bytes(data)
        sizes = {"vocab_size": 64, "pad_token_id": 0}
        if request.param == "roberta":
            config = RobertaConfig(
                **sizes,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=40,
            )
        else:
            config = MT5Config(**sizes, d_model=32, num_layers=2, num_heads=2, d_kv=16, d_ff=64)
        config.save_pretrained(tmp_path / "text")
        text_cfg = {
            "hf_model_name": "text",
            "hf_tokenizer_name": "anything",
            "hf_pooler_type": "mean_pooler",
            "context_length": 16,
        }
        return write_clip(tmp_path, {**MODELS["clip"], "text_cfg": text_cfg}, {})

    def test_plain_path_and_same_vectors(self, folder: Path) -> None:
        tower, tokens = make_tower(folder)
        assert tower.path == "plain"
        np.testing.assert_allclose(tower(tokens), expected(folder), atol=1e-5)

    def test_siglip_with_its_kind_of_tokenizer(
        self, tokenizer_files: dict[str, bytes], tmp_path: Path
    ) -> None:
        for name, data in tokenizer_files.items():
            (tmp_path / name).write_bytes(data)
        text = {
            "hf_tokenizer_name": "anything",
            "vocab_size": 64,
            "tokenizer_kwargs": {"clean": "canonicalize"},
        }
        folder = write_clip(tmp_path, variant(MODELS["siglip"], text=text), {})
        from models import load_encoder

        encoder = load_encoder(
            f"local-dir:{folder}", backend="torch", precision="fp32", cache_dir=tmp_path / "cache"
        )
        _, texts = open_clip_vectors(folder, pictures(1), PROMPTS)
        np.testing.assert_allclose(encoder.encode_texts(PROMPTS), texts, atol=1e-5)
        assert encoder.count_tokens(["a photo of a cat"]) == [6]
        assert encoder.logit_bias == -10
