"""torchvision's operators: declared where they can't load, left alone where they can."""

from __future__ import annotations

import subprocess
import sys


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_open_clip_imports_after_load_encoder_has_been_called() -> None:
    code = """
from models import load_encoder
load_encoder("everyday", backend="torch", precision="fp32")
import open_clip, torchvision
print(open_clip.__version__)
"""
    assert run_python(code)


def test_declaring_twice_does_nothing_the_second_time() -> None:
    code = """
from models.openclip import declare_missing_operators as declare
declare()
print(declare())
import torchvision
"""
    assert run_python(code) == "False"


def test_nothing_is_declared_where_the_operator_exists() -> None:
    code = """
import torch
real = torch.library.Library("torchvision", "DEF")
real.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from models.openclip import declare_missing_operators as declare
print(declare())
"""
    assert run_python(code) == "False"
