"""The shapes of bodies and answers, as the API's description shows them."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from indexer import ImageMatch, IndexInfo
from service.http.problems import ErrorObject, error_object
from service.serving.answers import ImageAnswer
from service.serving.jobs import Job
from service.serving.options import ClassifyOptions


class Body(BaseModel):
    """What a client sends; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class ImageResult(ImageAnswer):
    """One image's result; `file` if the upload had a name, `error` if it could not be read."""

    file: str | None = None
    error: ErrorObject | None = None


class ClassifyAnswer(BaseModel):
    """The results in the order of the images; `index` is null for ad-hoc labels."""

    model: str
    index: str | None
    index_version: int | None
    adapter: str | None = Field(None, description="NAME@VERSION that took part")
    results: list[ImageResult]
    warnings: list[str] = Field([], description="labels of which the model knows no word")


class IndexBody(Body):
    """A whole index. A category is a label, or an object with a label."""

    categories: list[str | dict[str, Any]] = Field(
        description="labels, or objects with label, prompts, synonyms, group, background, metadata"
    )
    templates: str | list[str] | None = Field(
        None, description="prompt templates: a set's name, or own ones with {}"
    )
    recall: float | None = Field(
        None, gt=0, le=1, description="of a large index: share of the best ten to find"
    )
    memory_mb: float | None = Field(
        None, gt=0, description="of a large index: most that its vectors may take"
    )


class ChangeBody(Body):
    """Categories to add (or replace, by label) and labels to remove."""

    add: list[str | dict[str, Any]] = []
    remove: list[str] = []


class RollbackBody(Body):
    """The version that becomes current again; by default the one before the current one."""

    version: int | None = Field(None, ge=1)


class BriefIndex(BaseModel):
    """An index: a version, the versions kept, and what it was made of."""

    name: str
    version: int
    versions: list[int]
    kind: Literal["categories", "images"]
    count: int
    model: str
    created: str

    @classmethod
    def of(cls, info: IndexInfo, **more: Any) -> Self:
        """One version of an index. more: further fields of a subclass."""
        manifest = info.manifest
        return cls(
            name=info.name,
            version=info.version,
            versions=list(info.versions),
            kind=manifest.kind,
            count=manifest.count,
            model=manifest.model.id,
            created=manifest.created,
            **more,
        )


class IndexAnswer(BriefIndex):
    """All that is known of an index.

    `served_version` is the one that answers, null until the first request, and `adapter` the
    adapter that answers with it; `problem` says why the current version, or its adapter, doesn't.
    """

    served_version: int | None
    adapter: str | None
    problem: str | None
    rows: int
    dim: int
    fingerprint: str
    templates: dict[str, Any] | None
    layout: dict[str, Any]
    calibration: dict[str, Any] | None
    bytes: int
    warnings: list[str] = Field([], description="labels of which the model knows no word")


class IndexListAnswer(BaseModel):
    """All indexes."""

    indexes: list[BriefIndex]


class VersionAnswer(BriefIndex):
    """One kept version; `current`: it is the one that answers."""

    current: bool


class VersionsAnswer(BaseModel):
    """The kept versions of an index, oldest first."""

    name: str
    versions: list[VersionAnswer]


class CategoriesAnswer(BaseModel):
    """Some of an index's categories."""

    version: int | None
    total: int
    categories: list[dict[str, Any]]


class DeletedAnswer(BaseModel):
    """What was deleted."""

    name: str
    deleted: Literal[True] = True


class ProgressAnswer(BaseModel):
    """How far a job is; `done` of `total` in the stage's own unit."""

    stage: str
    done: int
    total: int


class JobAnswer(BaseModel):
    """A job; `result` once it has succeeded, `error` once it has failed."""

    id: str
    kind: str
    index: str
    state: Literal["queued", "running", "succeeded", "failed"]
    created: str
    finished: str | None
    progress: ProgressAnswer | None
    result: dict[str, Any] | None
    error: ErrorObject | None

    @classmethod
    def of(cls, job: Job) -> JobAnswer:
        """The job as it is now."""
        step, progress = job.progress, None
        if step is not None:
            progress = ProgressAnswer(stage=step.stage, done=step.done, total=step.total)
        return cls(
            id=job.id,
            kind=job.kind,
            index=job.index,
            state=job.state,
            created=job.created,
            finished=job.finished,
            progress=progress,
            result=job.result,
            error=None if job.error is None else error_object(job.error),
        )


