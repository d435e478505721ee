#!/usr/bin/env bash
# Runs the unit tests. Packages that link Kubernetes itself run without the race detector: building all of Kubernetes with it takes
# longer than every test together and finds nothing of ours.
set -euo pipefail
cd "$(dirname "$0")/.."

list() { # packages with tests, that link Kubernetes itself ($1 = yes) or not ($1 = no)
	go list -test -f '{{if and (not .ForTest) (or .TestGoFiles .XTestGoFiles)}}{{.ImportPath}}{{end}}' ./... | grep -v '/test/e2e$' | sort -u |
		while read -r p; do
			if go list -test -deps "$p" | grep -q '^k8s\.io/kubernetes/'; then link=yes; else link=no; fi
			[ $link = "$1" ] && echo "$p" || true
		done
}

mapfile -t raced < <(list no)
mapfile -t plain < <(list yes)
hack/step.sh "unit tests with the race detector (${#raced[@]} packages)" go test -race -timeout 10m "${raced[@]}"
hack/step.sh "unit tests that link Kubernetes (${#plain[@]} packages)" go test -timeout 10m "${plain[@]}"
