"""Everything that service/ raises on purpose, and the tree of all errors.

Each room keeps its own errors in its `errors.py`. All have one root, so that one handler is enough
at each door: `service.http.problems.STATUS` maps them to HTTP statuses, the nearest ancestor in
that table decides, and what isn't in it is a 500; `service.cli.app.run` makes exit code 2 of a
`UserError` and 1 of the others.

    ClipdexError                            models.errors; a mistake that one line can tell
    |-- UserError                           the user can correct it
    |   |-- UnknownModelError, ModelUnavailableError, TemplateError           models.errors
    |   |-- ImageError                                                        models.images
    |   |-- CategoryError, PromptTooLongError, VectorError, LayoutError,
    |   |   PolicyError, ImageFolderError, IndexNameError, UnknownIndexError,
    |   |   UnknownVersionError, WrongModelError, ConflictError               indexer.errors
    |   |-- RecipeError, DataError, MissingExtraError, UnknownAdapterError,
    |   |   AdapterBusyError, FingerprintError, GateError, ExportError        training.errors
    |   |-- SettingsError, PortError, PathError
    |   |-- RequestError
    |   |   `-- ParameterError
    |   |-- UnsupportedMediaError, BodyTooLargeError, UploadError
    |   |-- IndexKindError, UnknownModelNameError, UnknownJobError, NoReportError
    |   |-- FolderError, CallbackError, HookUnusableError
    |   `-- AdapterInUseError
    |-- ModelBrokenError, BackendError                                        models.errors
    |-- BrokenIndexError, StorageError                                        indexer.errors
    |-- AdapterError, TrainingError, CheckpointError, HookError               training.errors
    |-- UnavailableError                    the same request may succeed later
    |   |-- NotReadyError, QueueFullError, EncoderFailedError
    |   `-- JobStoreError
    |-- UnforeseenError                     a bug; clients see "internal_error"
    |-- ClientGoneError, JobStoppedError
    `-- ServiceEndedError, RefusedError     of the demo

Errors of single topics that are raised and caught in one room stay beside their code
(`service.batch.errors`, say).
"""

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


class UploadError(UserError):
    """The uploaded images can't be trained on; every offender is named."""

    code = "invalid_upload"


class FolderError(UserError):
    """The folder to train on lies outside the folders that the settings allow."""

    code = "folder_not_allowed"


class CallbackError(UserError):
    """The callback's address isn't allowed, or nothing could be signed."""

    code = "callback_not_allowed"


class NoReportError(UserError):
    """The job has no report, or none yet."""

    code = "no_report"


class AdapterInUseError(UserError):
    """The adapter answers for an index."""

    code = "adapter_in_use"


class HookUnusableError(UserError):
    """A callback named in the settings isn't installed, or can't be used."""

    code = "callback_unusable"


class JobStoppedError(ClipdexError):
    """The job was told to stop."""

    code = "job_stopped"


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


class JobStoreError(UnavailableError):
    """The file of the fine-tuning jobs is damaged, or can't be written."""

    code = "jobs_unavailable"


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


class ServiceEndedError(ClipdexError):
    """The service ended when it should have served; it has said why on stderr.

    exit_code: its own; 2 where its user can mend it
    """

    code = "service_ended"

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RefusedError(ClipdexError):
    """The service did not answer for the drawings."""

    code = "refused"
