// Package config carries the install manifests inside the binary: the custom resource definitions, which a generator in hack/
// makes from the Go types, the namespaces, and config maps with examples. `weft up` applies them. It imports no other package of Weft.
package config

import "embed"

// CRDs holds crd/*.yaml, one custom resource definition per file.
//
//go:embed crd/*.yaml
var CRDs embed.FS

// Core holds core/*.yaml: the namespaces, and config maps that configure nothing until somebody edits them.
//
//go:embed core/*.yaml
var Core embed.FS
