"""What routes ask for in their signatures."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from starlette.requests import Request

from service.errors import ClientGoneError
from service.services import Services

T = TypeVar("T")


async def get_services(request: Request) -> Services:
    """The services of the app that the request came to.

    Async, though it awaits nothing: FastAPI sends every other kind of dependency through a thread.
    """
    services: Services = request.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, but drop it when the client hangs up. The body must have been read.

    Raises: ClientGoneError; whatever `work` raises.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ClientGoneError("the client hung up") from None
    finally:
        watcher.cancel()
