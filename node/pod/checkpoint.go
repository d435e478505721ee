package pod

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
)

// checkpointFile, in a pod's directory, is what is needed to stop the pod when the API forgets it while the agent is down.
const checkpointFile = "pod.json"

type checkpoint struct {
	Pod     *v1.Pod   `json:"pod"`
	Started time.Time `json:"started"`
}

func writeCheckpoint(dir string, pod *v1.Pod, started time.Time) error {
	raw, err := json.Marshal(checkpoint{Pod: pod, Started: started})
	if err != nil {
		return fmt.Errorf("encoding the checkpoint: %w", err)
	}
	path := filepath.Join(dir, checkpointFile)
	if err := os.WriteFile(path+".tmp", raw, 0o600); err != nil {
		return fmt.Errorf("writing the checkpoint: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("replacing the checkpoint: %w", err)
	}
	return nil
}

func readCheckpoint(dir string) (checkpoint, error) {
	raw, err := os.ReadFile(filepath.Join(dir, checkpointFile))
	if err != nil {
		return checkpoint{}, fmt.Errorf("reading the checkpoint: %w", err)
	}
	var c checkpoint
	if err := json.Unmarshal(raw, &c); err != nil {
		return checkpoint{}, fmt.Errorf("decoding the checkpoint: %w", err)
	}
	if c.Pod == nil {
		return checkpoint{}, fmt.Errorf("decoding the checkpoint in %q: no pod", dir)
	}
	return c, nil
}
