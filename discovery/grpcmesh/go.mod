module github.com/rollcall-mesh/rollcall/discovery/grpcmesh

go 1.26.7
