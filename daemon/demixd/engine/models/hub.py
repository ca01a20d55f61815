"""The Hugging Face hub: the facts of a file, and the file's bytes from any point on.

Requests, redirects, proxies, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are huggingface_hub's. Its `hf_hub_download` is not
used: since version 1 it downloads into a file with a random name and deletes it on any failure, so that nothing is resumed
after a stop or a kill; it compares no hashes, and bounds no sizes. Nothing is reported to the hub.
huggingface_hub is imported in the functions: that takes a third of a second, and most commands never fetch.
"""

import re
from collections.abc import Iterator

import msgspec

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")
NOT_THERE = (401, 403, 404)
"""The statuses of what does not exist or is not public: the hub answers 401 where it has no such repository."""


class HubError(Exception):
    """The hub did not deliver. `reason` and `remedy` are parts of a sentence; `final`: a retry would not help."""

    def __init__(self, reason: str, remedy: str, *, final: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.final = final


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a file, as the hub states them; `size` in bytes."""

    name: str
    url: str
    size: int
    hash: str
    """The sha256 of a file in large file storage, git's sha1 of any other."""
    commit: str

    @property
    def sha256(self) -> str:
        """Raises HubError where the hub states none."""
        if not _SHA256.fullmatch(self.hash):
            raise HubError(f"it states no sha256 for {self.name}", "use another HF_ENDPOINT", final=True)
        return self.hash


def default_endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def is_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def ask(endpoint: str, repo: str, name: str, revision: str, *, max_bytes: int) -> RemoteFile:
    """The facts of the file `name`, by a HEAD request. Raises HubError, also where it is empty or over `max_bytes`."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    # Otherwise torch's version goes into the user agent, and huggingface_hub asks the hub for programs to look for.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    url = hf_hub_url(repo, name, revision=revision, endpoint=endpoint)
    try:
        facts = get_hf_file_metadata(url, endpoint=endpoint, library_name="demixd")
    except _http_error() as error:
        raise _translated(error) from error
    other = "use another HF_ENDPOINT"
    if facts.etag is None or not (_SHA256.fullmatch(facts.etag) or _GIT_SHA1.fullmatch(facts.etag)):
        raise HubError(f"it states no hash for {name}", other, final=True)
    if facts.size is None or not 0 < facts.size <= max_bytes:
        raise HubError(f"it says that {name} has {facts.size} bytes", other, final=True)
    return RemoteFile(name=name, url=url, size=facts.size, hash=facts.etag, commit=facts.commit_hash or revision)


def stream(remote: RemoteFile, start: int) -> Iterator[tuple[int, bytes]]:
    """Chunks with their positions, from byte `start`; from 0 where the hub ignores ranges. Raises HubError."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # it has no __all__

    headers = build_hf_headers(library_name="demixd") | {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        # When the hub redirects to its storage, the client keeps the range and drops the token.
        with get_session().stream(
            "GET", remote.url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as answer:
            answer.raise_for_status()
            position = start if answer.status_code == 206 else 0
            for chunk in answer.iter_bytes():
                yield position, chunk
                position += len(chunk)
    except _http_error() as error:
        raise _translated(error) from error


def _http_error() -> type[Exception]:
    """The base class of the HTTP library below: httpx under huggingface_hub 1, httpx2 under 2."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _translated(error: Exception) -> HubError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None:
        return HubError(f"{type(error).__name__}: {error}", "check the network and HF_ENDPOINT", final=False)
    remedy = "check HF_ENDPOINT" if status in NOT_THERE else "try later"
    return HubError(f"it answered {status}", remedy, final=True)
