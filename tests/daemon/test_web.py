"""`demixd web`, the real program beside a real daemon: reading, dropping, asking, and whoever means no good."""

import contextlib
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("uvicorn", reason="config/requirements-web.lock is not installed: tests/run installs it")

from daemons import CLIENT_BEAT_S, ROOT, Daemon, make_song, running
from site_of import Site, serving

CALM = {"heartbeat_s": CLIENT_BEAT_S, "progress_s": 0.05}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("web")
    with running(folder, fake=True, status=CALM, limits={"max_bytes": 50_000_000}, profiles={"mp3": {}}) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def site(daemon: Daemon) -> Iterator[Site]:
    with serving(daemon.config) as site:
        yield site


@pytest.fixture(scope="module")
def sound(daemon: Daemon) -> bytes:
    return make_song(daemon.folder / "song.wav", 0.5).read_bytes()


@pytest.fixture(scope="module")
def song(daemon: Daemon, site: Site, sound: bytes) -> dict[str, Any]:
    """A song that is done, dropped through the page into a folder: its row there."""
    assert site.ask("PUT", "/inbox/B%C3%BChne/Lied%20%F0%9F%8E%B5.wav", sound).status == 201
    daemon.final("Bühne/Lied 🎵.wav")
    return row(site, "lied", "done")


