package main

import (
	"math"
	"strings"
	"testing"
)

// profile has two stacks: 64 MiB of the API server in one object, which is always sampled, and 1,000 objects of 1 KiB of a
// controller, of which a sampler sees few.
const profile = `heap profile: 2: 67109888 [9: 99999999] @ heap/1048576
1: 67108864 [1: 67108864] @ 0x1 0x2
#	0x1	encoding/json.Unmarshal+0x1	/json.go:1
#	0x2	k8s.io/apiserver/pkg/storage/cacher.(*Cacher).startCaching+0x1	/cacher.go:1

2: 2048 [7: 7168] @ 0x1 0x3
#	0x1	encoding/json.Unmarshal+0x1	/json.go:1
#	0x3	github.com/weft-dev/weft/serving/route.Compile+0x1	/compile.go:1

0: 0 [3: 3072] @ 0x4
#	0x4	k8s.io/apiserver/freed+0x1	/freed.go:1

# runtime.MemStats
# Alloc = 67109888
`

func TestParseHeap(t *testing.T) {
	t.Parallel()
	got, err := parseHeap(strings.NewReader(profile))
	if err != nil {
		t.Fatal(err)
	}
	if want := float64(64 << 20); math.Abs(got.apiServer-want) > 1 {
		t.Errorf("API server holds %.0f bytes, want %.0f", got.apiServer, want)
	}
	// Two objects of 1 KiB seen, each with a chance of about 1/512.5.
	if want := float64(2 * 512.5 * 1024); math.Abs(got.controllers-want) > want/1000 {
		t.Errorf("controllers hold %.0f bytes, want about %.0f", got.controllers, want)
	}
	if _, err := parseHeap(strings.NewReader("404 page not found\n")); err == nil {
		t.Error("a page that is no profile is accepted")
	}
}
