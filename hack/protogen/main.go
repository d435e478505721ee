// Command protogen compiles Weft's .proto files to Go. It parses them itself and drives the pinned protoc-gen-go and
// protoc-gen-go-grpc, so that no machine needs protoc.
//
//	go run ./protogen DIR FILE...
//
// FILEs are relative to DIR, the repository's root, below which the code is written.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: protogen DIR FILE...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(dir string, files []string) error {
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{dir}}),
		// Comments in the .proto become the documentation of the Go code.
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(context.Background(), files...)
	if err != nil {
		return err
	}
	for _, file := range compiled {
		descriptor := protoutil.ProtoFromFileDescriptor(file)
		plugins := []string{"protoc-gen-go"}
		if len(descriptor.GetService()) > 0 {
			plugins = append(plugins, "protoc-gen-go-grpc")
		}
		for _, plugin := range plugins {
			if err := generate(dir, plugin, descriptor); err != nil {
				return fmt.Errorf("generating %s with %s: %w", file.Path(), plugin, err)
			}
		}
	}
	return nil
}

// generate runs one plugin on one file by protoc's plugin protocol: a request on standard input, a response on standard output.
func generate(dir, plugin string, file *descriptorpb.FileDescriptorProto) error {
	request, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{file.GetName()},
		Parameter:      proto.String("module=github.com/weft-dev/weft"),
		ProtoFile:      []*descriptorpb.FileDescriptorProto{file},
	})
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "tool", plugin)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(request), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		return fmt.Errorf("reading the plugin's response: %w", err)
	}
	if response.Error != nil {
		return fmt.Errorf("plugin: %s", response.GetError())
	}
	for _, f := range response.GetFile() {
		if err := os.WriteFile(filepath.Join(dir, f.GetName()), []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
