package consultest

import (
	"io"
	"net/http"
	"strconv"

	"github.com/hashicorp/consul/api"
)

// maxValue is the size of the largest value that Consul takes, in bytes.
const maxValue = 512 << 10

// getKey and putKey are reading one key and writing it, by check-and-set or not.
// Folders, locks, flags and deletion are not there.

func (a *Agent) getKey(r *http.Request) answer {
	q, key := parseQuery(r), r.PathValue("key")
	if q.err != nil {
		return failed(q.err)
	}
	if err := a.acl.permit(r, "key:read", key); err != nil {
		return failed(err)
	}
	index := func() uint64 {
		if pair := a.catalog.keys[key]; pair != nil {
			return pair.ModifyIndex
		}
		return a.catalog.kv
	}
	if err := a.block(r, q, index); err != nil {
		return failed(err)
	}
	pair := a.catalog.keys[key]
	var ans answer
	if pair != nil {
		ans = a.answer(q, index(), []*api.KVPair{pair})
	} else {
		ans = a.answer(q, index(), nil)
		ans.status = http.StatusNotFound
	}
	ans.header.Set("X-Consul-Query-Backend", "blocking-query")
	ans.header.Del("X-Consul-Effective-Consistency")
	return ans
}

func (a *Agent) putKey(r *http.Request) answer {
	key := r.PathValue("key")
	value, err := io.ReadAll(io.LimitReader(r.Body, maxValue+1))
	if err != nil {
		return failed(err)
	}
	if len(value) > maxValue {
		return failed(&httpError{http.StatusRequestEntityTooLarge, "Value exceeds the limit of 524288 bytes\n"})
	}
	if err := a.acl.permit(r, "key:write", key); err != nil {
		return failed(err)
	}
	a.reach(r)
	if !a.leader {
		return failed(&httpError{http.StatusInternalServerError, "No cluster leader"})
	}
	old := a.catalog.keys[key]
	if r.URL.Query().Has("cas") {
		want, err := strconv.ParseUint(r.URL.Query().Get("cas"), 10, 64)
		if err != nil {
			return failed(err)
		}
		if old == nil && want != 0 || old != nil && want != old.ModifyIndex {
			return encode(false)
		}
	}
	a.catalog.index++
	a.catalog.kv = a.catalog.index
	pair := &api.KVPair{Key: key, Value: value, CreateIndex: a.catalog.index, ModifyIndex: a.catalog.index}
	if old != nil {
		pair.CreateIndex = old.CreateIndex
	}
	a.catalog.keys[key] = pair
	a.notify()
	return encode(true)
}
