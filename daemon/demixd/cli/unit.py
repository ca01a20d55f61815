"""The installer's side: `systemd/install` writes a first configuration and a unit's drop-in with this program.

    python -m demixd.cli.unit config NAME SPOOL STATE FILE   a configuration for the service NAME (demixd, demixd@karaoke),
                                                          after that of FILE; each of the last three may be empty
    python -m demixd.cli.unit paths NAME CONFIG           its 50-paths.conf
    python -m demixd.cli.unit web CONFIG                  50-paths.conf of demixd-web, the page
    python -m demixd.cli.unit listen ADDRESS              its 60-listen.conf; ADDRESS may lack the port
    python -m demixd.cli.unit folders CONFIG              the spool, then every other folder that it writes to; one a line
    python -m demixd.cli.unit songs CONFIG                the spool, and its folders inbox to failed; one a line
    python -m demixd.cli.unit private CONFIG              the private folder in the outbox, which an uninstall removes
    python -m demixd.cli.unit models CONFIG               the folder of the models
    python -m demixd.cli.unit share GROUP CONFIG          gives the spool and its folders that are there to a group, which may
                                                          write to them; those that it did not have, one a line
    python -m demixd.cli.unit close USER CONFIG           closes the private folder in the outbox to all but USER, whose it is,
                                                          where a former version has left it open; its path then

A configuration or a folder that cannot be used is one sentence on standard error, with status 1.
"""

import contextlib
import grp
import json
import os
import pwd
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from demixd import config as configuration
from demixd.cli.console import standard_streams
from demixd.config import Config
from demixd.config.sections import address_of
from demixd.errors import ConfigError
from demixd.spool import nofollow
from demixd.spool.tree import PRIVATE, Spool

PARTS = ("inbox", "outbox", "status", "done", "failed")

HOMES = tuple(map(Path, ("/home", "/root", "/run/user")))
"""The folders that systemd's ProtectHome= hides."""

SHARED = stat.S_ISGID | stat.S_IRWXG
"""The mode of a folder whose group writes to it, and has what is made in it."""

DEFAULT = "demixd"
DEFAULT_PORT = 8377
NEW = "the new configuration"

OWN = (
    "/opt/demixd",
    "/etc/demixd",
    "/var/lib/demixd",
    "/var/lib/demixd-web",
    "~/.local/share/demixd",
    "~/.config/demixd",
    "~/.local/state/demixd",
    "~/.local/state/demixd-web",
)
"""The folders of the installer, which it fills and empties; `/var/lib/demixd@NAME` too."""

_PATHS = re.compile(r"^\[paths\][^\n]*\n(?:(?!\[)[^\n]*\n)*", re.MULTILINE)
"""The section of the folders in a configuration, up to the next one."""


def first_configuration(name: str, spool: str, state: str = "", example: str = "") -> str:
    """A short configuration. Keys that it leaves out keep their defaults, also those that a new version changes.

    `example` is the text of another one, which keeps all but the folders; an empty `spool` leaves it that of the example.
    Raises ConfigError.
    """
    state = state or f"/var/lib/{name}"
    theirs = configuration.parse(example, "the example").paths
    lines = [
        f"# The configuration of {name}. config/demixd.toml of the project shows every key with its default.",
        "# After a change: systemctl reload; after a change of [paths]: systemd/install once more.",
        "",
        "[paths]",
        f"spool = {json.dumps(spool or theirs.spool, ensure_ascii=False)}",
        f"state = {json.dumps(state, ensure_ascii=False)}",
    ]
    rest = _PATHS.sub("", example).strip()
    return "\n".join([*lines, *(["", rest] if rest else [])]) + "\n"


def refuse_our_own(config: Config) -> None:
    """Raise ConfigError where songs would lie in a folder of the installer's own."""
    own = [Path(each).expanduser() for each in OWN]
    for folder in (Path(config.paths.spool), *map(config.folder, PARTS)):
        for above in (folder, *folder.parents, *folder.resolve().parents):
            if above in own or above.match("/var/lib/demixd@*"):
                raise ConfigError(
                    f"{NEW}: {folder} lies in {above}, which is the installer's own: choose another spool"
                )


def folders(config: Config) -> list[Path]:
    """Every folder that the daemon writes to, without those that lie in another one; the spool comes first.

    Not that of the models: whoever has got hold of the service must not change what it, or root, will load.
    """
    found = [Path(config.paths.spool)]
    others = [config.folder(part) for part in PARTS] + [config.state]
    if config.paths.work:
        others.append(Path(config.paths.work))
    if all(not config.folder(part).is_relative_to(found[0]) for part in PARTS):
        found = []  # Every part lies elsewhere, so that the spool itself is not used.
    for folder in others:
        if not any(folder.is_relative_to(other) for other in found):
            found.append(folder)
    return found


def share(group: int, config: Config) -> Iterator[Path]:
    """Give the spool and its folders to a group, with what is made in them; those that had to be changed.

    They are changed as open folders: their names may lead elsewhere by the time, for others write where they stand.
    """
    spool = Path(config.paths.spool)
    for folder in (spool, *map(config.folder, PARTS)):
        root = spool if folder.is_relative_to(spool) else folder
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            nofollow.reach(root, folder, follow=folder == spool) as handle,
        ):
            status = os.fstat(handle)
            if (status.st_gid, status.st_mode & SHARED) != (group, SHARED):
                there = Path(f"/proc/self/fd/{handle}")  # a descriptor with O_PATH takes neither call
                os.chown(there, -1, group)
                there.chmod(stat.S_IMODE(status.st_mode) | SHARED)
                yield folder


