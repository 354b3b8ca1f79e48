#!/bin/sh
# Create .venv with the newest Python that serves; keep the one that is there while it works.
set -eu

serves() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ -x .venv/bin/python ] && serves .venv/bin/python; then
    exit 0
fi
seen=
for python in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
    command -v "$python" >/dev/null 2>&1 || continue
    seen="$seen $python"
    if serves "$python"; then
        echo "creating .venv with $("$python" --version)"
        rm -rf .venv
        exec "$python" -m venv .venv
    fi
done
echo "error: no Python 3.11 or newer with its venv module was found${seen:+ (tried:$seen)}." >&2
echo "Install one, e.g. apt-get install python3 python3-venv, or name it: make install PYTHON=/path/to/python3" >&2
exit 1
