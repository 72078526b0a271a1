"""The package's own names, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import training


def test_every_public_name_is_found_and_is_what_its_module_calls_it() -> None:
    for name in training.__all__:
        assert getattr(training, name) is not None
    assert sorted(training._HOME) == sorted(training.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = training.Nothing


@pytest.mark.parametrize(
    "module", ["training", "training.adapters.store", "training.errors", "training.names"]
)
def test_reading_what_adapters_there_are_does_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
