#!/usr/bin/env bash
# Set up and try HyTIP on a machine with Python 3.10 to 3.12 and nothing else.
#
#   ./install.sh        make .venv and install requirements.txt into it
#   ./install.sh demo   the same, then evaluate the bundled clip
#   ./install.sh test   the same, then run the tests; further words go to pytest
#
# PYTHON=/path/to/python chooses the interpreter. Once installed, nothing needs a network.
set -euo pipefail
cd "$(dirname "$0")"

usable() {      # a Python 3.10 to 3.12 that starts (a name on the PATH may be a shim of a missing version)
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.12 python3.11 python3.10 python3 python}; do
        if usable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "install.sh: error: no Python 3.10 to 3.12 found; install one or set PYTHON=/path/to/python" >&2
    exit 2
}

install() {
    local stamp=.venv/installed-requirements.txt python
    if usable .venv/bin/python && cmp -s requirements.txt "$stamp"; then
        return
    fi
    if ! usable .venv/bin/python; then
        python=$(find_python)
        echo "install.sh: making .venv with $("$python" --version)"
        rm -rf .venv
        if ! "$python" -m venv .venv; then
            rm -rf .venv
            echo "install.sh: error: $python cannot make a virtual environment; install its venv module" \
                 "(Debian: apt-get install python3-venv)" >&2
            exit 2
        fi
    fi
    echo "install.sh: installing requirements.txt (PyTorch with its CUDA libraries takes about 6 GB)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt "$stamp"
}

case "${1:-}" in
    "")
        install
        echo "install.sh: done; next: source .venv/bin/activate; python HyTIP.py --help, or ./install.sh demo"
        ;;
    demo)
        install
        echo "install.sh: the small model on the bundled clip (Big Buck Bunny, see demo/CREDITS.md), a few minutes"
        shift
        .venv/bin/python -m util.demo "$@"
        ;;
    test)
        install
        shift
        exec .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal "$@"
        ;;
    *)
        echo "install.sh: error: unknown word '$1'; use ./install.sh, ./install.sh demo or ./install.sh test" >&2
        exit 2
        ;;
esac