def close(user: int, config: Config) -> Iterator[Path]:
    """Close the private folder in the outbox to all but `user`; that folder, where it was open and is that user's.

    The service may not, where it has S_ISGID (see `private.close_to_others`). It is changed as an open folder, as in `share`.
    """
    spool, outbox = Path(config.paths.spool), config.folder("outbox")
    root = spool if outbox.is_relative_to(spool) else outbox
    folder = outbox / PRIVATE
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        nofollow.reach(root, folder, follow=root == spool) as handle,
    ):
        status = os.fstat(handle)
        if status.st_uid == user and status.st_mode & 0o077:
            Path(f"/proc/self/fd/{handle}").chmod(stat.S_IMODE(status.st_mode) & ~0o077)
            yield folder


def paths(name: str, config: Config, where: str) -> str:
    """The drop-in of a unit: mounts to wait for, folders to write to, and the group that they are shared by."""
    written = folders(config)
    own = Path("/var/lib", name)
    needed = [*written, *(Path(each) for each in (config.paths.models, config.model.repo) if each)]
    lines = _of_folders(needed, [folder for folder in written if not folder.is_relative_to(own)], where)
    if group := _group(written[0]):
        lines.append(f"Group={group}")
    return "\n".join(lines) + "\n"


def web_paths(config: Config, where: str) -> str:
    """The drop-in of the page's unit. It writes where songs are dropped, and where it takes them from to try them again."""
    parts = [config.folder(part) for part in ("inbox", "failed", "status", "outbox")]
    lines = _of_folders(parts, parts[:2], where)
    groups = {group for group in map(_group, (Path(config.paths.spool), *parts[:2])) if group}
    lines += [f"SupplementaryGroups={group}" for group in sorted(groups)]
    return "\n".join(lines) + "\n"


def web_listen(address: str) -> str:
    """The drop-in that says where the page listens. Raises ConfigError."""
    for listen in (address, f"{address}:{DEFAULT_PORT}", f"[{address}]:{DEFAULT_PORT}"):
        with contextlib.suppress(ValueError):
            address_of(listen)
            return f'# From systemd/install --web.\n[Service]\nEnvironment="LISTEN=--listen {listen}"\n'
    raise ConfigError(f"--web {address}: it must be ADDRESS or ADDRESS:PORT, such as 0.0.0.0 or 192.168.1.7:8377")


def _of_folders(needed: list[Path], written: list[Path], where: str) -> list[str]:
    """The lines of a drop-in on folders: those that have to be mounted, and those that the unit writes to."""
    lines = [
        f"# Made by systemd/install from {where}; run it again when [paths] there has changed.",
        "[Unit]",
        *(f"RequiresMountsFor={_escaped(folder)}" for folder in needed),
        "",
        "[Service]",
        # With the minus the unit starts without the folder, and says that it is missing.
        *(f"ReadWritePaths={_escaped(folder, '-')}" for folder in written),
    ]
    if any(folder.is_relative_to(home) for folder in needed for home in HOMES):
        lines += ["# A folder lies in somebody's home.", "ProtectHome=read-only"]
    return lines


def _group(share: Path) -> str | None:
    """The group that a share belongs to; None for root's, and for one that has no name."""
    try:
        number = share.stat().st_gid
        return grp.getgrgid(number).gr_name if number else None
    except (OSError, KeyError):
        return None


def _escaped(folder: Path, before: str = "") -> str:
    """A path as a unit spells it, with specifiers, quotes and blanks escaped (systemd.syntax(7))."""
    text = str(folder).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{before}{text}"'


def main(words: list[str]) -> None:
    """Print what `words` ask for. Raises ConfigError."""
    match words:
        case ["config", name, spool, state, file]:
            text = first_configuration(name, spool, state, Path(file).read_text(encoding="utf-8") if file else "")
            refuse_our_own(configuration.check(configuration.parse(text, NEW), NEW))
        case ["paths", name, file]:
            text = paths(name, configuration.load(Path(file)), file)
        case ["web" | "listen" as what, of]:
            text = web_paths(configuration.load(Path(of)), of) if what == "web" else web_listen(of)
        case ["folders", file]:
            text = "".join(f"{folder}\n" for folder in folders(configuration.load(Path(file))))
        case ["songs", file]:
            config = configuration.load(Path(file))
            text = "".join(f"{folder}\n" for folder in (config.paths.spool, *map(config.folder, PARTS)))
        case ["private", file]:
            text = f"{Spool(configuration.load(Path(file))).private}\n"
        case ["models", file]:
            text = f"{configuration.load(Path(file)).models}\n"
        case ["share", group, file]:
            text = "".join(
                f"{folder}\n" for folder in share(grp.getgrnam(group).gr_gid, configuration.load(Path(file)))
            )
        case ["close", user, file]:
            closed = close(pwd.getpwnam(user).pw_uid, configuration.load(Path(file)))
            text = "".join(f"{folder}\n" for folder in closed)
        case _:
            sys.exit(__doc__)
    sys.stdout.write(text)


if __name__ == "__main__":
    with standard_streams():
        try:
            main(sys.argv[1:])
        except (ConfigError, OSError) as error:
            sys.exit(f"demixd: {error}")
