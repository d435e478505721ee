# Verbs for people and machines. `make help` lists them.
SHELL := /usr/bin/env bash -o pipefail
.DEFAULT_GOAL := help

BIN     := $(CURDIR)/bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
KUBE    := v1.36.3

# Kubernetes reports the version that its build was stamped with; clients refuse v0.0.0-master.
KUBE_LDFLAGS := -X k8s.io/component-base/version.gitVersion=$(KUBE) -X k8s.io/component-base/version.gitMajor=1 \
	-X k8s.io/component-base/version.gitMinor=36 -X k8s.io/client-go/pkg/version.gitVersion=$(KUBE) \
	-X k8s.io/client-go/pkg/version.gitMajor=1 -X k8s.io/client-go/pkg/version.gitMinor=36
# No -trimpath: with it, Kubernetes would be compiled once for the binary and once more for the tests.
LDFLAGS := -s -w -X main.version=$(VERSION)

export GOTOOLCHAIN := local

.PHONY: help build demo up down test unit e2e kn conformance-serving check lint generate bench clean runtime

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

runtime:
	@hack/runtime.sh

build: runtime ## build bin/weft, bin/weft-proxy and bin/weft-shim (the first time takes 6-8 minutes on 2 cores)
	@hack/step.sh "building weft-shim" go build -ldflags '$(LDFLAGS)' -o $(BIN)/weft-shim ./cmd/shim
	@hack/step.sh "building weft-proxy" go build -ldflags '$(LDFLAGS)' -o $(BIN)/weft-proxy ./cmd/proxy
	@hack/step.sh "building weft (with Kubernetes $(KUBE))" go build -ldflags '$(LDFLAGS) $(KUBE_LDFLAGS)' -o $(BIN)/weft ./cmd/weft

demo: build ## start the platform, deploy samples/hello, show it cold, warm, split and at zero
	@PATH="$(BIN):$$PATH" hack/demo.sh

up: build ## start the platform in the background
	@$(BIN)/weft up --detach

down: ## stop the platform
	@$(BIN)/weft down

test: check unit e2e ## everything that continuous integration runs

unit: runtime ## unit tests, with the race detector where Kubernetes itself is not linked
	@hack/test-unit.sh

# The client that the end-to-end tests drive, at the version that its own module pins.
$(BIN)/kn: hack/kn/go.mod hack/kn/go.sum
	@hack/step.sh "building kn" env -C hack/kn go build -ldflags '-s -w' -o $@ knative.dev/client/cmd/kn

kn: $(BIN)/kn

e2e: build kn ## end-to-end tests on a platform of their own
	@hack/step.sh "end-to-end tests" env PATH="$(BIN):$$PATH" WEFT_BIN=$(BIN) go test -count=1 -timeout 20m -v ./test/e2e

conformance-serving: build ## Knative Serving's conformance suites on a platform of their own; E2E=1 adds its end-to-end tests
	@cd test/conformance && PATH="$(BIN):$$PATH" go run ./run -bin $(BIN) -results results/serving.md $(if $(E2E),-e2e)

check: ## formatting, vet, import walls, documents and generated files
	@hack/check.sh

lint: ## golangci-lint, at the version pinned in hack/golangci-lint/go.mod (minutes the first time)
	@hack/lint.sh

generate: ## renew *.pb.go and config/crd
	@hack/generate.sh

bench: build ## run the benchmarks and record bench/results
	@PATH="$(BIN):$$PATH" WEFT_BIN=$(BIN) go run ./bench/coldstart -results bench/results
	@PATH="$(BIN):$$PATH" WEFT_BIN=$(BIN) go run ./bench/services -results bench/results
	@hack/bench-peers.sh
	@go run ./bench/proxy -results bench/results

clean: ## remove what was built
	@rm -rf $(BIN) $(CURDIR)/dist
