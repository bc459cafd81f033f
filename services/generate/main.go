// Command generate writes the Go code of the services' protobuf files beside
// them: foo.proto becomes foo.pb.go and foo_grpc.pb.go.
//
//	go run . ../..          # make generate
//	go run . -check ../..   # make generate-check: fails if that would change anything
//
// It needs no protoc: the compiler is protocompile, and the two plugins are
// tools of this module, whose go.mod names the version of each.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// plugins in the order they run; the parameter of both is the same.
var plugins = []string{"protoc-gen-go", "protoc-gen-go-grpc"}

func main() {
	check := flag.Bool("check", false, "write nothing; fail if a file is stale")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: generate [-check] ROOT")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, flag.Arg(0), *check); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// run generates the code of all protobuf files under root/services. Paths in
// descriptors are those from root, so that each is unique in the world.
func run(ctx context.Context, root string, check bool) error {
	wanted, err := generate(ctx, root)
	if err != nil {
		return err
	}
	stale, err := compare(root, wanted)
	if err != nil {
		return err
	}
	if check && len(stale) > 0 {
		return fmt.Errorf("stale: %s; want what `make generate` writes", strings.Join(stale, ", "))
	}
	for _, name := range stale {
		path := filepath.Join(root, name)
		if content, ok := wanted[name]; ok {
			err = os.WriteFile(path, content, 0o644) //nolint:gosec // source code is for everybody to read
		} else {
			err = os.Remove(path)
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, name)
	}
	return nil
}

// find returns the files under root/services whose names end so, as paths from
// root.
func find(root, suffix string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(filepath.Join(root, "services"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, suffix) {
			return err
		}
		name, err := filepath.Rel(root, path)
		found = append(found, filepath.ToSlash(name))
		return err
	})
	return found, err
}

// generate returns what the plugins make of the files, by path from root.
func generate(ctx context.Context, root string) (map[string][]byte, error) {
	names, err := find(root, ".proto")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("there is no .proto file under %s/services", root)
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{root}}),
		SourceInfoMode: protocompile.SourceInfoStandard, // comments
	}
	files, err := compiler.Compile(ctx, names...)
	if err != nil {
		return nil, err
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: names, Parameter: proto.String("paths=source_relative")}
	for _, file := range files {
		request.ProtoFile = append(request.ProtoFile, protodesc.ToFileDescriptorProto(file))
	}
	if err := selfContained(request.GetProtoFile()); err != nil {
		return nil, err
	}
	wanted := map[string][]byte{}
	for _, plugin := range plugins {
		if err := ask(ctx, plugin, request, wanted); err != nil {
			return nil, fmt.Errorf("%s: %w", plugin, err)
		}
	}
	return wanted, nil
}

// selfContained refuses imports, which none of our files has: their descriptors
// would have to be in the request, before those that import them.
func selfContained(files []*descriptorpb.FileDescriptorProto) error {
	for _, file := range files {
		if len(file.GetDependency()) > 0 {
			return fmt.Errorf("%s imports %s; want no imports, or a generate that hands them on", file.GetName(), file.GetDependency()[0])
		}
	}
	return nil
}

// ask runs a plugin as protoc does, and adds its files to wanted.
func ask(ctx context.Context, plugin string, request *pluginpb.CodeGeneratorRequest, wanted map[string][]byte) error {
	in, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "tool", plugin)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		return err
	}
	if response.Error != nil {
		return errors.New(response.GetError())
	}
	for _, file := range response.GetFile() {
		wanted[file.GetName()] = []byte(file.GetContent())
	}
	return nil
}

// compare returns what is not as wanted: files that are missing or differ, and
// generated ones whose source is gone.
func compare(root string, wanted map[string][]byte) ([]string, error) {
	stale, err := find(root, ".pb.go")
	if err != nil {
		return nil, err
	}
	stale = slices.DeleteFunc(stale, func(name string) bool { return wanted[name] != nil })
	for name, content := range wanted {
		there, err := os.ReadFile(filepath.Join(root, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if !bytes.Equal(there, content) {
			stale = append(stale, name)
		}
	}
	slices.Sort(stale)
	return stale, nil
}
