"""A machine with a systemd of its own: this one's files under an overlay, booted by systemd-nspawn in a few seconds.

    IMAGE (ext4, sparse)     everything that the machine writes
    overlay of / and IMAGE   what it sees; this machine's own files stay as they are
    PACKAGES                 the packages that these tests run with, to be read

What an installation, a user or an earlier test has left on this machine under the names of these tests is not in it. It
shares this machine's network, as a container may, so that packages can be installed; it has its own processes, mounts,
cgroups and journal. The devices of this machine are never in it.
"""

import contextlib
import functools
import itertools
import json
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemons import PATIENCE_S

GIGABYTES = 24
"""How much the machine may write; the file is sparse."""
PACKAGES = "/usr/lib/packages-of-tests"
_numbers = itertools.count()

BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/disk /run/tree
mount -o loop "$IMAGE" /run/disk
mkdir -p /run/disk/upper /run/disk/work
mount -t overlay overlay -o "lowerdir=/,upperdir=/run/disk/upper,workdir=/run/disk/work" /run/tree
for name in demixd anna bob; do
    for file in passwd shadow group gshadow; do
        if [ -f /run/tree/etc/$file ]; then sed -i "/^$name:/d" /run/tree/etc/$file; fi
    done
    rm -rf /run/tree/home/$name /run/tree/var/mail/$name
done
rm -rf /run/tree/opt/demixd /run/tree/srv/demixd /run/tree/srv/karaoke /run/tree/etc/demixd /run/tree/var/lib/demixd*
rm -rf /run/tree/etc/systemd/system/demixd* /run/tree/etc/sysusers.d/demixd.conf /run/tree/etc/tmpfiles.d/demixd.conf
find /run/tree/etc/systemd/system -name '*.wants' -prune -exec rm -rf {} +
: > /run/tree/etc/machine-id
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then hierarchies=/sys/fs/cgroup; else hierarchies=$(echo /sys/fs/cgroup/*/); fi
for hierarchy in $hierarchies; do
    mkdir -p "$hierarchy/$GROUP" 2>/dev/null && echo $$ > "$hierarchy/$GROUP/cgroup.procs" || true
done
exec systemd-nspawn -D /run/tree -b --register=no --keep-unit --console=pipe --link-journal=no --resolv-conf=off \\
    --timezone=off --kill-signal=SIGRTMIN+4 --system-call-filter=bpf --capability=CAP_BPF,CAP_PERFMON,CAP_LEASE \\
    --bind-ro="$PACKAGES" --machine=demixd systemd.unit=multi-user.target
"""


@functools.cache
def why_not() -> str:
    """Why no machine can be booted here; empty if one can."""
    if os.geteuid() != 0:
        return "booting a machine needs root: sudo tests/run"
    for tool in ("systemd-nspawn", "nsenter", "mkfs.ext4"):
        if not shutil.which(tool):
            return f"no {tool}: apt-get install systemd-container util-linux e2fsprogs"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/run"], capture_output=True, check=False
    )
    return "" if tried.returncode == 0 else "this root may not mount"


needs_systemd = pytest.mark.skipif(bool(why_not()), reason=why_not() or "a machine can be booted")


class Machine:
    """A booted machine. Everything in it is done by commands, as its administrator would."""

    def __init__(self, folder: Path) -> None:
        self._image = folder / "disk.img"
        self._console = folder / "console"
        self._group = f"demixd-test-{os.getpid()}-{next(_numbers)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def boot(self) -> "Machine":
        with self._image.open("wb") as file:
            file.truncate(GIGABYTES << 30)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", str(self._image)], check=True)
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", BOOT],
                env={
                    **os.environ,
                    "IMAGE": str(self._image),
                    "GROUP": self._group,
                    "PACKAGES": f"{sysconfig.get_path('purelib')}:{PACKAGES}",
                },
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        self.until(self._has_booted, "it has booted")
        self._let_cgroups_be_written()
        return self

    def _has_booted(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"it did not boot:\\n{self._console.read_text(errors='replace')[-4000:]}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            return False
        self._leader = int(children[0])
        state = self.run("systemctl", "is-system-running", check=False)
        return state.stdout.strip() in ("running", "degraded")

    def _let_cgroups_be_written(self) -> None:
        """Where cgroups are still of version 1 nspawn mounts them read-only, and limits would not be enforced."""
        self.run("sh", "-c", "for each in /sys/fs/cgroup/*/; do mount -o remount,bind,rw $each 2>/dev/null; done; true")
        self.run("systemctl", "daemon-reexec")
        self.until(lambda: self.run("systemctl", "is-system-running", check=False).stdout.strip() != "", "it is back")

    def run(self, *words: str | Path, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """A command in the machine, as root, to its end."""
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "SYSTEMD_PAGER": "",
            **{
                key: value
                for key, value in os.environ.items()
                if key.startswith(("PIP_", "UV_")) or "proxy" in key.lower()
            },
            **env,
        }
        done = subprocess.run(
            ["nsenter", "--all", "--target", str(self._leader), "--wdns=/", "--", *map(str, words)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{words}: exit status {done.returncode}\\n{done.stdout[-4000:]}\\n{done.stderr[-4000:]}"
            )
        return done

    def until(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
        """Wait until `condition` gives something."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if found := condition():
                return found
            time.sleep(0.1)
        raise AssertionError(f"not in {seconds} s: {what}\\n{self._last_words()}")

    def _last_words(self) -> str:
        return self.run("journalctl", "--no-pager", "-n", "40", check=False).stdout if self._leader else ""

    # ---- files

    def path(self, inside: str | Path) -> Path:
        """A file in the machine, for this process to read and write: as root, whatever its mode."""
        return Path(f"/proc/{self._leader}/root") / str(inside).lstrip("/")

    def write(self, inside: str, text: str) -> None:
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    # ---- systemd

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        words = [f"--property={name}" for name in names]
        lines = self.run("systemctl", "show", unit, *words).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines)

    def is_active(self, unit: str) -> bool:
        return self.run("systemctl", "is-active", unit, check=False).stdout.strip() == "active"

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Entries, the oldest first."""
        lines = self.run("journalctl", "-o", "json", "--no-pager", *matches, check=False).stdout.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def halt(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._leader:
                os.kill(self._leader, 9)
        self._process.kill()
        self._process.wait()
        limit = time.monotonic() + 10
        while self._groups() and time.monotonic() < limit:
            for folder in self._groups():
                with contextlib.suppress(OSError):  # its last process may still be on its way out
                    folder.rmdir()
            time.sleep(0.05)
        self._image.unlink(missing_ok=True)

    def _groups(self) -> list[Path]:
        """The cgroups that are left of it, the innermost first."""
        folders = [Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup")]
        return [folder for folder in reversed(folders) if self._group in str(folder)]


@contextlib.contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """A machine for a while."""
    machine = Machine(folder)
    try:
        yield machine.boot()
    finally:
        machine.halt()
