"""All commands together, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from models.errors import ClipdexError, UserError
from service.cli import adapters, classify, evaluate, index, models, search, serve
from service.cli import training as commands_training
from service.cli.terminal import complain

log = logging.getLogger("clipdex")
_INTERRUPTED = 130


def make_app() -> typer.Typer:
    """The command tree."""
    app = typer.Typer(
        name="clipdex",
        help="Zero-shot image recognition: categories in words, answers for images.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_common)
    app.command("serve")(serve.serve)
    app.command("classify")(classify.classify)
    app.command("search")(search.search)
    app.command("eval")(evaluate.evaluate)
    app.add_typer(index.app, name="index")
    app.add_typer(models.app, name="models")
    app.add_typer(adapters.app, name="adapters")
    commands_training.register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"clipdex {importlib.metadata.version('clipdex')}")
        raise typer.Exit


def _common(
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Log more, and show where an error came from.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    logging.getLogger().setLevel(logging.DEBUG if verbose else logging.WARNING)


def _with_option_name(error: ClipdexError) -> str:
    """The message with the parameter that it begins with as an option: top_k is --top-k here."""
    param = error.param
    if param is None or not re.match(rf"{re.escape(param)}\b", error.message):
        return error.message
    return f"--{param.replace('_', '-')}{error.message[len(param) :]}"


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    try:
        code = make_app()(args=argv, prog_name="clipdex", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.TyperException as error:
        # An unknown option, a missing argument: the user's mistake, whatever typer calls it.
        if error.format_message():
            complain(f"{error.format_message().rstrip('.')}; see clipdex --help")
        return 2
    except ClipdexError as error:
        complain(_with_option_name(error))
        return 2 if isinstance(error, UserError) else 1
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # Whoever read our output has seen enough (typer turns that into an exit of its own); what
        # is left must not fail again when Python flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # The file system's answer to what the user named: no such folder, no right to write.
        log.debug("from the operating system", exc_info=error)
        named = f": {error.filename}" if error.filename else ""
        complain(f"{(error.strerror or str(error)).lower()}{named}")
        return 2 if error.filename else 1
    except Exception as error:
        log.debug("unforeseen", exc_info=error)
        complain(f"something went wrong on our side: {error!r} (clipdex --verbose tells more)")
        return 1
