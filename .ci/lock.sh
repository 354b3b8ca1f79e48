#!/bin/sh
# Write the lock files from pyproject.toml; with --check only say whether they are fresh.
set -eu

compile() { # output, then extras
    output=$1
    shift
    .venv/bin/uv pip compile -q --universal --generate-hashes --python-version 3.11 "$@" \
        pyproject.toml --no-header -o "$output" >/dev/null
}

one() { # lock, then extras
    lock=$1
    shift
    if [ "$mode" = write ]; then
        compile "$lock" "$@"
        return
    fi
    # The versions in the lock stay preferred, so that a release somewhere else does not make it stale.
    cp "$lock" "$work/$lock"
    compile "$work/$lock" "$@"
    sed "s|$work/||" "$work/$lock" | cmp -s - "$lock" || stale="$stale $lock"
}

mode=write
[ "${1:-}" != --check ] || mode=check
stale=
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
one requirements.lock --extra build
one requirements-dev.lock --extra build --extra dev
if [ -n "$stale" ]; then
    echo "error: not fresh:$stale; run sh .ci/lock.sh" >&2
    exit 1
fi
[ "$mode" = write ] || echo "locks are fresh"
