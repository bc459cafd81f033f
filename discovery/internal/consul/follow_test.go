package consul

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/consul/api"
)

// TestIndexThatGoesBackwardsIsAskedAnew is what Consul's documentation of blocking
// queries asks for: https://developer.hashicorp.com/consul/api-docs/features/blocking.
func TestIndexThatGoesBackwardsIsAskedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []uint64{7, 9, 5, 6, 0, 3}
		var asked []uint64
		ctx, cancel := context.WithCancel(t.Context())
		_ = Follow(ctx, func(q *api.QueryOptions) (int, *api.QueryMeta, error) {
			if asked = append(asked, q.WaitIndex); len(asked) > len(answers) {
				cancel()
				return 0, nil, ctx.Err()
			}
			return 0, &api.QueryMeta{LastIndex: answers[len(asked)-1]}, nil
		}, func(int, *api.QueryMeta, error) {})
		if want := []uint64{0, 7, 9, 0, 6, 0, 3}; !slices.Equal(asked, want) {
			t.Errorf("asked with the indexes %v; want %v", asked, want)
		}
	})
}
