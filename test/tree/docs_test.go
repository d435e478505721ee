package tree

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// root is the repository's, seen from this package.
const root = "../.."

// files are all that the repository is made of, by their path in it. What is built is not among them.
var files = sync.OnceValues(func() (map[string]bool, error) {
	found := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{".git", "bin", "dist"}, name) {
			return filepath.SkipDir
		}
		found[name] = entry.IsDir()
		return nil
	})
	return found, err
})

// contents returns the files whose path ends so.
func contents(t *testing.T, suffix string) map[string]string {
	t.Helper()
	all, err := files()
	if err != nil {
		t.Fatalf("listing files: %v", err)
	}
	found := make(map[string]string)
	for name, folder := range all {
		if folder || !strings.HasSuffix(name, suffix) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		found[name] = string(data)
	}
	if len(found) == 0 {
		t.Fatalf("no file ends in %q", suffix)
	}
	return found
}

// references returns the first group of each match in the documents, with the document that has it.
func references(t *testing.T, pattern string) map[string][]string {
	t.Helper()
	expression := regexp.MustCompile(pattern)
	found := make(map[string][]string)
	for document, text := range contents(t, ".md") {
		for _, match := range expression.FindAllStringSubmatch(text, -1) {
			found[document] = append(found[document], match[1])
		}
	}
	if len(found) == 0 {
		t.Fatalf("no document matches %s", pattern)
	}
	return found
}

func TestLinksOfDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	for document, links := range references(t, `\]\(([^)\s]+)\)`) {
		for _, link := range links {
			path, _, _ := strings.Cut(link, "#")
			if path == "" || strings.Contains(link, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(document), path)); err != nil {
				t.Errorf("%s links to %s: %v", document, link, err)
			}
		}
	}
}

// TestPathsInDocumentsExist is about paths that are named without a link, from the root of the repository on.
func TestPathsInDocumentsExist(t *testing.T) {
	t.Parallel()
	all, err := files()
	if err != nil {
		t.Fatalf("listing files: %v", err)
	}
	for document, paths := range references(t, "`(?:\\./)?([a-z]+/[A-Za-z0-9_./-]*)`") {
		for _, path := range paths {
			top, _, _ := strings.Cut(path, "/")
			if !all[top] {
				continue // Not a path of the repository.
			}
			if _, ok := all[strings.TrimSuffix(path, "/")]; !ok {
				t.Errorf("%s names %s, which does not exist", document, path)
			}
		}
	}
}

func TestTestsInDocumentsExist(t *testing.T) {
	t.Parallel()
	code := strings.Join(slices.Collect(maps.Values(contents(t, "_test.go"))), "\n")
	for document, names := range references(t, "`((?:Test|Benchmark|Fuzz)[A-Z]\\w+)`") {
		for _, name := range names {
			if !strings.Contains(code, "\nfunc "+name+"(") {
				t.Errorf("%s names %s, which does not exist", document, name)
			}
		}
	}
}

func TestVerbsInDocumentsExist(t *testing.T) {
	t.Parallel()
	makefile := contents(t, "Makefile")["Makefile"]
	for document, verbs := range references(t, "(?m)(?:^    |`)make ([a-z][a-z0-9-]*)") {
		for _, verb := range verbs {
			if !regexp.MustCompile(`(?m)^` + verb + `:.*## `).MatchString(makefile) {
				t.Errorf("%s names make %s, which make help does not", document, verb)
			}
		}
	}
}
