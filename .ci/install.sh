#!/bin/sh
# Install a lock file into .venv, every file checked against its hash, one short line of progress for each package.
set -eu

lock=$1
total=$(grep -c '^[a-zA-Z0-9].*==' "$lock")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
printf '1' >"$work/code"
{
    .venv/bin/python -m pip install --disable-pip-version-check --no-input --progress-bar off \
        --require-hashes -r "$lock" 2>"$work/errors" && printf '0' >"$work/code"
} | tee "$work/output" | {
    count=0
    while read -r word name _; do
        case $word in
            Collecting | Requirement)
                count=$((count + 1))
                if [ -t 1 ]; then
                    printf '\r\033[K  %s/%s %s' "$count" "$total" "${name%%==*}"
                elif [ $((count % 20)) -eq 0 ]; then
                    printf '  %s/%s packages fetched\n' "$count" "$total"
                fi
                ;;
            Installing)
                [ ! -t 1 ] || printf '\r\033[K'
                echo "  unpacking"
                ;;
        esac
    done
    [ ! -t 1 ] || printf '\r\033[K'
}
if [ "$(cat "$work/code")" != 0 ]; then
    tail -n 20 "$work/errors" >&2
    echo "error: installing $lock failed; the lines above say why" >&2
    exit 1
fi
