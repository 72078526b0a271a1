"""Servers that several test files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.servers import Running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A ready server with the colour encoder and an index of six colours; don't break it."""
    folder = tmp_path_factory.mktemp("served")
    with Running(folder, index="colours", max_images=4, max_body_mb=0.5) as running:
        running.loaded().build("colours")
        running.ready()
        yield running
