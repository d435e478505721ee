// Command tiny prints what a built image gives to its program.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	data, err := os.ReadFile(filepath.Join(os.Getenv("KO_DATA_PATH"), "greeting.txt"))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if err := os.WriteFile("/tmp/mine", nil, 0o600); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Printf("%suid %d, colour %s\n", data, os.Getuid(), os.Getenv("COLOUR"))
}
