package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/weft-dev/weft/test/platform"
)

// serverImage is built from ./server before the first test.
const serverImage = "dev.local/e2e-server:v1"

// shared is the platform that all tests use, except those that must have one of their own.
var shared *platform.Platform

func TestMain(m *testing.M) {
	os.Exit(runMain(m))
}

func runMain(m *testing.M) int {
	p, err := platform.Start("e2e", 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "starting the platform:", err)
		return 1
	}
	shared = p
	code := 1
	if out, err := p.Weft("image", "build", serverImage, "./server"); err != nil {
		fmt.Fprintf(os.Stderr, "building the test server's image: %v\n%s", err, out)
	} else {
		code = m.Run()
	}
	if code != 0 {
		p.DumpLogs()
	}
	if err := p.Destroy(); err != nil {
		fmt.Fprintln(os.Stderr, "removing the platform:", err)
		return 1
	}
	return code
}
