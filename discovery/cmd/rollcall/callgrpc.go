package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/health/grpc_health_v1" // is described without reflection
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
)

// overGRPC returns what makes a call of gRPC; end releases it.
func (c *callCmd) overGRPC(ctx context.Context, s *session, mesh *discovery.Mesh, data []byte, headers []header) (call caller, end func(), err error) {
	var cfg grpcmesh.ClientConfig
	if c.TLS {
		settings := &tls.Config{ServerName: c.Service} // of the system's roots
		if identity := mesh.TLS(); identity != nil {
			settings = identity.Client(c.Service)
		}
		cfg.Credentials = credentials.NewTLS(settings)
	}
	m, err := c.described(ctx, s, mesh, cfg)
	if err != nil {
		return nil, nil, err
	}
	if len(data) == 0 {
		data = []byte("{}")
	}
	in := dynamicpb.NewMessage(m.method.Input())
	if err := (protojson.UnmarshalOptions{Resolver: m.types}).Unmarshal(data, in); err != nil {
		return nil, nil, &exitError{exitUsage, fmt.Errorf("--data is no %s in JSON: %w", m.method.Input().FullName(), err)}
	}
	cfg.Repeatable = map[string]bool{m.path(): m.repeatable()}
	conn, err := grpcmesh.NewClient(mesh, c.Service, cfg)
	if err != nil {
		return nil, nil, &exitError{exitUsage, err}
	}
	var pairs []string
	for _, h := range headers {
		pairs = append(pairs, h.name, h.value)
	}
	call = func(ctx context.Context) (a answer) {
		ctx = metadata.AppendToOutgoingContext(grpcmesh.WithReport(ctx, &a.report), pairs...)
		out := dynamicpb.NewMessage(m.method.Output())
		err := conn.Invoke(ctx, m.path(), in, out)
		a.status = status.Code(err).String()
		switch _, failed := errors.AsType[*grpcmesh.Error](err); {
		case failed:
			a.err = err
		case err != nil: // the service's own word
			a.answered, a.body = true, []byte(status.Convert(err).Message())
		default:
			a.answered = true
			a.body, a.err = (protojson.MarshalOptions{Multiline: true, Resolver: m.types}).Marshal(out)
		}
		if c.Requests > 1 {
			a.body = nil
		}
		return a
	}
	return call, func() { _ = conn.Close() }, nil
}

// method is one that can be called without its generated code.
type method struct {
	method protoreflect.MethodDescriptor
	types  *dynamicpb.Types
}

func (m method) path() string {
	return "/" + string(m.method.Parent().FullName()) + "/" + string(m.method.Name())
}

// repeatable is what the proto says of it.
func (m method) repeatable() bool {
	options, ok := m.method.Options().(*descriptorpb.MethodOptions)
	return ok && options.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
}

// described finds the method that is to be called: among what this program knows itself,
// else at an instance.
func (c *callCmd) described(ctx context.Context, s *session, mesh *discovery.Mesh, cfg grpcmesh.ClientConfig) (method, error) {
	service, name, ok := strings.Cut(strings.TrimPrefix(c.Path, "/"), "/")
	if !ok || !protoreflect.FullName(service).IsValid() || !protoreflect.Name(name).IsValid() {
		return method{}, &exitError{exitUsage, fmt.Errorf("the method is %q; want package.Service/Method", c.Path)}
	}
	files := protoregistry.GlobalFiles
	if _, err := files.FindDescriptorByName(protoreflect.FullName(service)); err != nil {
		conn, err := grpcmesh.NewClient(mesh, c.Service, cfg)
		if err != nil {
			return method{}, &exitError{exitUsage, err}
		}
		defer func() { _ = conn.Close() }()
		limited, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		if files, err = reflected(limited, conn, service); err != nil {
			return method{}, fmt.Errorf("ask %s to describe %s by server reflection: %w", c.Service, service, err)
		}
	}
	found, err := files.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return method{}, fmt.Errorf("%s does not describe %s: %w", c.Service, service, err)
	}
	described, ok := found.(protoreflect.ServiceDescriptor)
	if !ok {
		return method{}, &exitError{exitUsage, fmt.Errorf("%s is no service of gRPC; want package.Service/Method", service)}
	}
	m := method{described.Methods().ByName(protoreflect.Name(name)), dynamicpb.NewTypes(files)}
	switch {
	case m.method == nil:
		return method{}, &exitError{exitUsage, fmt.Errorf("%s has no method %s; it has %s", service, name, methods(described))}
	case m.method.IsStreamingClient() || m.method.IsStreamingServer():
		return method{}, &exitError{exitUsage, fmt.Errorf("%s/%s is a stream; want a unary method", service, name)}
	}
	return m, nil
}

func methods(of protoreflect.ServiceDescriptor) string {
	var names []string
	for n := range of.Methods().Len() {
		names = append(names, string(of.Methods().Get(n).Name()))
	}
	return join(names)
}

// mostFiles bounds the files that an instance may describe a service with.
const mostFiles = 1000

// reflected asks an instance for the files that describe a symbol.
func reflected(ctx context.Context, conn *grpc.ClientConn, symbol string) (*protoregistry.Files, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, withAdvice(err)
	}
	files := map[string]*descriptorpb.FileDescriptorProto{}
	ask := func(q *reflectionpb.ServerReflectionRequest) error {
		if err := stream.Send(q); err != nil {
			_, err = stream.Recv() // says why
			return withAdvice(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			return withAdvice(err)
		}
		if problem := answer.GetErrorResponse(); problem != nil {
			return status.Error(codes.Code(problem.GetErrorCode()), problem.GetErrorMessage())
		}
		for _, text := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
			file := new(descriptorpb.FileDescriptorProto)
			if err := proto.Unmarshal(text, file); err != nil {
				return fmt.Errorf("it describes itself by what is no file: %w", err)
			}
			files[file.GetName()] = file
		}
		return nil
	}
	err = ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol}})
	// Not every server sends what a file imports along with it.
	for name := missing(files); err == nil && name != ""; name = missing(files) {
		err = ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileByFilename{FileByFilename: name}})
		if err == nil && (files[name] == nil || len(files) > mostFiles) {
			err = fmt.Errorf("it does not send the file %s, or more than %d of them", name, mostFiles)
		}
	}
	if err != nil {
		return nil, err
	}
	set := new(descriptorpb.FileDescriptorSet)
	for _, file := range files {
		set.File = append(set.File, file)
	}
	return protodesc.NewFiles(set)
}

// missing returns a file that another one imports; empty if each is there.
func missing(files map[string]*descriptorpb.FileDescriptorProto) string {
	for _, file := range files {
		for _, name := range file.GetDependency() {
			if files[name] == nil {
				return name
			}
		}
	}
	return ""
}

// withAdvice says what to do where there is no reflection.
func withAdvice(err error) error {
	if status.Code(err) == codes.Unimplemented {
		return fmt.Errorf("%w; have it offer reflection (grpcmesh.ServerConfig.Reflection; the services of the fleet: ROLLCALL_GRPC_REFLECTION=on). Without, grpc.health.v1.Health/Check can be called alone", err)
	}
	return err
}
