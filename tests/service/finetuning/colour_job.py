"""A job's process with the colour encoder, see service.finetuning.process."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    from service.finetuning.process import main
    from tests.service.fakes import ColourEncoder

    sys.exit(main(load=lambda settings: ColourEncoder()))
