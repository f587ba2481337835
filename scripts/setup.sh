#!/usr/bin/env bash
# Make .venv and install the project into it. A second call ends at once, unless pyproject.toml has changed.
#
# Needs: Python 3.11 to 3.13. Python's venv module is a Debian package of its own (python3-venv): with root it is
# installed here and said; without root the command to install it is printed.
#   PYTHON=python3.12   another interpreter
#   EXTRAS=dev,onnx     other extras than `dev`
set -euo pipefail
cd "$(dirname "$0")/.."

EXTRAS="${EXTRAS:-dev}"
STAMP=".venv/.installed"

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

fingerprint() {
    printf '%s %s ' "$PWD" "$EXTRAS"
    sha256sum pyproject.toml scripts/setup.sh | sha256sum | cut -d' ' -f1
}

find_python() {
    local name
    for name in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
        [ -n "$name" ] || continue
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            printf '%s' "$name"
            return
        fi
    done
    fail "no Python 3.11 to 3.13 found. On Debian: apt-get install python3 python3-venv"
}

can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

install_venv_module() {
    local version package
    version="$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    package="python${version}-venv"
    if ! command -v apt-get >/dev/null; then
        say "$1 has no ensurepip and there is no apt-get here; trying without it"
    elif [ "$(id -u)" != 0 ]; then
        say "$1 has no ensurepip. To install it: sudo apt-get update && sudo apt-get install $package"
        say "trying without it"
    else
        say "installing the Debian package $package"
        apt-get -qq -o DPkg::Lock::Timeout=900 update || say "apt-get update failed; trying all the same"
        DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=900 \
            install "$package" >&2 || say "$package could not be installed; trying without it"
    fi
}

# Without ensurepip: an empty environment, filled by whatever pip this Python already has.
make_venv_without_pip() {
    "$1" -m venv --without-pip .venv || fail "could not make .venv with $1. On Debian: apt-get install python3-venv"
    "$1" -m pip --python .venv/bin/python --version >/dev/null 2>&1 \
        || fail "$1 has neither ensurepip nor pip. On Debian: apt-get install python3-venv (or python3-pip)"
    "$1" -m pip --python .venv/bin/python install --quiet pip
}

make_venv() {
    if [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1; then return; fi
    rm -rf .venv
    can_make_venv "$1" || install_venv_module "$1"
    if can_make_venv "$1"; then "$1" -m venv .venv; else make_venv_without_pip "$1"; fi
}

install_project() {
    say "installing into .venv (about 1 GB, a few minutes the first time)"
    .venv/bin/python -m pip install -qq --disable-pip-version-check -e ".[$EXTRAS]"
}

# PyAudio is compiled, so it comes only where PortAudio's headers and a compiler are; nothing but `mic` needs it.
install_microphone() {
    if [ ! -e /usr/include/portaudio.h ] || ! command -v gcc >/dev/null; then
        say "no microphone support: for it, apt-get install portaudio19-dev gcc, then .venv/bin/pip install PyAudio"
    elif ! .venv/bin/python -m pip install -qq --disable-pip-version-check "PyAudio>=0.2.14" 2>.venv/pyaudio.log; then
        say "no microphone support: PyAudio did not build, see .venv/pyaudio.log"
    fi
}

# The meters of `audiolm eval`: PESQ is compiled, so only where there is a compiler. Their tests are skipped without.
install_meters() {
    if ! command -v gcc >/dev/null; then
        say "no PESQ (it needs gcc): for audiolm eval, apt-get install gcc python3-dev, then .venv/bin/pip install -e '.[eval]'"
    elif ! .venv/bin/python -m pip install -qq --disable-pip-version-check pesq pystoi pocketsphinx 2>.venv/meters.log; then
        say "the meters of audiolm eval did not install, see .venv/meters.log"
    fi
}

# A fuzzer, as a wheel only: compiling it needs a whole LLVM. Its test is skipped where there is none.
install_fuzzer() {
    .venv/bin/python -m pip install -qq --disable-pip-version-check --only-binary=:all: atheris 2>/dev/null \
        || say "no atheris for this Python; frames are fuzzed by Hypothesis alone"
}

main() {
    if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(fingerprint)" ]; then return; fi
    local python
    python="$(find_python)"
    make_venv "$python"
    install_project
    install_microphone
    install_meters
    install_fuzzer
    fingerprint >"$STAMP"
    say "ready: .venv/bin/streamer and .venv/bin/audiolm"
}

main
