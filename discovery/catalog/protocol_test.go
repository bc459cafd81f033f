package catalog_test

import (
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

func TestAnEntrySpeaksHTTPUnlessItsTagsSayOtherwise(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		tags       []string
		http, grpc bool
		word       string
	}{
		{nil, true, false, "http"},
		{[]string{"v2", "primary"}, true, false, "http"},
		{[]string{"http"}, true, false, "http"},
		{[]string{"grpc"}, false, true, "grpc"},
		{[]string{"grpc", "http"}, true, true, "http,grpc"},
	} {
		i := catalog.Instance{Tags: c.tags}
		if got := i.Speaks(catalog.HTTP); got != c.http {
			t.Errorf("tags %q speak HTTP: %v; want %v", c.tags, got, c.http)
		}
		if got := i.Speaks(catalog.GRPC); got != c.grpc {
			t.Errorf("tags %q speak gRPC: %v; want %v", c.tags, got, c.grpc)
		}
		if got := i.Protocol(); got != c.word {
			t.Errorf("tags %q speak %s; want %s", c.tags, got, c.word)
		}
	}
}

func TestAnEntrySpeaksTLSByItsMeta(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{"": false, "false": false, "yes": false, "true": true} {
		i := catalog.Instance{Meta: map[string]string{catalog.MetaTLS: value}}
		if got := i.TLS(); got != want {
			t.Errorf("%s=%q is TLS: %v; want %v", catalog.MetaTLS, value, got, want)
		}
	}
}
