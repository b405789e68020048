#!/bin/sh
# The demo of the README: every command is shown before it is run.
set -eu

export ENGINE_HOME="$DEMO_HOME"
BIN=$(cd "$BIN" && pwd)
PATH="$BIN:$PATH"

run() {
    printf '\n$ engine'
    for argument in "$@"; do
        case $argument in *[!A-Za-z0-9_./-]*) printf " '%s'" "$argument" ;; *) printf ' %s' "$argument" ;; esac
    done
    printf '\n'
    engine "$@"
}

run apply manifests/reverse_number.yaml
run call user1/twice '{"id": 0, "number": 1234}'
run call user0/reverse_number_atomic '{"id": 0, "number": 1234}' --as user1
run status
run storage user0
run storage user1

cat <<END

The engine goes on in the background, and watches manifests/reverse_number.yaml: edit it.
To go on by hand, first run:

    export ENGINE_HOME='$ENGINE_HOME' PATH='$BIN':"\$PATH"

Then for instance: engine status --watch. To end the engine: engine down --all.
END
