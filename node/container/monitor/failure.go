package monitor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// runtimeError makes an error of what the OCI runtime wrote to its log: the last message at level error.
func runtimeError(status syscall.WaitStatus) error {
	data, err := os.ReadFile(runtimeLog)
	if err != nil {
		return fmt.Errorf("OCI runtime ended with code %d and no message: %w", status.ExitStatus(), err)
	}
	message := ""
	for line := range bytes.Lines(data) {
		var entry struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.Level == "error" {
			message = entry.Msg
		}
	}
	if message == "" {
		return fmt.Errorf("OCI runtime ended with code %d", status.ExitStatus())
	}
	return errors.New(message)
}