def row(site: Site, query: str, *states: str) -> dict[str, Any]:
    """The song that a search finds, once it is in one of the states."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        found = site.ask("GET", f"/songs?q={quote(query)}").json["songs"]
        if found and found[0]["state"] in states:
            first: dict[str, Any] = found[0]
            return first
        time.sleep(0.1)
    raise AssertionError(f"{query} is not {states}")


def until(site: Site, part: str, condition: Any) -> Any:
    """The first event of that name which fulfils the condition."""
    for name, data in site.events(60):
        if name == part and condition(told := json.loads(data)):
            return told
    raise AssertionError(f"no such event: {part}")


# ---- what it is for


def test_a_song_through_the_page(daemon: Daemon, site: Site, song: dict[str, Any]) -> None:
    """It is dropped with its folders, is done, found, and its stems come back as the daemon wrote them."""
    told = site.ask("GET", f"/songs/{song['id']}").json
    assert [stem["name"] for stem in told["result"]["stems"]] == ["vocals", "instrumental"]
    for stem in told["result"]["stems"]:
        answer = site.ask("GET", stem["url"])
        assert answer.headers["content-type"] == stem["type"] == "audio/wav"
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.data == (daemon.outbox / "Bühne/Lied 🎵" / stem["file"]).read_bytes()
        part = site.ask("GET", stem["url"], range="bytes=10-19", if_range=answer.headers["etag"])
        assert (part.status, part.data) == (206, answer.data[10:20])
        assert site.ask("GET", stem["url"], if_none_match=answer.headers["etag"]).status == 304
        assert site.ask("GET", stem["url"], range=f"bytes={len(answer.data)}-").status == 416
    assert site.ask("GET", told["result"]["peaks"]).json["channels"] == 2


def test_all_of_it_as_a_zip(daemon: Daemon, site: Site, song: dict[str, Any]) -> None:
    """One file has all stems, and what lies beside them."""
    answer = site.ask("GET", f"/songs/{song['id']}/all.zip")
    assert "Lied%20%F0%9F%8E%B5.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            assert archive.read(name) == (daemon.outbox / "Bühne" / name).read_bytes()
        assert {"Lied 🎵/vocals.wav", "Lied 🎵/peaks.json"} <= set(archive.namelist())


def test_what_a_head_costs(site: Site, song: dict[str, Any]) -> None:
    """HEAD has the same headers, and no body."""
    url = site.ask("GET", f"/songs/{song['id']}").json["result"]["stems"][0]["url"]
    head, whole = site.ask("HEAD", url), site.ask("GET", url)
    assert (head.data, head.headers["content-length"], head.headers["etag"]) == (
        *(b"", str(len(whole.data)), whole.headers["etag"]),
    )


def test_a_song_that_runs(daemon: Daemon, site: Site, sound: bytes) -> None:
    """Its progress is told as it comes; it is cancelled, and brought back, with its options."""
    daemon.hold.touch()
    try:
        assert site.ask("PUT", "/inbox/slow.wav?stems=vocals&profile=mp3", sound).status == 201
        told = until(site, "now", lambda now: now["running"] and now["running"][0]["fraction"] > 0)
        (runs,) = told["running"]
        assert (runs["name"], runs["state"], runs["can_cancel"]) == ("slow.wav", "running", True)
        assert site.ask("POST", f"/songs/{runs['id']}/cancel", {}).status == 200
        cancelled = row(site, "slow", "cancelled")
        assert site.ask("POST", f"/songs/{runs['id']}/cancel", {}).status == 409
        daemon.quiet()
    finally:
        daemon.hold.unlink()
    assert site.ask("POST", f"/songs/{cancelled['id']}/again", {}).json["said"] == "back in the inbox, with its options"
    done = site.ask("GET", f"/songs/{row(site, 'slow', 'done')['id']}").json
    assert (done["stems"], done["profile"]) == (["vocals"], "mp3")
    assert site.ask("POST", f"/songs/{done['id']}/again", {}).status == 409


def test_pause_and_priority(daemon: Daemon, site: Site, sound: bytes) -> None:
    """While there is a pause songs queue; one gets another priority and keeps its other options; then they go on."""
    assert site.ask("POST", "/pause", {"now": True}).json == {"said": "paused"}
    assert (daemon.inbox / ".pause").read_text() == "now\n"
    until(site, "now", lambda now: now["pause"]["by"] == "file" and now["health"]["mood"] == "paused")
    assert site.ask("PUT", "/inbox/first.wav?stems=vocals", sound + b"1").status == 201
    assert site.ask("PUT", "/inbox/second.wav", sound + b"2").status == 201
    told = until(site, "queue", lambda queue: len(queue["queue"] + queue["waiting"]) == 2)
    ids = {each["name"]: each["id"] for each in told["queue"] + told["waiting"]}
    for name in ids:
        assert site.ask("POST", f"/songs/{ids[name]}/priority", {"priority": 90}).status == 200
        assert site.ask("GET", f"/songs/{ids[name]}").json["priority"] == 90
    assert json.loads((daemon.inbox / "first.wav.job.json").read_text()) == {"stems": ["vocals"], "priority": 90}
    assert site.ask("POST", f"/songs/{ids['first.wav']}/priority", {"priority": 1001}).status == 400
    assert site.ask("DELETE", "/pause").json == {"said": "goes on"}
    assert not (daemon.inbox / ".pause").exists()
    for name in ids:
        daemon.final(name)
    assert site.ask("POST", f"/songs/{row(site, 'first', 'done')['id']}/priority", {"priority": 1}).status == 409


def test_a_song_that_has_failed(daemon: Daemon, site: Site) -> None:
    """It says what is wrong, and what to do."""
    assert site.ask("PUT", "/inbox/noise.mp3", b"no sound at all" * 100).status == 201
    told = site.ask("GET", f"/songs/{row(site, 'noise', 'failed')['id']}").json
    assert told["code"] == "bad-audio"
    assert told["error"]["message"].startswith("The song is no audio")
    assert told["error"]["remedy"].startswith("It is not audio")


def test_names_of_others(daemon: Daemon, site: Site, sound: bytes) -> None:
    """Marks that turn the direction of a text are shown for what they are; everything else comes as it is."""
    for name in ("<b>bold & \"x\" 'y'.wav", "\u202egpj.evil.wav", "שלום.wav", "a\u2028b.wav"):
        assert site.ask("PUT", f"/inbox/names/{quote(name)}", sound + name.encode()).status == 201
        daemon.final(f"names/{name}")
    names = {each["name"] for each in site.ask("GET", "/songs?q=names/").json["songs"]}
    assert names == {
        "names/<b>bold & \"x\" 'y'.wav",
        "names/\ufffdgpj.evil.wav",
        "names/שלום.wav",
        "names/a\ufffdb.wav",
    }


def test_events_follow_what_changes(daemon: Daemon, site: Site) -> None:
    """At first there is all, and then nothing until something changes."""
    names = [name for name, _ in zip_until_silence(site, 1.5)]
    assert sorted(names[:3]) == ["now", "queue", "songs"]


def zip_until_silence(site: Site, seconds: float) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(TimeoutError):
        yield from site.events(seconds)


# ---- who may not


@pytest.mark.parametrize(
    "path", ["/", "/app.js", "/events", "/songs", "/settings", "/songs/1/files/x", "/songs/1/all.zip"]
)
def test_without_the_token(site: Site, path: str) -> None:
    """Nothing is read, whether there is such a thing or not."""
    for cookie in ("", "demixd=x"):
        assert site.ask("GET", path, cookie=cookie).status == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", "/pause"), ("DELETE", "/pause"), ("PUT", "/inbox/evil.wav"), ("POST", "/songs/ID/cancel")),
        *(("POST", "/songs/ID/again"), ("POST", "/songs/ID/priority")),
    ],
)
def test_nothing_is_done_for_others(daemon: Daemon, site: Site, song: dict[str, Any], method: str, path: str) -> None:
    """Not without the token, from another origin, by another name, from no origin, or by GET."""
    path = path.replace("ID", song["id"])
    before = sorted(daemon.inbox.rglob("*"))
    body = b"RIFF" if method == "PUT" else {"priority": 1}
    assert site.ask(method, path, body, cookie="").status == 401
    assert site.ask(method, path, body, origin="http://evil.example").status == 403
    assert site.ask(method, path, body, origin="").status == 403
    assert site.ask(method, path, body, origin="null").status == 403
    assert site.ask(method, path, body, host="evil.example", origin="http://evil.example").status == 421
    assert site.ask("GET", path).status in (404, 405)
    assert site.ask("HEAD", path).status in (404, 405)
    assert sorted(daemon.inbox.rglob("*")) == before


def test_another_host(site: Site) -> None:
    """A name of somebody else's that leads here (DNS rebinding) is not answered, with the token either."""
    for host in ("evil.example", f"evil.example:{site.port}", "127.0.0.1.evil.example"):
        assert site.ask("GET", "/songs", host=host).status == 421
    for host in ("localhost", "127.0.0.1:1", "192.168.7.7", f"{socket.gethostname()}.local"):
        assert site.ask("GET", "/songs", host=host).status == 200


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../../../state/ledger.sqlite3",
            "..%2f..%2fstate/ledger.sqlite3",
            "%2e%2e/stems.json",
            "./vocals.wav",
            "vocals.wav/",
        ),
        *(
            "stems.json",
            "secret.wav",
            "link.wav",
            "linked/inner.wav",
            "/etc/passwd",
            "vocals%2ewav%00",
            "",
            "VOCALS.WAV",
        ),
        *("%5c..%5cvocals.wav", "fifo.wav", "peaks.json%2f..%2fvocals.wav"),
    ],
)
def test_files_that_are_not_listed(daemon: Daemon, site: Site, song: dict[str, Any], name: str) -> None:
    """What the manifest does not list is not served, and neither are links, folders above, or names that only decode to one."""
    folder = daemon.outbox / "Bühne/Lied 🎵"
    (folder / "secret.wav").write_text("secret")
    for link in ("link.wav", "linked"):
        if not (folder / link).is_symlink():
            (folder / link).symlink_to("/etc/passwd" if link == "link.wav" else "/etc")
    answer = site.ask("GET", f"/songs/{song['id']}/files/{name}")
    assert answer.status in (400, 404)
    assert b"root:" not in answer.data


