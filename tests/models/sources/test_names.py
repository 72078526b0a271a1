"""Model ids to files, against a local stand-in of the hub; each case in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models import UnknownModelError, load_encoder
from models.openclip import import_open_clip
from models.sources.tags import find_tagged
from tests.models.conftest import VISION, variant
from tests.models.hub_server import HubServer

ROOT = Path(__file__).parents[3]
NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody answers


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "hub") as server:
        yield server


def publish(hub: HubServer, repo: str, source: Path, *names: str) -> None:
    folder = hub.folder / repo
    folder.mkdir(parents=True)
    for name in names or ("open_clip_config.json", "open_clip_model.safetensors"):
        shutil.copy(source / name, folder / name)


def ask(tmp_path: Path, endpoint: str, code: str, **environment: str) -> Any:
    """Run code as a user's process would, with the hub at `endpoint`; what it prints last."""
    prelude = f"""
        import json
        from pathlib import Path
        from models import ClipdexError, load_encoder
        from models.sources.cache import Cache
        from models.sources.names import identify, resolve
        cache = Path({str(tmp_path / "cache")!r})
        def load(model_id):
            return load_encoder(model_id, backend="torch", precision="fp32", cache_dir=cache)
        def error(call, *args, **options):
            try:
                call(*args, **options)
            except ClipdexError as exc:
                return [type(exc).__name__, str(exc)]
    """
    home = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(code)],
        env={**os.environ, **home, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_hub_model_is_fetched_once_and_then_loads_without_a_network(
    hub: HubServer, tmp_path: Path, clip_dir: Callable[[str], Path]
) -> None:
    publish(hub, "someone/small-clip", clip_dir("clip"))
    code = """
        vectors = load("hf-hub:someone/small-clip").encode_texts(["a cat"])
        print(json.dumps(vectors[0].tolist()))
    """
    first = ask(tmp_path, hub.url, code)
    assert "GET /someone/small-clip/resolve/main/open_clip_model.safetensors" in hub.requests
    here = load_encoder(
        f"local-dir:{clip_dir('clip')}", backend="torch", precision="fp32", cache_dir=tmp_path
    )
    assert first == pytest.approx(here.encode_texts(["a cat"])[0].tolist(), abs=1e-6)
    assert ask(tmp_path, NOWHERE, code) == first
    shutil.rmtree(tmp_path / "cache")  # the hub's own cache is enough
    assert ask(tmp_path, NOWHERE, code) == first


def test_what_goes_wrong_with_the_hub_is_told_in_one_line(
    hub: HubServer, tmp_path: Path, clip_dir: Callable[[str], Path]
) -> None:
    publish(hub, "someone/no-weights", clip_dir("clip"), "open_clip_config.json")
    (hub.folder / "someone/no-weights/open_clip_pytorch_model.bin").write_bytes(b"a pickle")
    hub.gated.add("someone/gated")
    code = """
        names = ["someone/no-weights", "someone/nothing", "someone/gated", "no good name!"]
        print(json.dumps([error(load, f"hf-hub:{name}") for name in names]))
    """
    no_weights, nothing, gated, malformed = ask(tmp_path, hub.url, code)
    assert no_weights[0] == "ModelUnavailableError"
    assert "never from pickles" in no_weights[1]
    assert not any("pytorch_model.bin" in request for request in hub.requests)
    assert nothing[0] == "UnknownModelError"
    assert "no public repository someone/nothing" in nothing[1]
    assert gated[0] == "ModelUnavailableError"
    assert "licence" in gated[1]
    assert malformed[0] == "UnknownModelError"
    assert "ORGANISATION/NAME" in malformed[1]
    assert all("\n" not in message for _, message in (no_weights, nothing, gated, malformed))


@pytest.mark.parametrize("offline", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_no_network_and_no_weights(tmp_path: Path, offline: dict[str, str]) -> None:
    code = """
        ids = ["ViT-B-32/laion2b_s34b_b79k", "hf-hub:someone/small-clip"]
        print(json.dumps([error(load, model_id) for model_id in ids]))
    """
    told = ask(tmp_path, NOWHERE, code, **offline)
    assert "ViT-B-32/laion2b_s34b_b79k" in told[0][1]
    for kind, message in told:
        assert kind == "ModelUnavailableError"
        assert "clipdex models pull" in message
        assert NOWHERE in message
        assert str(tmp_path / "hf") in message


def test_a_fetch_tells_its_progress(
    hub: HubServer, tmp_path: Path, clip_dir: Callable[[str], Path]
) -> None:
    repo = find_tagged("RN50/yfcc15m").repo
    publish(hub, repo, clip_dir("clip"), "open_clip_model.safetensors")
    size = (clip_dir("clip") / "open_clip_model.safetensors").stat().st_size
    code = """
        steps = []
        source = resolve("RN50/yfcc15m", cache=Cache(cache), refresh=True,
                         on_progress=lambda *step: steps.append(step))
        print(json.dumps({
            "steps": steps, "bytes": source.weights.stat().st_size,
            "quick_gelu": source.model_cfg["quick_gelu"], "size": source.preprocess.size,
        }))
    """
    told = ask(tmp_path, hub.url, code)
    assert told["steps"][-1] == ["open_clip_model.safetensors", size, size]
    assert told["bytes"] == size
    assert (told["quick_gelu"], told["size"]) == (True, [224, 224])


def test_a_refresh_takes_the_newer_version_and_nothing_else_does(
    hub: HubServer, tmp_path: Path, clip_dir: Callable[[str], Path]
) -> None:
    publish(hub, "someone/clip", clip_dir("clip"))
    code = """
        source = resolve("hf-hub:someone/clip", cache=Cache(cache), refresh={})
        print(json.dumps(identify(source, Cache(cache))))
    """
    first = ask(tmp_path, hub.url, code.format(False))
    config = hub.folder / "someone/clip/open_clip_config.json"
    config.write_text(config.read_text().replace("16", "32"))  # patch size: other preprocessing
    assert ask(tmp_path, hub.url, code.format(False)) == first
    assert ask(tmp_path, hub.url, code.format(True)) != first
    assert ask(tmp_path, NOWHERE, code.format(True)) != first  # keeps what it has


class TestTags:
    def test_quick_gelu_follows_the_weights(self) -> None:
        assert find_tagged("ViT-B-32/openai").model_cfg["quick_gelu"] is True
        assert find_tagged("ViT-B-32-quickgelu/openai").model_cfg["quick_gelu"] is True
        assert find_tagged("ViT-B/32/openai").model_cfg["quick_gelu"] is True
        assert not find_tagged("ViT-B-32/laion2b_s34b_b79k").model_cfg.get("quick_gelu")
        assert find_tagged("roberta-ViT-B-32/laion2b_s12b_b32k").model_cfg["quick_gelu"] is True

    def test_preprocessing_is_the_tags(self) -> None:
        assert find_tagged("ViT-B-16-SigLIP/webli").preprocess_cfg["resize_mode"] == "squash"

    def test_every_row_of_the_table_can_be_asked_for(self) -> None:
        for name, tag in import_open_clip().list_pretrained():
            row = find_tagged(f"{name}/{tag}")
            assert row.repo.count("/") == 1
            assert all(file.endswith(".safetensors") for file in row.weights_names)

    @pytest.mark.parametrize(
        ("wrong", "hint"),
        [
            ("ViT-B-32/laion2b_s34b_b79", "ViT-B-32/laion2b_s34b_b79k"),
            ("vit-b-32/OpenAI ", "ViT-B-32/openai"),
            ("ViT-B-32", "ViT-B-32/openai"),
            ("everyday2", "everyday"),
            ("ViT-B-33/openai", "ViT-B-32/openai"),
        ],
    )
    def test_a_wrong_name_gets_the_closest(self, wrong: str, hint: str, tmp_path: Path) -> None:
        with pytest.raises(UnknownModelError, match=hint):
            load_encoder(wrong, cache_dir=tmp_path)

    def test_a_name_like_no_other(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownModelError, match="clipdex models list"):
            load_encoder("???", cache_dir=tmp_path)


def test_the_variants_of_a_config_differ() -> None:
    """`variant` copies: a test that changes one model leaves the others alone."""
    assert variant(vision={"width": 8})["vision_cfg"]["width"] == 8
    assert VISION["width"] == 64
