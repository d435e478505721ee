#!/usr/bin/env bash
# Builds runc from its Go module, at the version that hack/go.mod pins, to the file named by the first argument.
# Without libseccomp's headers it is built without seccomp support, which Weft does not ask for by default.
set -euo pipefail
cd "$(dirname "$0")"
target=$1
[[ $target = /* ]] || target=$PWD/../$target

tags=
if command -v pkg-config >/dev/null && pkg-config --exists libseccomp; then
	tags=seccomp
fi
echo "runtime: building runc from its module (1-2 minutes)"
CGO_ENABLED=1 go build -trimpath -tags "$tags" -ldflags '-s -w' -o "$target" github.com/opencontainers/runc
