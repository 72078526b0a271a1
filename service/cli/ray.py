"""The options of `clipdex classify --engine ray`, and the engine that they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.errors import ParameterError

if TYPE_CHECKING:
    from service.batch import Question
    from service.batch.engines.ray import Pool, RayEngine
    from service.cli.compared import Compared

EngineOption = Annotated[
    Literal["local", "ray"], typer.Option(help="This machine, or a Ray cluster (with --out).")
]
AddressOption = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="The Ray cluster's; else RAY_ADDRESS, or a local one."),
]
MinActorsOption = Annotated[
    int | None, typer.Option(metavar="N", help="Encoders that Ray starts with (default 1).")
]
MaxActorsOption = Annotated[
    int | None, typer.Option(metavar="N", help="Encoders that Ray may add up to (default 4).")
]
ActorCpusOption = Annotated[
    float | None, typer.Option(metavar="N", help="Processors that Ray reserves for each (1).")
]
ActorGpusOption = Annotated[
    float | None, typer.Option(metavar="N", help="GPUs that Ray reserves for each (0).")
]


def wanted_pool(
    engine: str,
    *,
    with_out: bool,
    address: str | None,
    min_actors: int | None,
    max_actors: int | None,
    actor_cpus: float | None,
    actor_gpus: float | None,
) -> Pool | None:
    """The actors to classify with; None for this machine.

    Raises: ParameterError; RayMissingError.
    """
    numbers = {"least": min_actors, "most": max_actors, "cpus": actor_cpus, "gpus": actor_gpus}
    given = {name: value for name, value in numbers.items() if value is not None}
    if engine == "local":
        if given or address is not None:
            raise ParameterError("--address and --...-actors go with --engine ray", param="engine")
        return None
    if not with_out:
        raise ParameterError("--engine ray goes with --out", param="out")
    from service.batch.engines.ray import make_pool, require_ray

    require_ray()
    return make_pool(given)


def ray_engine(
    found: Compared,
    question: Question,
    pool: Pool,
    *,
    address: str | None,
    ordered: bool,
) -> RayEngine:
    """An engine whose actors load the same model. Raises: as `models.sources.names.resolve`."""
    from models.sources.cache import Cache
    from models.sources.names import resolve
    from service.batch.engines.ray import EncoderRecipe, RayEngine

    settings = found.settings
    recipe = EncoderRecipe(
        settings.model,
        resolve(settings.model, cache=Cache(settings.cache)).preprocess,
        backend=settings.backend,
        device=settings.device,
        precision=settings.precision,
        cache_dir=settings.cache.absolute() if settings.cache else None,
    )
    return RayEngine(
        recipe,
        found.categories,
        question,
        head=found.head,
        address=address,
        pool=pool,
        ordered=ordered,
    )
