#!/usr/bin/env bash
# Prints the folder of a Node.js of at least version 20 with npm: the machine's, else one of our own
# in .venv-node, which is set up first (pinned and hash-checked). NODE=own skips the machine's.
set -euo pipefail
cd "$(dirname "$0")/.."

serves() {
    "$1/node" -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' 2>/dev/null &&
        "$1/npm" --version >/dev/null 2>&1
}

if [ "${NODE:-}" != own ] && found=$(command -v node) && serves "$(dirname "$found")"; then
    dirname "$found"
    exit
fi
home=.venv-node
if [ ! "$home/.ready" -nt requirements/node.txt ]; then
    echo "setting up Node.js in $home: 230 MB, once; the machine has none of version 20 or newer with npm" >&2
    [ -x "$home/bin/python" ] || "${PYTHON:-python3}" -m venv "$home"
    "$home/bin/python" -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/node.txt
    touch "$home/.ready"
fi
serves "$PWD/$home/bin" || { echo "the Node.js in $home does not run on this machine; install Node.js 20 or newer" >&2; exit 1; }
echo "$PWD/$home/bin"
