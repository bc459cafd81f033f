// Package orderapi is a client of the service order, generated from
// openapi.yaml. It knows HTTP, and nothing of the mesh.
package orderapi

//go:generate env GOWORK=off go -C ../generate tool oapi-codegen -generate types,client -package orderapi -o ../orderapi/client.gen.go ../orderapi/openapi.yaml
