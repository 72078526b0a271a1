"""Hooks of other systems: found by name, refused when broken; MLflow is one of them."""

from __future__ import annotations

import sys
import textwrap
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from service.errors import HookUnusableError
from service.finetuning.hooks import GROUP, JobInfo, installed_hooks
from service.finetuning.mlflow_logger import MlflowLogger
from tests.service.finetuning.shots import begin, colour_server, ended, packed, send, shots
from tests.service.servers import problem
from tests.training.samples import features
from training import Callback, Recipe, TextHead, fit

INFO = JobInfo("job-1", "words", "colours", "head")
PLUGIN = """
from pathlib import Path
from training import Callback

class Diary(Callback):
    def __init__(self, info):
        self.info = info

    def on_epoch_end(self, run):
        with Path({diary!r}).open("a") as file:
            file.write(f"{{self.info.id}} {{self.info.adapter}} {{run.epoch}}\\n")

class Breaker(Callback):
    def __init__(self, info): pass

    def on_epoch_end(self, run):
        next(run.network.parameters()).data.add_(1)

def nothing(info):
    return "no callback"
"""
POINTS = """
[clipdex.callbacks]
diary = clipdex_test_plugin:Diary
breaker = clipdex_test_plugin:Breaker
nothing = clipdex_test_plugin:nothing
gone = clipdex_no_such_module:x
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with entry points, for this process and those it starts."""
    place = tmp_path / "site"
    info = place / "clipdex_test_plugin-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clipdex-test-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(POINTS))
    diary = tmp_path / "diary.txt"
    (place / "clipdex_test_plugin.py").write_text(PLUGIN.format(diary=str(diary)))
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", str(place))
    sys.modules.pop("clipdex_test_plugin", None)
    return diary


def test_only_what_is_named_is_used(plugin: Path):
    assert installed_hooks((), INFO) == []
    [hook] = installed_hooks(("diary",), INFO)
    assert hook.info is INFO


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unknown", "no callback named 'unknown' is installed; there are: .*breaker, diary"),
        ("gone", "can't be imported"),
        ("nothing", "made a str, no training.Callback"),
    ],
)
def test_what_can_not_be_used_is_named(plugin: Path, name: str, said: str):
    with pytest.raises(HookUnusableError, match=said):
        installed_hooks((name,), INFO)


def test_in_a_job_and_one_that_changes_the_run_fails_it(plugin: Path, tmp_path: Path):
    recipe = {"method": "head", "recipe": "epochs: 3", "views": 1, "name": "words"}
    with colour_server(tmp_path / "data", callbacks=("diary", "breaker")) as server:
        begin(server)
        job = ended(server.client, send(server.client, packed(shots(3)), **recipe))
        assert job["state"] == "failed"
        assert job["error"]["code"] == "hook_changed_state"
        assert "Breaker.on_epoch_end changed the run" in job["error"]["message"]
        problem(server.client.get(f"/v1/finetunes/{job['id']}/report"), 404, "no_report")
    assert plugin.read_text() == f"{job['id']} words 0\n"


def test_our_own_entry_points_lead_to_callbacks():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    points = project["project"]["entry-points"][GROUP]
    assert points
    for name, value in points.items():
        assert issubclass(EntryPoint(name, value, GROUP).load(), Callback)


def test_mlflow_keeps_a_job_as_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient(tracking_uri=f"file:{tmp_path}")
    recipe = Recipe(method=TextHead(), epochs=3)
    fit(recipe, features(), callbacks=[MlflowLogger(INFO, client)])
    fit(recipe, features(), callbacks=[MlflowLogger(INFO, client)])  # the job again, after a kill
    experiment = client.get_experiment_by_name("clipdex/words")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.data.tags["clipdex.job"] == "job-1"
    assert run.info.status == "FINISHED"
    assert (run.data.params["epochs"], run.data.params["index"]) == ("3", "colours")
    assert set(run.data.metrics) == {
        f"{side}/{name}" for side in ("train", "val") for name in ("loss", "accuracy")
    } | {"lr"}
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(metric.step for metric in losses) == [1, 1, 2, 2, 3, 3]
