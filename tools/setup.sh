# Sourced by tools/demo and tools/test: makes .venv with the pinned packages. Usage: set_up [EXTRA]
# Needs Python 3.11 or newer and the package index that pip is set up for; a second run takes no time.

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    echo "Python 3.11 or newer is needed: install it (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv)," \
        "or name it: PYTHON=/path/to/python3 $0" >&2
    return 1
}

set_up() {
    local extra="${1:-}" python stamp wanted
    python=$(find_python) || return 1
    wanted=$(cat pyproject.toml conf/constraints.txt | cksum)
    # what the tests need contains what the node needs
    for stamp in .venv/.installed-test ".venv/.installed${extra:+-$extra}"; do
        if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
            return 0
        fi
    done
    if [ ! -x .venv/bin/python ]; then
        "$python" -m venv .venv || {
            rm -rf .venv
            echo "a virtual environment cannot be made: on Debian and Ubuntu install python3-venv" >&2
            return 1
        }
    fi
    echo "setting up .venv (once; several minutes on a slow line)"
    # torch first: asked for by a range, another package could pull a build of several GB
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        "$(grep '^torch==' conf/constraints.txt)" --constraint conf/constraints.txt || return 1
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --constraint conf/constraints.txt --editable ".${extra:+[$extra]}" || return 1
    if [ "$extra" = test ]; then
        # layers of the paper's public implementation, alone and in a folder of their own: what the package asks for
        # besides (18 packages, pandas and scikit-learn among them) its layers do not use
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
            --target .venv/deep-pipe "$(grep '^deep-pipe==' conf/constraints.txt)" || return 1
    fi
    echo "$wanted" >"$stamp"
}
