"""Everything that service/ raises on purpose."""

from __future__ import annotations

from models.errors import ClipdexError, UserError


class SettingsError(UserError):
    """A setting has a value that can't be used."""

    code = "invalid_setting"


class RequestError(UserError):
    """The request is malformed: a parameter is missing, unknown, or out of range."""

    code = "invalid_request"


class ParameterError(RequestError):
    """A parameter has a value that can't be used."""


class UnsupportedMediaError(UserError):
    """The body is of a kind that this path doesn't take."""

    code = "unsupported_media_type"


class BodyTooLargeError(UserError):
    """The body is larger than this server takes."""

    code = "body_too_large"


class IndexKindError(UserError):
    """The index holds images where categories are needed, or the other way round."""

    code = "wrong_index_kind"


class UnknownModelNameError(UserError):
    """The request asks for a model that this server doesn't serve."""

    code = "model_not_found"


class UnknownJobError(UserError):
    """There is no such job, or it has been forgotten."""

    code = "unknown_job"


class UnavailableError(ClipdexError):
    """The server can't answer just now; the same request may succeed later.

    retry_after: seconds until it is worth trying again
    """

    code = "unavailable"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReadyError(UnavailableError):
    """The model is still being loaded, or loaded again."""

    code = "not_ready"


class QueueFullError(UnavailableError):
    """More images wait than the queue may hold."""

    code = "queue_full"


class EncoderFailedError(UnavailableError):
    """The encoder died while it held this image."""

    code = "encoder_failed"


class UnforeseenError(ClipdexError):
    """Something failed that should not; the log has the details."""

    code = "internal_error"


class ClientGoneError(ClipdexError):
    """The client hung up before it was answered."""

    code = "client_gone"


class PortError(UserError):
    """The address can't be listened on."""

    code = "port_unavailable"


class PathError(UserError):
    """A file or folder named on the command line can't be used."""

    code = "invalid_path"
