"""Everything that indexer/ raises on purpose."""

from __future__ import annotations

from models.errors import ClipdexError, UserError


class CategoryError(UserError):
    """The list of categories can't be used as it stands."""

    code = "invalid_categories"


class PromptTooLongError(UserError):
    """A prompt is longer than the model's text tower reads."""

    code = "prompt_too_long"


class VectorError(UserError):
    """The query vectors have the wrong shape, or hold values that aren't finite."""

    code = "invalid_vectors"


class LayoutError(UserError):
    """The wanted recall or memory can't be had for so many vectors."""

    code = "invalid_layout"


class IndexNameError(UserError):
    """This can't be the name of an index."""

    code = "invalid_index_name"


class UnknownIndexError(UserError):
    """No index has this name."""

    code = "unknown_index"


class UnknownVersionError(UserError):
    """The index has no such version."""

    code = "unknown_version"


class WrongModelError(UserError):
    """The index was built with another model's vectors."""

    code = "index_of_other_model"


class ConflictError(UserError):
    """Someone else is changing the same index, or has changed it meanwhile."""

    code = "conflict"


class BrokenIndexError(ClipdexError):
    """The index's files are damaged, incomplete or of an unknown format."""

    code = "index_broken"


class StorageError(ClipdexError):
    """The index can't be written: the disk is full, say, or read-only."""

    code = "storage_failed"


class PolicyError(UserError):
    """The rules for accepting an answer contradict each other or are out of range."""

    code = "invalid_policy"


class ImageFolderError(UserError):
    """The folder or list of images can't be used as it stands."""

    code = "invalid_images"
