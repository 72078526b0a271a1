"""The command line, one command a file.

Nothing heavy is imported before a command needs it: `clipdex --help` shall not load a model.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from service.cli.app import run

__all__ = ["main", "run"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run `clipdex` and exit: 0 well, 1 our fault, 2 the user's, 130 interrupted."""
    sys.exit(run(argv))
