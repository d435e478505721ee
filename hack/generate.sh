#!/usr/bin/env bash
# Renews every generated file: the Go code of .proto files and the CustomResourceDefinitions.
set -euo pipefail
cd "$(dirname "$0")"
go run ./protogen .. mesh/config/mesh.proto mesh/telemetry/load.proto
cd crdgen
go run . -out ../../config/crd
