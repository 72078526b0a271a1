"""Servers that several test files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from indexer import ImageIndex, IndexStore
from tests.service.fakes import COLOURS, ColourEncoder, picture
from tests.service.finetuning.shots import COLOUR_JOB
from tests.service.servers import Running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A ready server with the colour encoder, an index of six colours ("colours") and one of six
    images of them ("photos"); don't break them.
    """
    folder = tmp_path_factory.mktemp("served")
    pictures = folder / "pictures"
    pictures.mkdir()
    for colour in COLOURS:
        (pictures / f"{colour}.png").write_bytes(picture(colour))
    images = ImageIndex.build(pictures, ColourEncoder())
    IndexStore(folder / "indexes").publish("photos", images)
    limits = {"max_images": 4, "max_body_mb": 0.5}
    with Running(folder, index="colours", job_command=COLOUR_JOB, **limits) as running:
        running.loaded().build("colours")
        running.ready()
        yield running