def test_a_manifest_of_others(daemon: Daemon, site: Site, sound: bytes) -> None:
    """Whoever writes a manifest that lists links, and files elsewhere, has none of them served; nor whoever forges a status."""
    assert site.ask("PUT", "/inbox/forged.wav", sound + b"forged").status == 201
    daemon.final("forged.wav")
    folder = daemon.outbox / "forged"
    manifest = json.loads((folder / "stems.json").read_text())
    (folder / "link.wav").symlink_to("/etc/passwd")
    os.mkfifo(folder / "fifo.wav")
    names = ["link.wav", "fifo.wav", "../Bühne/Lied 🎵/vocals.wav", "/etc/passwd", "..", "."]
    manifest["files"] += [{**manifest["files"][0], "name": name} for name in names]
    manifest["extras"] = [{"kind": "page", "name": "page.html", "bytes": 1, "sha256": ""}]
    (folder / "page.html").write_text("<script>alert(1)</script>")
    (folder / "stems.json").write_text(json.dumps(manifest))
    song = row(site, "forged", "done")
    told = site.ask("GET", f"/songs/{song['id']}").json
    assert len(told["result"]["stems"]) == 2 + len(names)
    for name in names:
        assert site.ask("GET", f"/songs/{song['id']}/files/{quote(name)}").status in (400, 404)
        assert site.ask("GET", f"/songs/{song['id']}/files/{quote(name, safe='')}").status in (400, 404)
    page = site.ask("GET", f"/songs/{song['id']}/files/page.html")
    assert page.headers["content-type"] == "application/octet-stream"
    assert page.headers["content-disposition"].startswith("attachment")
    status = daemon.spool / "status" / "forged.wav.json"
    sidecar = json.loads(status.read_text())
    for where in ("/etc", "../../etc", "..", ".demixd", f".demixd/{'0' * 32}/out", "a\0b", ""):
        sidecar["output"]["dir"] = where
        status.write_text(json.dumps(sidecar))
        time.sleep(0.3)
        assert site.ask("GET", f"/songs/{song['id']}").json["result"] is None
        assert site.ask("GET", f"/songs/{song['id']}/files/vocals.wav").status == 404
    shutil.rmtree(folder)
    status.unlink()


