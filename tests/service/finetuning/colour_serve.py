"""A server with the colour encoder as a process of its own: `python colour_serve.py DATA`.

Prints its address once it answers.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    from indexer import CategoryIndex, IndexStore
    from service.http.app import create_app
    from service.http.server import address_of, open_socket, serve
    from service.settings import Settings
    from tests.service.fakes import ColourEncoder
    from tests.service.finetuning.shots import COLOUR_JOB

    settings = Settings(data=Path(sys.argv[1]), index="colours")
    store = IndexStore(settings.indexes)
    if "colours" not in store.names():
        store.publish("colours", CategoryIndex.build(["red", "blue"], ColourEncoder()))
    app = create_app(settings, load=ColourEncoder, job_command=COLOUR_JOB)
    listener = open_socket("127.0.0.1", 0)
    serve(
        app,
        listener,
        on_change=lambda readiness: readiness.ready and print(address_of(listener), flush=True),
    )
