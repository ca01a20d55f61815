# Sourced by daemon/try and tests/run: makes .venv from the lock file, once. Needs $root, the project's folder.

say() { printf '%s\n' "$*" >&2; }

find_python() {
    local python
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$python"
            return
        fi
    done
    say "stemd needs Python 3.11 or later, and none was found. On Debian or Ubuntu: apt install python3 python3-venv"
    return 1
}

# install LOCK: brings .venv to what config/LOCK says. The stamp is written last, so what was interrupted is done again.
install() {
    local lock=$root/config/$1 stamp=$root/.venv/$1.sha256 sum
    sum=$(sha256sum <"$lock")
    [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && return
    say "Installing $1 into .venv (once; with torch it is about 5 GB and a few minutes) ..."
    "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
        ${2:-"--only-binary=:all:"} -r "$lock" || return
    printf '%s' "$sum" >"$stamp"
}

make_venv() {
    local python
    python=$(find_python) || return
    if ! "$root/.venv/bin/python" -c 'import pip' 2>/dev/null; then
        "$python" -m venv --clear "$root/.venv" || {
            say "The virtual environment cannot be made. On Debian or Ubuntu: apt install python3-venv"
            return 1
        }
    fi
    install requirements.lock || return
    # The package itself needs no building: its folder on the path, and its command.
    "$root/.venv/bin/python" - "$root" <<'PYTHON'
import pathlib, sys, sysconfig
root = pathlib.Path(sys.argv[1])
(pathlib.Path(sysconfig.get_path("purelib")) / "stemd.pth").write_text(f"{root / 'daemon'}\n")
command = pathlib.Path(sys.prefix) / "bin" / "stemd"
command.write_text(f"#!{sys.prefix}/bin/python\nfrom stemd.__main__ import main\n\nmain()\n")
command.chmod(0o755)
PYTHON
}
