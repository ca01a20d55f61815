"""What stands before every answer: `access` decides, and each answer tells the browser what the page may do."""

from importlib import resources
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demixd.web.access import BAD_PATH, HEADERS, NO_TOKEN, Gate, Refusal, parts_of
from demixd.web.app import NO_STORE, refused

_WELCOME = """<!doctype html><html lang="en"><meta charset="utf-8"><title>demixd</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="/icon.svg"><link rel="stylesheet" href="/app.css">
<main class="locked"><h1>demixd</h1><p><a href="/">Go on to the page</a></p></main>"""


class Guard:
    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[str, str] = {}
        for key, value in scope["headers"]:
            name, text = key.decode("latin-1"), value.decode("latin-1")
            headers[name] = f"{headers[name]}; {text}" if name == "cookie" and name in headers else text

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                marks = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *marks]}
            await send(message)

        answer: ASGIApp | None = self._answer(scope, headers)
        await (answer or self._app)(scope, receive, send_marked)

    def _answer(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """The answer that ends it here; None where the request goes on."""
        if parts_of(scope["raw_path"]) is None:
            return refused(BAD_PATH.status, BAD_PATH.sentence)
        method, path = scope["method"], scope["path"]
        refusal = self._gate.refusal(method, path, headers)
        is_page = path == "/" and method == "GET" and refusal in (None, NO_TOKEN)
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0] if is_page else ""
        if token and self._gate.opens(token):
            return self._welcome()
        if refusal is None:
            return None
        return _locked(refusal) if is_page else refused(refusal.status, refusal.sentence)

    def _welcome(self) -> Response:
        """Sets the cookie, and leads to the clean address.

        Not by a status of 303: a browser that has followed a link of another page would take no SameSite=Strict cookie along on
        it. From a page of ours it does.
        """
        headers = NO_STORE | {"set-cookie": self._gate.set_cookie, "refresh": "0; url=/"}
        return Response(_WELCOME, headers=headers, media_type="text/html; charset=utf-8")


def _locked(refusal: Refusal) -> Response:
    page = (resources.files("demixd.web.page") / "locked.html").read_bytes()
    return Response(page, refusal.status, NO_STORE, "text/html; charset=utf-8")
