"""The service as a child process."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from service.demo.child import serve_command, serving
from service.errors import ServiceEndedError

READY = "import json, sys, time; print(json.dumps({'url': 'http://x:1'}), flush=True)\n"


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_serves_within_the_block_and_leaves_nothing_behind():
    with serving(python(READY + "time.sleep(600)")) as child:
        assert child.url == "http://x:1"
        assert child.process.poll() is None
    assert child.process.returncode == -signal.SIGTERM
    assert not is_alive(child.process.pid)


def test_leaves_nothing_behind_when_the_block_fails():
    with pytest.raises(KeyboardInterrupt), serving(python(READY + "time.sleep(600)")) as child:
        raise KeyboardInterrupt
    assert child.process.returncode == -signal.SIGTERM


def test_a_service_that_never_serves_says_why_itself(capfd: pytest.CaptureFixture[str]):
    with (
        pytest.raises(ServiceEndedError, match="exit code 2") as caught,
        serving(python("import sys; print('no such model', file=sys.stderr); sys.exit(2)")),
    ):
        pass
    assert caught.value.exit_code == 2
    assert capfd.readouterr().err == "no such model\n"


def test_a_service_that_ends_while_it_serves_is_told():
    with serving(python(READY + "sys.exit(3)")) as child:
        with pytest.raises(ServiceEndedError) as caught:
            child.wait()
        assert caught.value.exit_code == 3


def test_a_start_that_hangs_is_ended():
    with (
        pytest.raises(ServiceEndedError) as caught,
        serving(python("import time; time.sleep(600)"), start_timeout_s=0.5),
    ):
        pass
    assert caught.value.exit_code == -signal.SIGKILL


def test_a_service_that_does_not_listen_to_a_signal_is_killed():
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    with serving(python(deaf + READY + "time.sleep(600)"), stop_timeout_s=0.2) as child:
        pass
    assert child.process.returncode == -signal.SIGKILL


def test_the_command_serves_in_this_interpreter_on_the_port_that_was_asked_for():
    assert serve_command(8123)[0] == sys.executable
    assert serve_command(8123)[-2:] == ["--port", "8123"]
    assert serve_command(0)[-2:] == ["--port", "0"]
    assert "--port" not in serve_command(None)
