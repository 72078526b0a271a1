"""What a job's process does to itself before it begins."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from service.finetuning.intake import FinetuneOptions
from service.finetuning.process import _told
from service.finetuning.queue import finite
from service.settings import Settings
from training.finetune import METHODS
from training.names import AUTO, MEASURED_NAMES, METHOD_NAMES
from training.tower import TOWER_METHODS

MODEST = """
import json, os, service.finetuning.process as process
from service.settings import Settings
process._be_modest(Settings(finetune_memory_mb=500, finetune_threads=1))
try:
    bytearray(600_000_000)
    told = None
except MemoryError as error:
    told = process._told(error, Settings(finetune_memory_mb=500))
print(json.dumps([os.nice(0), len(os.sched_getaffinity(0)), told]))
"""


def test_low_priority_one_processor_and_a_limit_on_memory():
    done = subprocess.run(
        [sys.executable, "-c", MODEST], capture_output=True, text=True, timeout=60, check=True
    )
    nice, processors, told = json.loads(done.stdout)
    assert (nice, processors) == (19, 1)
    assert told["code"] == "job_too_large"
    assert "500 MB" in told["message"]


def test_what_clients_are_told_of_the_unforeseen():
    told = _told(RuntimeError("DefaultCPUAllocator: can't allocate memory"), Settings())
    assert told["code"] == "job_too_large"
    told = _told(RuntimeError("the password is 1234"), Settings())
    assert told["code"] == "internal_error"
    assert "1234" not in told["message"]


def test_numbers_that_json_lacks_become_none():
    value = {"a": float("nan"), "b": [1.5, float("inf")], "c": (2, "x"), "d": None}
    assert finite(value) == {"a": None, "b": [1.5, None], "c": [2, "x"], "d": None}


def test_the_methods_are_those_of_the_workflow():
    methods = FinetuneOptions.model_json_schema()["properties"]["method"]["enum"]
    known = {*METHODS, *MEASURED_NAMES, *TOWER_METHODS, AUTO}
    assert sorted(methods) == sorted(known) == sorted(METHOD_NAMES)


@pytest.mark.parametrize("name", ["data", "cache", "finetune_roots"])
def test_settings_reach_the_process_as_they_are(name: str, tmp_path):
    before = Settings(
        data=tmp_path, cache=tmp_path / "c", finetune_roots=(tmp_path, tmp_path / "b")
    )
    after = Settings(**json.loads(json.dumps(before.model_dump(mode="json"))))
    assert getattr(after, name) == getattr(before, name)
