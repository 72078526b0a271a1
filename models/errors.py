"""Everything that models/ raises on purpose.

`ClipdexError` is the root of every room's errors: what it says is meant for the user, in one
line that ends with what to do next.
"""

from __future__ import annotations


class ClipdexError(Exception):
    """A mistake or a mishap that can be told to the user in one line.

    param: the argument, field or option at fault, where there is one.
    """

    code = "error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class UserError(ClipdexError):
    """The request can't be served as it stands; the user can mend it."""

    code = "invalid_request"


class UnknownModelError(UserError):
    """No model has this name."""

    code = "unknown_model"


class ModelUnavailableError(UserError):
    """The model exists, but its weights are neither here nor to be fetched now."""

    code = "model_unavailable"


class ModelBrokenError(ClipdexError):
    """The model's files are damaged, incomplete or of an unknown kind."""

    code = "model_broken"


class BackendError(ClipdexError):
    """No backend could run this model in the precision asked for."""

    code = "backend_failed"


class TemplateError(UserError):
    """The prompt templates can't be used, or no set has this name."""

    code = "invalid_templates"
