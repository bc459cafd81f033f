// Package userapi is a client of the service user, generated from
// openapi.yaml. It knows HTTP, and nothing of the mesh.
package userapi

//go:generate env GOWORK=off go -C ../generate tool oapi-codegen -generate types,client -package userapi -o ../userapi/client.gen.go ../userapi/openapi.yaml
