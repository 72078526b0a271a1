"""Each room says what it offers, and offers what it says."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize("room", ["models", "indexer", "training"])
def test_all_names_exist_and_stand_there_once(room: str) -> None:
    module = importlib.import_module(room)
    names = module.__all__
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(module, name)] == []
