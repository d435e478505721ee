#!/usr/bin/env bash
# Runs golangci-lint at the version that hack/golangci-lint/go.mod pins, built once into bin/.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x bin/golangci-lint ] || [ hack/golangci-lint/go.mod -nt bin/golangci-lint ]; then
	hack/step.sh "building golangci-lint" env -C hack/golangci-lint go build -o ../../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
fi
bin/golangci-lint run "$@" ./...
(cd test/conformance && ../../bin/golangci-lint run --config ../../.golangci.yml "$@" ./...)
