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

# OHIF, a viewer that the tests show what the node writes: built, in the npm package @ohif/app
OHIF=3.12.10
OHIF_SHA512=d24b85eba32af5cf5d303fbe6d4b138ccac9a57270699873f41e2e4b6e380dac008d2913c0860553dde9c4fb915108b16918bb4001e517715ed6ab9d06566b98

fetch_viewer() {
    local place=.venv/ohif part=.venv/ohif.part package
    if [ "$(cat "$place/.version" 2>/dev/null)" = "$OHIF" ]; then
        return 0
    fi
    echo "fetching the viewer OHIF $OHIF (once)"
    rm -rf "$place" "$part" && mkdir -p "$part" || return 1
    package="$part/$(cd "$part" && npm pack --silent "@ohif/app@$OHIF")" || return 1
    echo "$OHIF_SHA512  $package" | sha512sum --check --quiet || return 1
    # without the source maps and a runtime for segmenting in the browser: three quarters of it
    tar -xzf "$package" -C "$part" --exclude='*.map' --exclude=package/dist/ort package/dist || return 1
    echo "$OHIF" >"$part/package/dist/.version"
    mv "$part/package/dist" "$place" && rm -rf "$part"
}
