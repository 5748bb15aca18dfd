# Sourced by quickstart.sh and test.sh: makes the virtual environment .venv with the packages of a requirements file.
# Usage: environment REQUIREMENTS_FILE

fail() {
    echo "erulab: $1" >&2
    exit 4
}

environment() {
    local python="${PYTHON:-python3}" wanted stamp
    command -v "$python" >/dev/null || fail "no $python found; install Python 3.11 or newer, or set PYTHON=/path/to/python"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or newer is needed, $python is $("$python" -V 2>&1 | cut -d' ' -f2); set PYTHON=/path/to/python"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python has no venv module; install it (Debian, Ubuntu: apt install python3-venv)"
    [ -x .venv/bin/python ] || "$python" -m venv .venv || fail "cannot make .venv here; is the folder writable?"
    # The stamp holds what is installed, so that the package index is asked only when the files have changed.
    stamp=".venv/$(basename "$(dirname "$1")")-$(basename "$1").installed"
    wanted="$(cat requirements.txt "$1")"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "erulab: installing $1 into .venv (once)"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$1" ||
            fail "pip could not install $1; see its message above"
        echo "$wanted" >"$stamp"
    fi
}
