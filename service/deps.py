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


def get_services(request: Request) -> Services:
    """The services of the app that the request came to."""
    services: Services = request.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, but drop it when the client hangs up. The body must have been read.

    Raises: ClientGoneError; whatever `work` raises.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError("the client hung up")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