@pytest.mark.parametrize(
    "path", ["/inbox/../x.wav", "/inbox/..%2fx.wav", "/inbox/%2e%2e/x.wav", "/inbox//x.wav", "/inbox/a%5cx.wav"]
)
def test_uploads_that_leave_the_inbox(daemon: Daemon, site: Site, sound: bytes, path: str) -> None:
    """A path that leads out of the inbox, or might to somebody, is refused."""
    before = sorted(daemon.spool.rglob("x.wav"))
    assert site.ask("PUT", path, sound).status == 400
    assert sorted(daemon.spool.rglob("x.wav")) == before


# ---- too much of it


def raw(site: Site, head: str) -> socket.socket:
    """A connection that has sent this and says no more."""
    line = socket.create_connection(("127.0.0.1", site.port), 30)
    line.sendall(head.encode())
    return line


def put(site: Site, name: str, *headers: str) -> str:
    own = (f"Host: 127.0.0.1:{site.port}", f"Origin: {site.origin}", f"Cookie: {site.cookie}")
    return "\r\n".join([f"PUT /inbox/{name} HTTP/1.1", *own, *headers, "", ""])


def answer_of(line: socket.socket) -> bytes:
    """What comes until the other end closes, or has said its status at least."""
    data = b""
    with contextlib.suppress(OSError):
        while piece := line.recv(65536):
            data += piece
    return data


def test_ten_gigabytes(daemon: Daemon, site: Site) -> None:
    """Announced they are refused at once; sent without a word of how much, as soon as they are too much. Memory stays flat."""
    before = site.memory_bytes
    with raw(site, put(site, "big.wav", f"Content-Length: {10**10}")) as line:
        assert answer_of(line).startswith(b"HTTP/1.1 413")
    with raw(site, put(site, "big.wav", "Transfer-Encoding: chunked")) as line:
        sent, chunk = 0, b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        with contextlib.suppress(OSError):
            while sent < 10**10:
                line.sendall(chunk)
                sent += 1 << 20
        assert 50_000_000 <= sent < 100_000_000
    time.sleep(0.5)
    assert list(daemon.inbox.rglob("*big.wav*")) == []
    assert site.memory_bytes - before < 30_000_000


def test_an_upload_that_breaks_off(daemon: Daemon, site: Site) -> None:
    """It leaves nothing."""
    with raw(site, put(site, "half.wav", "Content-Length: 1000000") + "RIFF" * 1000):
        daemon.until(lambda: list(daemon.inbox.glob(".half.wav.*.part")), "it is being written")
    daemon.until(lambda: not list(daemon.inbox.glob("*half.wav*")), "nothing is left")


def test_connections_that_hang(site: Site) -> None:
    """Four hundred that say nothing, or half a head, keep nobody out; memory stays flat."""
    before = site.memory_bytes
    heads = ("", "GET / HTTP/1.1\r\nHost: x", put(site, "hang.wav", "Content-Length: 1000")[:-4])
    with contextlib.ExitStack() as stack:
        for number in range(400):
            stack.enter_context(raw(site, heads[number % 3]))
        for _ in range(5):
            assert site.ask("GET", "/songs").status == 200
        assert site.memory_bytes - before < 40_000_000


