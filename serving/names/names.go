// Package names holds the names that serving gives to the objects it creates. They are public: users, kn and the upstream
// test suites look objects up by them. The reconcilers below serving/ call it; it imports nothing of Weft.
package names

import (
	"crypto/md5" //nolint:gosec // not for security: upstream's shortened names contain MD5, and they must stay equal
	"encoding/hex"
	"fmt"
	"strings"
)

const (
	// longest is the longest name that may also be the value of a label.
	longest = 63
	// head is what remains of longest beside an MD5 sum in hexadecimal.
	head = longest - 2*md5.Size
	// generationDigits pads the generation so that revisions sort by name.
	generationDigits = 5
)

// Revision is the name of the revision that a configuration creates for one of its generations when the user names none.
func Revision(configuration string, generation int64) string {
	return Child(configuration, fmt.Sprintf("-%0*d", generationDigits, generation))
}

// Deployment is the name of a revision's Deployment.
func Deployment(revision string) string {
	return Child(revision, "-deployment")
}

// PodAutoscaler is the name of a revision's PodAutoscaler.
func PodAutoscaler(revision string) string {
	return revision
}

// Child joins parent and suffix to a name of at most 63 characters. What does not fit is replaced by the MD5 sum of the
// parent, the rule of knative.dev/pkg/kmeta.ChildName, so that objects keep the names that tools expect.
func Child(parent, suffix string) string {
	if len(parent)+len(suffix) <= longest {
		return parent + suffix
	}
	if len(suffix) < head {
		return parent[:head-len(suffix)] + sum(parent) + suffix
	}
	// The suffix alone leaves no room: the sum covers both, and as much as possible of each remains readable.
	name := parent[:min(head, len(parent))] + sum(parent+suffix)
	if room := longest - len(name); room > 0 {
		name += suffix[:room]
	}
	return strings.TrimRightFunc(name, func(r rune) bool { return !alphanumeric(r) })
}

func sum(s string) string {
	h := md5.Sum([]byte(s)) //nolint:gosec // see the import
	return hex.EncodeToString(h[:])
}

func alphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}
