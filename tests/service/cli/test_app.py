"""Exit codes, and one clear line for every error."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest

from models.errors import ClipdexError
from service.cli import app, run

MAIN = [sys.executable, "-c", "from service.cli import main; main()"]


def test_help_is_no_error(shell):
    assert "serve" in shell("--help")
    assert "--labels" in shell("classify", "--help")


@pytest.mark.parametrize(
    "arguments",
    [["nix"], ["--nix"], ["classify"], ["classify", "x", "--nix"], ["serve", "--port", "http"]],
)
def test_a_command_line_that_makes_no_sense(shell, arguments):
    assert "--help" in shell.fails(*arguments)


def test_version(shell):
    assert shell("--version") == f"clipdex {importlib.metadata.version('clipdex')}\n"


def test_no_command_shows_the_help(shell):
    shell(code=2)
    assert "serve" in shell.out + shell.err


def test_a_setting_that_makes_no_sense(shell, monkeypatch):
    monkeypatch.setenv("CLIPDEX_MAX_BATCH", "0")
    assert "CLIPDEX_MAX_BATCH" in shell.fails("index", "list")


def test_our_own_mistakes_are_exit_code_1(shell, monkeypatch):
    def broken(*_: object) -> None:
        raise ClipdexError("the\nfiles are damaged")

    monkeypatch.setattr("service.cli.options.open_store", broken)
    monkeypatch.setattr("service.cli.index.open_store", broken)
    assert shell.fails("index", "list", code=1) == "error: the files are damaged\n"

    def bug(*_: object) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr("service.cli.index.open_store", bug)
    assert "surprise" in shell.fails("index", "list", code=1)


def test_ctrl_c_is_130(shell, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("service.cli.index.open_store", interrupted)
    shell("index", "list", code=130)


def test_what_the_file_system_refuses_is_told_with_its_name(shell, monkeypatch):
    data = shell.file("data", "a file, no folder")
    labels = shell.file("labels.txt", "red\nblue\n")
    assert str(data) in shell.fails("index", "build", "things", "--labels", labels)


@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_reader_that_has_seen_enough_is_no_error(shell, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*MAIN, "index", "list", "--json"],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, **unbuffered},
        timeout=120,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_every_command_takes_json_or_says_why_not():
    """Machine-readable output is promised for every command."""
    tree = app.make_app()
    assert {command.name for command in tree.registered_commands} >= {"serve", "classify"}
    for group in tree.registered_groups:
        for command in group.typer_instance.registered_commands:
            assert "json" in command.callback.__annotations__, command.name
    for command in tree.registered_commands:
        assert "json" in command.callback.__annotations__, command.name


def test_run_takes_the_arguments_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["clipdex", "--help"])
    assert run() == 0
    assert "clipdex" in capsys.readouterr().out
