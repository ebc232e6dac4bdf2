# shellcheck shell=bash
# What the tests of scripts/run share. To be sourced after lib.sh. The run is that of a copy of this folder in
# $work/copy; $pid is its process group, and $work/output what it says.

# Below a folder that everybody may enter, because root has PostgreSQL run by another user.
work=$(mktemp -d)
trap cleanup EXIT
chmod 755 "$work"

cleanup() {
    end_step
    [[ ! ${pid-} ]] || kill -KILL -- "-$pid" 2>/dev/null || true
    left | xargs -r kill -KILL || true
    rm -rf "$work"
}

fail() {
    cat "$work/output" >&2
    die "${0##*/}: $*"
}

# The processes of the copy: those that work in it.
left() {
    local folder
    for folder in /proc/[0-9]*; do
        [[ $(readlink "$folder/cwd") != "$work/copy"* ]] || echo "${folder#/proc/}"
    done
}

# within SECONDS COMMAND…: waits until the command succeeds.
within() {
    local end=$((SECONDS + $1))
    until "${@:2}"; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

has_ended() { ! kill -0 "$pid" 2>/dev/null; }
serves() { has_ended || grep -q '^Ctrl-C stops' "$work/output"; }
none_left() { [[ ! $(left) ]]; }