class JobListAnswer(BaseModel):
    """Jobs, the newest first."""

    jobs: list[JobAnswer]


class EmbeddingsBody(Body):
    """OpenAI's request, with `modality` beside it."""

    model: str | None = Field(None, description="id of this server's model")
    input: str | list[str] = Field(description="texts, or images in base64 or as data URIs")
    modality: Literal["text", "image"] = "text"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="only the model's own length is possible")
    user: str | None = Field(None, description="accepted for OpenAI's clients, not used")


class EmbeddingAnswer(BaseModel):
    """One vector: floats, or base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class UsageAnswer(BaseModel):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """OpenAI's answer."""

    object: Literal["list"] = "list"
    model: str
    data: list[EmbeddingAnswer]
    usage: UsageAnswer


class LivenessAnswer(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class ReadinessAnswer(BaseModel):
    """Whether classification would be answered now.

    `reason` says why not; `problems`, by index, why this model can't use its current version.
    """

    status: Literal["ready", "preparing", "loading", "restarting", "stuck", "failed", "stopped"]
    model: str
    reason: str | None = None
    problems: dict[str, str] = {}


class LandingAnswer(BaseModel):
    """What this is, and where things are."""

    name: str
    model: str
    links: dict[str, str]


class SearchOptions(Body):
    """The parameters of `POST /v1/search` beside the images."""

    index: str = Field(description="an index of images")
    text: str | list[str] | None = Field(None, description="words to search by, one or several")
    top_k: int = Field(10, ge=1, le=1000, description="images for each query")


class ImageMatchAnswer(BaseModel):
    """One image: its path in the folder that was indexed, its cosine, its size in pixels."""

    path: str
    score: float
    rank: int
    width: int
    height: int

    @classmethod
    def of(cls, match: ImageMatch) -> ImageMatchAnswer:
        """One match of a search."""
        return cls.model_construct(
            path=match.path,
            score=match.score,
            rank=match.rank,
            width=match.width,
            height=match.height,
        )


class QueryAnswer(BaseModel):
    """One query's images; `text` or `file` says which query, `error` why there are none."""

    text: str | None = None
    file: str | None = None
    matches: list[ImageMatchAnswer]
    error: ErrorObject | None = None


class SearchAnswer(BaseModel):
    """The results in the order of the queries."""

    model: str
    index: str
    index_version: int
    results: list[QueryAnswer]


def _image_body(options: type[BaseModel], *, needed: bool) -> dict[str, Any]:
    """The bodies that carry images, which handlers read themselves: FastAPI knows one kind only."""
    properties = options.model_json_schema()["properties"]
    picture = {"type": "string", "description": "base64, or a data URI"}
    images = {"type": "array", "items": picture, "description": "several of them"}
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form: dict[str, Any] = {"type": "object", "properties": {"files": files, **properties}}
    if needed:
        form["required"] = ["files"]
    listed = {"image": picture, "images": images, **properties}
    plain = {"schema": {"type": "string", "format": "binary"}}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form},
            "application/json": {"schema": {"type": "object", "properties": listed}},
            "application/octet-stream": plain,
            "image/*": plain,
        },
    }


CLASSIFY_BODY = _image_body(ClassifyOptions, needed=True)
SEARCH_BODY = _image_body(SearchOptions, needed=False)
INDEX_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": IndexBody.model_json_schema()},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": ".txt, .csv, .json or .jsonl",
                    },
                    "templates": {"type": "string"},
                    "recall": {"type": "number"},
                    "memory_mb": {"type": "number"},
                },
                "required": ["file"],
            }
        },
        "text/plain": {"schema": {"type": "string", "description": "one label a line"}},
        "text/csv": {"schema": {"type": "string", "description": "with a column named label"}},
        "application/x-ndjson": {"schema": {"type": "string"}},
    },
}
