// Package grpcmesh lets gRPC clients and servers join the mesh.
package grpcmesh