@pytest.mark.daily
def test_connections_that_hang_are_closed(site: Site) -> None:
    """One that has sent no whole head in ten seconds is closed, also by a byte now and then."""
    with raw(site, "GET / HTTP/1.1\r\n") as line:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 30:
                line.sendall(b"a")
                time.sleep(0.5)
        assert 8 < time.monotonic() - began < 20


def test_heads_and_bodies_that_are_too_large(site: Site) -> None:
    """A head of megabytes, and a wish of more than a few words, are refused."""
    with raw(site, "GET / HTTP/1.1\r\nHost: x\r\nX: ") as line:
        with contextlib.suppress(OSError):
            for _ in range(100):
                line.sendall(b"a" * 10_000)
        assert answer_of(line)[:12] in (b"HTTP/1.1 400", b"")
    assert site.ask("POST", "/pause", b'{"now": true' + b" " * 5000 + b"}").status == 413
    for body in (b"[]", b"{", b'{"now": 1}', b'{"x": 1}', b"\xff", b"[" * 4000):
        assert site.ask("POST", "/pause", body).status == 400


def test_songs_that_are_not_known(site: Site) -> None:
    """What has gone, or never was, is told of with a sentence."""
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/again"), ("GET", "/all.zip")):
        answer = site.ask(method, f"/songs/{'0' * 32}{path}", {} if method == "POST" else None)
        assert (answer.status, answer.json["error"][-1]) == (404, ".")
    assert site.ask("GET", "/nothing").json == {"error": "There is nothing at that address."}


# ---- the program


def test_the_link(site: Site) -> None:
    """`--token` prints it, and a QR code; the token is this user's alone."""
    done = site.command("--token")
    assert done.stdout.splitlines()[0] == site.link
    assert len(done.stdout.splitlines()) > 15
    assert stat.S_IMODE((site.state / "demixd-web" / "token").stat().st_mode) == 0o600
    answer = site.ask("GET", f"/?token={site.token}", cookie="")
    assert (answer.status, answer.headers["refresh"]) == (200, "0; url=/")
    assert site.ask("GET", "/?token=wrong", cookie="").status == 401
    assert site.ask("GET", "/songs?token=" + site.token, cookie="").status == 401


def test_a_page_of_its_own_life(daemon: Daemon, tmp_path: Path) -> None:
    """It needs no daemon; the token outlives it; a port that is taken, and an address that is none, are told of."""
    config = tmp_path / "demixd.toml"
    config.write_text(f'[paths]\nspool = "{tmp_path}/spool"\nstate = "{tmp_path}/state"\n')
    with serving(config) as site:
        told = until(site, "now", lambda _: True)
        assert told["health"]["mood"] == "ill"
        assert "start it with" in told["health"]["sentence"]
        token = site.token
        taken = site.command("--listen", f"127.0.0.1:{site.port}")
        assert (taken.returncode, "another program has it" in taken.stderr) == (1, True)
        assert site.command("--listen", "nowhere").returncode == 2
        with contextlib.suppress(TimeoutError):
            for _ in site.events(1):
                break
    with serving(config) as site:
        assert site.token == token


def test_without_its_packages(tmp_path: Path) -> None:
    """Where they are not installed, a sentence says how they are."""
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError('no', name='starlette')")
    config = tmp_path / "demixd.toml"
    config.write_text(f'[paths]\nspool = "{tmp_path}/spool"\nstate = "{tmp_path}/state"\n')
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT / 'daemon'}"}
    command = [sys.executable, "-m", "demixd", "--config", str(config), "web"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "demixd: the page needs packages that are not here (starlette): `sudo systemd/install --web`"
    )


def test_everybody_may(tmp_path: Path) -> None:
    """With allow = "all" the page is open, and other pages still change nothing."""
    config = tmp_path / "demixd.toml"
    (tmp_path / "spool" / "inbox").mkdir(parents=True)
    config.write_text(f'[paths]\nspool = "{tmp_path}/spool"\nstate = "{tmp_path}/state"\n[web]\nallow = "all"\n')
    with serving(config) as site:
        assert site.ask("GET", "/", cookie="").status == 200
        assert site.ask("POST", "/pause", {}, cookie="").status == 200
        assert site.ask("POST", "/pause", {}, cookie="", origin="http://evil.example").status == 403
        assert not (site.state / "demixd-web" / "token").exists()
        assert site.command("--token").stdout.splitlines()[0] == f"{site.origin}/"
