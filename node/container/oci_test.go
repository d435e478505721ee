package container_test

import (
	"testing"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/container/containertest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	containertest.Conformance(t, containertest.Harness{
		New:    func(t *testing.T) container.Runtime { t.Helper(); return newRuntime(t, newInstance(t)) },
		Layers: []string{layer()},
	})
}
