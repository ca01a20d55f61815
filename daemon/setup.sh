# shellcheck shell=bash
# Sourced by daemon/try, tests/run, tests/benchmarks/run and systemd/install: makes a virtual environment from the lock
# files, once. Needs $root, the project's folder. $venv is where it is made, $home what it is for: both are $root's own, except
# for systemd/install. $compile is pip's word: a module is compiled when it is first loaded, and most of torch's never are; only
# a service, which may not write there, needs them all compiled. $cpu_index is one that has torch for CPUs alone, or empty:
# that of the environment in use, unless another is asked for.

venv=${venv:-$root/.venv}
home=${home:-$root}
compile=${compile:---no-compile}
cpu_index=${cpu_index:-$(cat "$home/.venv/cpu-index" 2>/dev/null || true)}

# Python is isolated (-I) throughout: whoever can write to the folder that a script is called in must not be heard by it.

say() { printf '%s\n' "$*" >&2; }

find_python() {
    local python
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$python"
            return
        fi
    done
    say "demixd needs Python 3.11 or later, and none was found. On Debian or Ubuntu: apt install python3 python3-venv"
    return 1
}

# lock NAME: brings the environment to what config/NAME says. The stamp is written last, so what was interrupted is done again.
lock() {
    local lock=$root/config/$1 stamp=$venv/$1.sha256 sum
    sum=$(sha256sum <"$lock")
    [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && return
    say "Installing $1 into $(basename "$venv"), once$(how_much "$1") ..."
    # Packages of gigabytes pass through the folder for temporary files, and /tmp is often kept in memory.
    mkdir -p "$venv/tmp"
    if [ -n "$cpu_index" ] && [ "$1" = requirements.lock ]; then
        without_cuda <"$lock" >"$venv/tmp/$1"
        pip_install --require-hashes --only-binary=:all: -r "$venv/tmp/$1" || return
        # shellcheck disable=SC2046 # two words
        pip_install --only-binary=:all: --index-url "$cpu_index" $(sed -nE 's/^((torch|torchaudio)==[^ ]+).*/\1/p' "$lock") || return
        printf '%s' "$cpu_index" >"$venv/cpu-index"
    else
        pip_install --require-hashes "${2:---only-binary=:all:}" -r "$lock" || return
    fi
    rm -rf "$venv/tmp"
    printf '%s' "$sum" >"$stamp"
}

# pip_install WORD...: what pip is to install, with its bars where somebody looks on: gigabytes take a while.
pip_install() {
    local how=--quiet
    [ ! -t 2 ] || how=--progress-bar=on
    TMPDIR=$venv/tmp "$venv/bin/python" -I -m pip install "$how" --disable-pip-version-check --root-user-action=ignore \
        --no-deps "$compile" "$@" >&2
}

# without_cuda: a lock file without torch and whatever serves its CUDA alone.
without_cuda() { awk '/^[A-Za-z]/ { skip = /^(torch|torchaudio|triton)==|^(nvidia|cuda)-/ } !skip'; }

# how_much NAME: the end of a sentence about a lock file that has much in it.
how_much() {
    [ "$1" = requirements.lock ] || return 0
    if [ -n "$cpu_index" ]; then
        printf '%s' ": about 1.5 GB, with torch for the CPU alone"
    elif [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; then
        printf '%s' ": about 5 GB, with CUDA for the NVIDIA GPU"
    else
        printf '%s' ": about 5 GB, of which 3.5 GB are for an NVIDIA GPU, and there is none here; daemon/try and systemd/install leave that out by --cpu, see --help"
    fi
}

make_venv() {
    local python
    python=$(find_python) || return
    if ! "$venv/bin/python" -I -c 'import pip' 2>/dev/null; then
        "$python" -I -m venv --clear "$venv" || {
            say "The virtual environment cannot be made. On Debian or Ubuntu: apt install python3-venv"
            return 1
        }
    fi
    lock requirements.lock || return
    # The package itself needs no building: its folder on the path, and its command.
    "$venv/bin/python" -I - "$home" <<'PYTHON'
import pathlib, sys, sysconfig
home = pathlib.Path(sys.argv[1])
(pathlib.Path(sysconfig.get_path("purelib")) / "demixd.pth").write_text(f"{home / 'daemon'}\n")
command = pathlib.Path(sys.prefix) / "bin" / "demixd"
command.write_text(f"#!{sys.prefix}/bin/python -I\nfrom demixd.__main__ import main\n\nmain()\n")
command.chmod(0o755)
PYTHON
}

# packages NAME...: system packages, where they may be installed.
packages() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; } >/dev/null 2>&1 ||
            say "Could not install: apt-get install $*"
    fi
}

compiler="libsystemd-dev pkg-config gcc python3-dev"

# systemd-python has to be compiled. Whether it is there afterwards.
make_systemd_python() {
    "$venv/bin/python" -I -c 'from systemd import daemon' 2>/dev/null && return
    # shellcheck disable=SC2086 # four words
    { pkg-config --exists libsystemd && command -v gcc; } >/dev/null 2>&1 || packages $compiler
    lock requirements-systemd.lock "--no-build-isolation" >/dev/null 2>&1
}
