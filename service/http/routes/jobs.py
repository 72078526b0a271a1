"""`/v1/jobs`: work that outlives its request, and how it is coming along."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.responses import Response

from service.http.schemas import JobAnswer, JobListAnswer
from service.http.services import ServicesDep
from service.serving.jobs import Job, JobRegistry

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
_PING = 15  # seconds of silence after which a comment is sent, so that no proxy hangs up


@router.get("", summary="List jobs")
async def list_jobs(services: ServicesDep) -> JobListAnswer:
    """Unfinished jobs and the last finished ones, the newest first."""
    return JobListAnswer(jobs=[JobAnswer.of(job) for job in services.jobs.list()])


@router.get("/{job_id}", summary="Show a job")
async def show_job(job_id: str, services: ServicesDep) -> JobAnswer:
    """How far a job is."""
    return JobAnswer.of(services.jobs.get(job_id))


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Server-sent events"}},
)
async def follow_job(job_id: str, services: ServicesDep) -> Response:
    """Server-sent events: the job now, after every change, and at its end; then it closes.

    Events are named `progress` and, for the last one, `done`; `data` is the job as JSON.
    """
    # Imported here, because it takes a quarter of a second that few servers ever need.
    from sse_starlette import EventSourceResponse

    job = services.jobs.get(job_id)
    return EventSourceResponse(_events(services.jobs, job), ping=_PING, sep="\n")


async def _events(jobs: JobRegistry, job: Job) -> AsyncIterator[dict[str, str]]:
    async for state in jobs.follow(job):
        name = "done" if state.done else "progress"
        yield {"event": name, "data": JobAnswer.of(state).model_dump_json()}
