// Command crdgen writes the CustomResourceDefinitions of the Knative kinds that Weft serves, derived by reflection from the
// published Go types. `make generate` runs it; nothing imports it. It is a module of its own, so that what generates has no say
// in the versions of what is built.
//
//	go run . -out ../../config/crd
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	out := flag.String("out", "../../config/crd", "directory that receives one file per kind")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "crdgen:", err)
		os.Exit(1)
	}
}

// run writes every definition into dir, which must exist.
func run(dir string) error {
	docs := newDocumentation()
	for _, k := range kinds() {
		data, err := render(docs, k)
		if err != nil {
			return fmt.Errorf("rendering %s: %w", k.fileName(), err)
		}
		path := filepath.Join(dir, k.fileName())
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return fmt.Errorf("writing %q: %w", path, err)
		}
	}
	return nil
}
