"""A request that cannot be answered as it was asked: a status of HTTP, and a sentence for people."""

import errno

from demixd.client import text


class ProblemError(Exception):
    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


def of_disk(error: OSError, what: str) -> ProblemError:
    """An error of the operating system; `what` names the thing."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return ProblemError(507, f"There is no room left on the disk for {what}: make some.")
        case errno.EEXIST:
            return ProblemError(409, f"The inbox has {what} already: wait until it is done, or rename yours.")
        case errno.ENOENT | errno.ENOTDIR | errno.ELOOP | errno.EXDEV:
            return ProblemError(404, f"{what} is not there.")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return ProblemError(403, f"This page's user may not do that to {what}: {text.refusal(error)}.")
        case errno.ENAMETOOLONG | errno.EILSEQ | errno.EINVAL:
            return ProblemError(400, f"The disk cannot hold a name such as {what}.")
    return ProblemError(500, f"The disk failed at {what}: {error.strerror}.")
