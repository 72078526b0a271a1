"""What a batch job raises on purpose."""

from __future__ import annotations

from models.errors import ClipdexError, UserError


class InputError(UserError):
    """An input can't be listed: it doesn't exist, holds no images, or is of an unknown kind."""

    code = "invalid_input"


class ItemError(UserError):
    """One image can't be read; its row says why, and the others go on."""

    code = "unreadable_image"


class OutputError(UserError):
    """The results can't be written as asked."""

    code = "invalid_output"


class ResumeError(UserError):
    """What an interrupted run left belongs to another one, or to one that is still at work."""

    code = "cannot_resume"


class JournalError(ClipdexError):
    """What an interrupted run left is damaged."""

    code = "journal_broken"


class StorageUnreachableError(ClipdexError):
    """Remote storage doesn't answer; the run can go on once it does."""

    code = "storage_unreachable"


class RowFailedError(ClipdexError):
    """An image couldn't be read in a run that was to stop at the first."""

    code = "row_failed"
