//go:build faults

package overload_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/services/internal/fault"
	"github.com/rollcall-mesh/rollcall/services/internal/overload"
)

// The capacity that the end-to-end test sets, as it sets it.
func TestCapacitySetByFaultsIsWhatTheLimitFinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		admin := fault.Admin(http.NotFoundHandler())
		put := func(setting string) {
			w := httptest.NewRecorder()
			admin.ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/faults", strings.NewReader(setting)))
			if w.Code != 200 {
				t.Fatalf("PUT /faults: %d %s", w.Code, w.Body)
			}
		}
		put(`{"slots":4,"hold":"20ms"}`)
		defer put(`{}`)
		served := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Millisecond) })
		l, h := limited(t, overload.Config{}, fault.Traffic(served))
		got := load{handler: h, perSecond: 3 * capacity, lasts: overloop}.run()
		if s := got.served(); len(s) < int(.8*capacity*overloop.Seconds()) || s.p99() >= 3*(held+time.Millisecond) {
			t.Errorf("%v; want 80%% of %v, and p99 below thrice the unloaded 21ms", got, capacity*overloop.Seconds())
		}
		put(`{}`)
		after := load{handler: h, perSecond: capacity, lasts: 5 * time.Second}.run()
		if late := after.only(func(a answer) bool { return a.at > 2*time.Second }); late.shed() > 0 {
			t.Errorf("from 2s after it healed: %v; want none shed", late)
		}
		if limit, _ := l.Now(overload.Read); limit != 48 {
			t.Errorf("the limit is %d; want 48 again", limit)
		}
	})
}
