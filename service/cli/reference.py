"""Writes docs/cli.md from the commands and settings themselves.

    python -m service.cli.reference docs/cli.md

A test compares the file with what this writes, so that the help can't drift from the page.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from service.cli.app import make_app
from service.settings import Settings

_INTRODUCTION = """\
# Command line and settings

*Written by `python -m service.cli.reference docs/cli.md`: change the commands, not this page.*

Results go to stdout, progress and errors to stderr. Whatever takes longer than two seconds shows
how far it is: bars on a terminal, a line every two seconds in a log. `--json` prints JSON instead
of text.

| exit code | means |
| --- | --- |
| 0 | done |
| 1 | our fault: damaged files, a defect; `clipdex --verbose` tells more |
| 2 | the user can mend it; one line on stderr says how |
| 3 | done, but some images could not be read (`clipdex classify`; `--strict`: stopped there) |
| 130 | interrupted with Ctrl-C |
"""
_WIDTH = "100"


def reference() -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for path in command_paths(make_app()):
        title = " ".join(("clipdex", *path))
        parts.append(f"## {title}\n\n```text\n{help_text(path)}```\n")
    parts.append(
        "## Settings\n\nEnvironment variables, read once when a command starts. Options win over "
        "them. An empty one counts as not set.\n"
    )
    rows = [
        f"| `CLIPDEX_{name.upper()}` | {_default(name)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    parts.append("\n".join(["| variable | default | what it sets |", "| --- | --- | --- |", *rows]))
    return "\n".join(parts) + "\n"


def command_paths(app: typer.Typer) -> Iterator[tuple[str, ...]]:
    """Every command as words: (), ("serve",), ("index", "build"), ..."""
    yield ()
    for command in app.registered_commands:
        yield (str(command.name),)
    for group in app.registered_groups:
        yield (str(group.name),)
        for command in group.typer_instance.registered_commands if group.typer_instance else ():
            yield (str(group.name), str(command.name))


def help_text(path: tuple[str, ...]) -> str:
    """What `--help` prints, at one width on every terminal."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _WIDTH
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            make_app()(args=[*path, "--help"], prog_name="clipdex", standalone_mode=False)
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return out.getvalue()


def _default(name: str) -> str:
    value = Settings.model_fields[name].default
    return "" if Settings.model_fields[name].default_factory else f"`{value}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
