"""Killed at any moment, a run goes on and ends with the bytes of an uninterrupted one."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.batch import Journal, LocalEngine, Results, list_items, run_job
from service.batch.journal import work_folder
from tests.service.batch.makers import MoodyEncoder, classifier, drawing, drawings

ROOT = Path(__file__).parents[3]
# What Python reports to audit hooks before it changes a folder; fsync isn't among them.
STEPS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "sqlite3.connect"}


def fill(folder: Path, number: int) -> None:
    """Pictures, some of them copies across blocks, and some damaged."""
    drawings(folder, number)
    for at in range(0, number, 9):
        (folder / f"{at:05}.png").write_bytes(drawing(at // 3))
    for at in range(5, number, 100):
        (folder / f"{at:05}.png").write_bytes(drawing(at)[:40])


def job(inputs: Path, out: Path, *, ordered: bool = True, pause: float = 0) -> None:
    encoder = MoodyEncoder()
    made = classifier(encoder, embeddings=True)
    encoder.on_batch = lambda _: time.sleep(pause)
    results = Results(out, embeddings=out.with_suffix(".npy"))
    with Journal.open(out, {"inputs": str(inputs)}, lambda: list_items([str(inputs)])) as journal:
        engine = LocalEngine(made, journal.cache(), ordered=ordered, readers=2)
        run_job(journal, engine, results, dim=16)


def outcome(out: Path) -> list[str]:
    return [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (out, out.with_suffix(".npy"))
    ]


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Run `work` in a child that is killed before its `step`-th step; False if it has fewer."""
    child = os.fork()
    if child == 0:
        left = step

        def count() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event in STEPS:
                count()

        # A killed process, unlike a power cut, loses nothing that it has written.
        os.fsync = lambda _: count()
        sys.addaudithook(hook)
        try:
            work()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


@pytest.mark.slow
def test_killed_before_any_step_and_called_again(tmp_path, monkeypatch):
    """Killed at step 1, 2, 3, ...: one more run ends it, whatever was left."""
    inputs = tmp_path / "in"
    fill(inputs, 280)
    job(inputs, tmp_path / "whole.jsonl")
    expected = outcome(tmp_path / "whole.jsonl")
    monkeypatch.setattr(os, "fsync", lambda _: None)
    step, killed = 0, True
    while killed:
        step += 1
        out = tmp_path / f"{step}.jsonl"
        killed = killed_at(step, lambda out=out: job(inputs, out))
        if killed:
            job(inputs, out)
        assert outcome(out) == expected
        assert not work_folder(out).exists()
    assert step > 20


def test_killed_again_and_again_it_gets_there(tmp_path):
    inputs, out = tmp_path / "in", tmp_path / "out.jsonl"
    fill(inputs, 600)
    job(inputs, tmp_path / "whole.jsonl")
    deaths = 0
    while killed_at(9 + deaths, lambda: job(inputs, out)):
        deaths += 1
        assert deaths < 50
    assert deaths > 2
    assert outcome(out) == outcome(tmp_path / "whole.jsonl")


def test_what_changes_in_the_folder_meanwhile_does_not_shift_the_rows(tmp_path):
    inputs, out = tmp_path / "in", tmp_path / "out.jsonl"
    fill(inputs, 600)
    job(inputs, tmp_path / "whole.jsonl")
    assert killed_at(16, lambda: job(inputs, out))
    (inputs / "00000a.png").write_bytes(drawing(3))
    job(inputs, out)
    assert outcome(out) == outcome(tmp_path / "whole.jsonl")


@pytest.mark.parametrize("ordered", [True, False])
def test_a_process_killed_for_real(tmp_path, ordered):
    inputs, out = tmp_path / "in", tmp_path / "out.jsonl"
    fill(inputs, 1500)
    job(inputs, tmp_path / "whole.jsonl", ordered=ordered)
    code = (
        "import sys; from pathlib import Path; from tests.service.batch.test_kill import job;"
        "job(Path(sys.argv[1]), Path(sys.argv[2]), ordered=sys.argv[3] == 'True', pause=0.05)"
    )
    rows = work_folder(out) / "rows"
    deaths = 0
    for wanted in (1, 3):
        with subprocess.Popen(
            [sys.executable, "-c", code, inputs, out, str(ordered)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as process:
            while process.poll() is None and len(list(rows.glob("*.jsonl"))) < wanted:
                time.sleep(0.002)
            process.kill()
            deaths += process.wait() == -signal.SIGKILL
    assert deaths == 2
    done = len(list(rows.glob("*.jsonl")))
    assert 3 <= done < 6
    job(inputs, out, ordered=ordered)
    if ordered:
        assert outcome(out) == outcome(tmp_path / "whole.jsonl")
    else:  # every image once, in whichever order
        files = sorted(line.split(b'"')[3] for line in out.read_bytes().splitlines())
        assert files == sorted(str(path).encode() for path in inputs.iterdir())
