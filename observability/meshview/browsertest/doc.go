// Package browsertest tests the page of meshview in a browser: what it draws and says,
// that it follows the mesh, and that everybody can use it.
//
// The mesh is a Consul of discovery/consultest and processes that only have a status;
// the page is the real one. The browser is a Chromium of the machine: CHROMIUM says
// where it is, if it is not in the path. Without one the tests are skipped.
//
// It is a module of its own, so that nobody else needs what drives the browser.
//
// With -pictures DIR a test takes the page's pictures, mesh-light.png and mesh-dark.png,
// of the mesh at -url if that is given:
//
//	go test -run TestPictures -pictures ../../../docs -url http://localhost:8081/mesh/
package browsertest
