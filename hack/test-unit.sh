#!/usr/bin/env bash
# Runs the unit tests. Packages that link Kubernetes itself run without the race detector: building all of Kubernetes with it takes
# longer than every test together and finds nothing of ours.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | grep -v '/test/e2e$')
# A package links Kubernetes if what it or its tests import does, directly or not.
linked=$(go list -test -f '{{if .ForTest}}{{.ForTest}} {{range .Deps}}{{.}} {{end}}{{end}}' $packages | awk '/ k8s\.io\/kubernetes\//{print $1}' | sort -u)

mapfile -t raced < <(comm -23 <(sort -u <<<"$packages") <(echo "$linked"))
mapfile -t plain <<<"$linked"
# Without debug information the many test binaries link in half the time; vet has run in `make check`.
flags=(-vet=off -ldflags '-s -w' -timeout 10m)
hack/step.sh "unit tests with the race detector (${#raced[@]} packages)" go test -race "${flags[@]}" "${raced[@]}"
hack/step.sh "unit tests that link Kubernetes (${#plain[@]} packages)" go test "${flags[@]}" "${plain[@]}"
hack/step.sh "unit tests of the conformance runner" env -C test/conformance go test -race "${flags[@]}" ./...
