"""The shapes of bodies and answers about fine-tuning jobs and adapters."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.finetuning.intake import FinetuneOptions
from service.http.problems import ErrorObject
from service.http.schemas import Body


class FinetuneAnswer(BaseModel):
    """A fine-tuning job.

    `state` is "queued", "running", "cancelling", "succeeded", "failed" or "cancelled"; `history`
    has one entry an epoch; `result` once it has succeeded, `error` once it has failed.
    """

    id: str
    state: Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
    created: str
    started: str | None
    finished: str | None
    attempts: int
    options: dict[str, Any]
    result: dict[str, Any] | None
    error: ErrorObject | None
    progress: dict[str, Any] | None = None
    history: list[dict[str, Any]] = []


class BriefAdapter(BaseModel):
    """An adapter; `live`: its current version; `indexes`: those that it answers for.

    `changes` is "head" (the model stays as it is) or "weights" (it brings a model of its own).
    """

    name: str
    live: int | None
    versions: list[int]
    indexes: list[str]
    kind: str
    changes: Literal["head", "weights"]
    model: str
    classes: list[str]
    created: str


class AdapterAnswer(BriefAdapter):
    """All that is known of an adapter; `metrics` and `prompts` are of `shown_version`.

    `problem` says why it doesn't answer for an index that it is assigned to.
    """

    made_for: str | None
    problem: str | None
    shown_version: int
    fingerprint: str
    gate_failures: list[str]
    prompts: dict[str, list[str]]
    metrics: dict[str, Any]
    log: list[dict[str, Any]]


class AdapterListAnswer(BaseModel):
    """All adapters."""

    adapters: list[BriefAdapter]


class PromoteBody(Body):
    """Which version shall answer, and for which index."""

    version: int | None = Field(None, ge=1, description="default: the newest")
    index: str | None = Field(None, description="default: the one that it was made for")
    force: bool = Field(False, description="go past the gate's verdict; it is logged")


class AdapterRollbackBody(Body):
    """The version to put back; by default the one that was current before."""

    version: int | None = Field(None, ge=1)


class MovedAnswer(BaseModel):
    """What answers now; `version` is null where zero-shot does."""

    name: str
    version: int | None
    indexes: list[str]


class FinetuneListAnswer(BaseModel):
    """Fine-tuning jobs, the newest first, without their history."""

    finetunes: list[FinetuneAnswer]


def _finetune_body() -> dict[str, Any]:
    properties = FinetuneOptions.model_json_schema()["properties"]
    file = {"type": "string", "format": "binary"}
    folder = {"type": "string", "description": "a folder on the server, below an allowed root"}
    form = {
        "archive": {**file, "description": "a zip with one folder for each class"},
        "manifest": {**file, "description": "instead: .csv or .jsonl with file and label"},
        "files": {"type": "array", "items": file, "description": "the images that it names"},
        "folder": folder,
    }
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "properties": form | properties}},
            "application/zip": {"schema": file},
            "application/json": {
                "schema": {"type": "object", "properties": {"folder": folder, **properties}}
            },
        },
    }


FINETUNE_BODY = _finetune_body()
