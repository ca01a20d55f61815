"""What the machine puts in a job's way, and whether time can heal it. Pure."""

import errno

from demixd.errors import Code
from demixd.protocol.job import Error, Reason

WAITS = {Code.NO_SPACE: Reason.NO_SPACE, Code.OUTBOX_MISSING: Reason.OUTBOX_MISSING, Code.TRUNCATED: Reason.TRUNCATED}
"""Errors that time can heal: the job waits, and no attempt is charged."""

AWAY = (errno.ENOENT, errno.EROFS, errno.ENOTDIR, errno.ESTALE, errno.ENODEV, errno.ENOTCONN)
"""What a share says that is not there for the moment."""


def described(error: OSError) -> Error:
    """An error of the operating system as one of ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        code, message = Code.NO_SPACE, f"No space left for the work: {error.strerror}. Make room; it goes on then."
    elif error.errno in AWAY:
        code, message = Code.OUTBOX_MISSING, f"The outbox cannot be used: {error}. It goes on when it is back."
    else:
        code, message = Code.IO_ERROR, f"Reading or writing failed: {error}."
    return Error(code=code, message=message, detail=repr(error), retryable=True)
