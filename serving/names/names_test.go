package names

import (
	"strings"
	"testing"
)

func TestChild(t *testing.T) {
	t.Parallel()
	// The expected names with a hash were computed with kmeta.ChildName of knative.dev/pkg.
	tests := []struct {
		name, parent, suffix, want string
	}{
		{name: "short", parent: "hello", suffix: "-00001", want: "hello-00001"},
		{name: "exactly 63", parent: strings.Repeat("a", 57), suffix: "-00001", want: strings.Repeat("a", 57) + "-00001"},
		{
			name: "parent too long", parent: strings.Repeat("f", 63), suffix: "-deployment",
			want: "ffffffffffffffffffff105d7597f637e83cc711605ac3ea4957-deployment",
		},
		{
			name: "suffix too long", parent: "asdf", suffix: strings.Repeat("f", 63),
			want: "asdf0597a43416f7410496b2a4daf9a34be9fffffffffffffffffffffffffff",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := Child(tt.parent, tt.suffix); got != tt.want {
				t.Errorf("Child(%q, %q) = %q, want %q", tt.parent, tt.suffix, got, tt.want)
			}
		})
	}
}

func TestRevision(t *testing.T) {
	t.Parallel()
	if got, want := Revision("hello", 42), "hello-00042"; got != want {
		t.Errorf("Revision = %q, want %q", got, want)
	}
	if got := Revision(strings.Repeat("x", 63), 1); len(got) != 63 || !strings.HasSuffix(got, "-00001") {
		t.Errorf("Revision of a long name = %q (%d characters), want 63 characters that end with -00001", got, len(got))
	}
	if a, b := Revision(strings.Repeat("x", 63), 1), Revision(strings.Repeat("x", 62)+"y", 1); a == b {
		t.Errorf("two long configurations share the revision name %q", a)
	}
}
