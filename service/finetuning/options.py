"""What can be asked of a fine-tuning job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from service.adapters.ref import NONE
from service.classify_options import parameter_error, split_templates

# As training.workflow names them; a test compares. Asking it would import torch.
Method = Literal[
    "auto",
    "head",
    "gda",
    "tip-adapter",
    "tip-adapter-f",
    "linear-probe",
    "logistic-probe",
    "prolip",
    "lora",
    "partial",
    "full",
]


class FinetuneOptions(BaseModel):
    """The parameters of `POST /v1/finetunes` beside the images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: str | None = Field(None, description="index that it is for (default: the server's)")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = Field(
        None, description="adapter that gets a new version (default: called like the index)"
    )
    method: Method = Field("auto", description="how to train; auto picks by the amount of data")
    val: float = Field(0.2, gt=0, lt=1, description="share of the images held out to judge it")
    views: int = Field(4, ge=1, le=64, description="variants of each training image")
    templates: Annotated[str | list[str], BeforeValidator(split_templates)] | None = Field(
        None, description="prompt templates of the classes (default: the index's)"
    )
    seed: int = Field(0, ge=0, description="of everything random")
    budget: str | None = Field(
        None, description="time for the checklist before training, such as 2min"
    )
    recipe: str | None = Field(None, description="a recipe as YAML, with method=head")
    skip_bad: bool = Field(False, description="leave out files that can't be read")
    callback_url: str | None = Field(None, description="address to tell when it has ended")

    @field_validator("name")
    @classmethod
    def _is_not_reserved(cls, value: str | None) -> str | None:
        if value == NONE:
            raise ValueError(f"{NONE!r} stands for no adapter; choose another name")
        return value


def read_finetune_options(fields: Mapping[str, Any]) -> FinetuneOptions:
    """Checked options. Raises: ParameterError naming the first one that can't be used."""
    try:
        return FinetuneOptions.model_validate(fields)
    except ValidationError as error:
        raise parameter_error(error, FinetuneOptions) from error
