from __future__ import annotations

import importlib.metadata
import json
import shlex
import sys
from pathlib import Path

import pytest

from models import extras


class Installed:
    requires = importlib.metadata.requires("clipdex")

    def __init__(self, origin):
        self.origin = origin

    def read_text(self, name):
        assert name == "direct_url.json"
        return self.origin


def installed(monkeypatch, origin):
    monkeypatch.setattr(extras.importlib.metadata, "distribution", lambda _: Installed(origin))


def test_an_editable_checkout_is_named_by_its_folder(monkeypatch):
    url = {"url": "file:///home/a%20b/clipdex", "dir_info": {"editable": True}}
    installed(monkeypatch, json.dumps(url))
    words = shlex.split(extras.how_to_install("train"))
    assert words == [sys.executable, "-m", "pip", "install", "-e", "/home/a b/clipdex[train]"]


@pytest.mark.parametrize("origin", [None, json.dumps({"url": "file:///src", "dir_info": {}})])
def test_elsewhere_the_packages_themselves_are_named(monkeypatch, origin):
    installed(monkeypatch, origin)
    words = shlex.split(extras.how_to_install("int8"))
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    assert words[4:] == extras.requirements("int8")
    assert words[4].startswith("nncf")


def test_an_extra_that_there_is_not():
    with pytest.raises(KeyError):
        extras.requirements("nix")


@pytest.mark.parametrize("extra", ["train", "int8", "s3", "gs", "az", "http", "mlflow", "ray"])
def test_every_extra_that_is_advised_exists(extra):
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f"\n{extra} = [" in pyproject
