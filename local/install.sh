#!/bin/sh
# Create a virtual environment with Python 3.13 and install the pinned requirements into it.
# usage: [PYTHON=path] sh local/install.sh FOLDER
set -eu
venv=$1
wanted=$(cat .python-version)

# An interpreter counts only if it runs: the shims of a version manager are on PATH whether or not they have one to start.
runs() { # runs INTERPRETER TEST: is TEST, on v = sys.version_info, true there?
    "$1" -c "import sys, ensurepip; v = sys.version_info; sys.exit(not ($2))" >/dev/null 2>&1
}

real_path() { "$1" -c 'import sys; print(sys.executable)'; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        if runs "$PYTHON" 'v >= (3, 13)'; then real_path "$PYTHON"; return; fi
        echo "PYTHON=$PYTHON is not a Python of version $wanted or newer that has pip" >&2
        return 1
    fi
    exactly="'%d.%d' % v[:2] == '$wanted'"
    from_uv=$(uv python find --no-python-downloads "$wanted" 2>/dev/null || true)
    pyenv_root=${PYENV_ROOT:-$HOME/.pyenv}
    for candidate in "$from_uv" "python$wanted" python3 "$pyenv_root"/versions/"$wanted"*/bin/python; do
        if [ -n "$candidate" ] && runs "$candidate" "$exactly"; then real_path "$candidate"; return; fi
    done
    if runs python3 'v >= (3, 13)'; then
        echo "no Python $wanted here; trying $(python3 -V), with which the pinned packages were not tried" >&2
        real_path python3
        return
    fi
    return 1
}

if "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null; then
    echo "using the $("$venv/bin/python" -V) that is in $venv"
elif python=$(find_python); then
    echo "using $("$python" -V) at $python"
    rm -rf "$venv"
    "$python" -m venv "$venv"
elif [ -z "${PYTHON:-}" ] && command -v uv >/dev/null 2>&1; then
    echo "no Python $wanted here; uv fetches one"
    rm -rf "$venv"
    uv venv --quiet --seed --python "$wanted" "$venv"
else
    cat >&2 <<MESSAGE
Python $wanted is needed and was not found. Any one of these gives it:
  uv python install $wanted        (uv: pip install uv)
  pyenv install $wanted
  the installer of python.org, or your system's package python$wanted with python$wanted-venv
then run the same make command again, with PYTHON=/path/to/python$wanted if it is not on PATH.
MESSAGE
    exit 1
fi

# A first installation wrote 4 GB at its height: downloads, what pyspark is built from, and the packages themselves.
free_kib=$(df -Pk "$venv" | awk 'NR == 2 { print $4 }')
if [ "$free_kib" -lt 5000000 ]; then
    echo "only $((free_kib / 1024)) MiB are free on the disk of $venv; a first installation takes about 4 GB while it runs." >&2
    echo "If it fails with \"No space left on device\": make room, or set UV_CACHE_DIR to a folder on a larger disk." >&2
fi

if command -v uv >/dev/null 2>&1; then
    installer=uv
else
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt uv || true
    installer="$venv/bin/uv"
fi
if "$installer" --version >/dev/null 2>&1; then
    echo "installing with $("$installer" --version)"
    "$installer" pip install --quiet --python "$venv/bin/python" -c constraints.txt -r requirements-dev.txt
else
    echo "installing with pip, because no uv runs here; this takes some minutes"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
fi
echo "installed $("$venv/bin/python" -c 'from importlib.metadata import distributions; print(len(list(distributions())))') packages"
