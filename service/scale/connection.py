"""This process's connection to a Ray cluster."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO, cast

from service.scale.errors import ClusterAddressError, RayMissingError

_RAY_THREADS = "ray_"
_PATIENCE = 5.0  # seconds


def require_ray() -> None:
    """Raises: RayMissingError."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise RayMissingError(
            "running on Ray needs a package that isn't installed: pip install '.[ray]'",
            param="engine",
        ) from error


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """This process is a driver of the cluster within the `with` block.

    address: what `ray.init` takes; None for the cluster that RAY_ADDRESS names, or else one made of
        this machine until the block ends

    Raises: ClusterAddressError.
    """
    if address is not None:
        _knock(address)
    import ray

    # Ray would tell its makers of every cluster it starts; whoever wants that can say so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = address or "the address in RAY_ADDRESS"
        raise ClusterAddressError(
            f"no Ray cluster answers at {where}: {first_line(error)}", param="address"
        ) from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(cast(Any, _Stdout(sys.stdout))):
        try:
            yield
        finally:
            with contextlib.redirect_stdout(sys.stderr):  # it says then what it has held back
                ray.shutdown()


def _knock(address: str) -> None:
    """Ray tries for minutes where nobody listens; HOST:PORT can be found out at once.

    Raises: ClusterAddressError.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return  # one of Ray's other ways to name a cluster
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ClusterAddressError(
            f"no Ray cluster answers at {address}: {reason}; `ray status` on its head tells the "
            "address",
            param="address",
        ) from error


class _Stdout(io.TextIOBase):
    """stdout, but what Ray's own thread says there of dying nodes goes to stderr: on stdout are
    results.
    """

    def __init__(self, inner: TextIO) -> None:
        self._inner = inner

    def write(self, text: str) -> int:
        """Write to the one or the other."""
        return self._stream().write(text)

    def flush(self) -> None:
        """Flush the same."""
        self._stream().flush()

    def fileno(self) -> int:
        """Of the real stdout."""
        return self._inner.fileno()

    def _stream(self) -> TextIO:
        from_ray = threading.current_thread().name.startswith(_RAY_THREADS)
        return sys.stderr if from_ray else self._inner


def first_line(error: Exception) -> str:
    """Of what an exception says; its name where it says nothing."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
