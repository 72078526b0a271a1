"""torchvision's operators: declared where they can't load, left alone where they can."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from models import load_encoder


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_texts_are_encoded_without_open_clip_which_imports_afterwards(cache_dir: Path) -> None:
    load_encoder("everyday", backend="openvino", cache_dir=cache_dir)
    code = """
import sys
from models import load_encoder
encoder = load_encoder("everyday", backend="openvino", cache_dir=sys.argv[1])
encoder.encode_texts(["a red apple"])
heavy = ("open_clip", "torchvision", "timm", "transformers")
print([name for name in heavy if name in sys.modules])
import open_clip, torchvision
from models.openclip import declare_missing_operators as declare
print(declare())
"""
    assert run_python(code, str(cache_dir)) == "[]\nFalse"


def test_nothing_is_declared_where_the_operator_exists() -> None:
    code = """
import torch
real = torch.library.Library("torchvision", "DEF")
real.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from models.openclip import declare_missing_operators as declare
print(declare())
"""
    assert run_python(code) == "False"
