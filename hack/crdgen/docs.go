package main

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
)

// documentation finds what the source of the types says about their fields, which reflection cannot see. It may be used concurrently.
type documentation struct {
	// mu guards packages.
	mu sync.Mutex
	// packages holds, by import path and type name, the sentence about the type under "" and those about its fields.
	packages map[string]map[string]map[string]string
}

func newDocumentation() *documentation {
	return &documentation{packages: map[string]map[string]map[string]string{}}
}

// typeDoc is the first sentence about a type.
func (d *documentation) typeDoc(t reflect.Type) (string, error) { return d.fieldDoc(t, "") }

// fieldDoc is the first sentence about a field. One is enough for kubectl explain, and all of them would triple the definitions,
// which the API server keeps in memory several times.
func (d *documentation) fieldDoc(t reflect.Type, field string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	types, ok := d.packages[t.PkgPath()]
	if !ok {
		var err error
		if types, err = parse(t.PkgPath()); err != nil {
			return "", err
		}
		d.packages[t.PkgPath()] = types
	}
	return types[t.Name()][field], nil
}

// parse reads the source of a package.
func parse(path string) (map[string]map[string]string, error) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		return nil, fmt.Errorf("finding package %s: %w", path, err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "*.go"))
	if err != nil {
		return nil, fmt.Errorf("listing package %s: %w", path, err)
	}
	types := map[string]map[string]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(filepath.Base(name), "zz_generated") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parsing package %s: %w", path, err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if decl, ok := n.(*ast.GenDecl); ok {
				describe(types, decl)
			}
			return true
		})
	}
	return types, nil
}

// describe notes the sentences of the struct types in a declaration.
func describe(types map[string]map[string]string, decl *ast.GenDecl) {
	for _, spec := range decl.Specs {
		named, ok := spec.(*ast.TypeSpec)
		if !ok {
			continue
		}
		structure, ok := named.Type.(*ast.StructType)
		if !ok {
			continue
		}
		comment := named.Doc
		if comment == nil {
			comment = decl.Doc
		}
		fields := map[string]string{"": sentence(comment)}
		for _, field := range structure.Fields.List {
			for _, name := range field.Names {
				fields[name.Name] = sentence(field.Doc)
			}
		}
		types[named.Name.Name] = fields
	}
}

// sentence is the first of a comment, without the markers for generators.
func sentence(comment *ast.CommentGroup) string {
	if comment == nil {
		return ""
	}
	var lines []string
	for line := range strings.Lines(comment.Text()) {
		if trimmed := strings.TrimSpace(line); !strings.HasPrefix(trimmed, "+") && trimmed != "---" {
			lines = append(lines, line)
		}
	}
	var none doc.Package
	return none.Synopsis(strings.Join(lines, ""))
}
