// Package config carries the install manifests inside the binary: the custom resource definitions, which a generator in hack/
// makes from the Go types, and the namespaces. `weft up` applies them. It imports no other package of Weft.
package config

import "embed"

// CRDs holds crd/*.yaml, one custom resource definition per file.
//
//go:embed crd/*.yaml
var CRDs embed.FS

// Core holds core/*.yaml: the namespaces and what else must be there before controllers start.
//
//go:embed core/*.yaml
var Core embed.FS
