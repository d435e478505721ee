#!/usr/bin/env bash
# The checks that need no running platform: formatting, vet, import walls, documents, and generated files that are up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(gofmt -l $(git ls-files '*.go' | grep -vE '\.pb\.go$'))
if [ -n "$unformatted" ]; then
	echo "not formatted by gofmt:" $unformatted >&2
	exit 1
fi
hack/step.sh "vet" go vet ./...
hack/step.sh "vet of the conformance runner" env -C test/conformance go vet ./...
hack/step.sh "package comments, import walls and documents" go test -count=1 ./test/tree
before=$(git status --porcelain -- '*.pb.go' config/crd; git diff -- '*.pb.go' config/crd | sha256sum)
hack/step.sh "generated files" hack/generate.sh
after=$(git status --porcelain -- '*.pb.go' config/crd; git diff -- '*.pb.go' config/crd | sha256sum)
if [ "$before" != "$after" ]; then
	echo "generated files were stale; 'make generate' has renewed them, commit the result" >&2
	exit 1
fi
