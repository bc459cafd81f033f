package watch

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// folder is one that a Watcher makes for itself: that of t.TempDir may be open to
// the group, by the umask.
func folder(t *testing.T) string { return filepath.Join(t.TempDir(), "snapshots") }

// remembers runs a first Watcher on the set, so that the folder holds it.
func remembers(t *testing.T, dir string, entries ...*api.ServiceEntry) {
	t.Helper()
	follow(t, Config{Dir: dir}, func(c call) reply {
		return reply{index: "7", leader: true, hang: c.kind == block, body: body(entries...)}
	}, func(t *testing.T, w *Watcher, _ *script) {
		if _, err := w.Latest(t.Context(), "order"); err != nil {
			t.Fatal(err)
		}
	})
}

func away(call) reply { return reply{broken: errors.New("connection refused")} }

func TestStartWithoutConsulBeginsWithTheSetOnDiskAndSaysSo(t *testing.T) {
	for name, absent := range map[string]struct {
		reply  reply
		within time.Duration
	}{
		"refuses":   {reply{broken: errors.New("connection refused")}, 0},
		"fails":     {reply{status: 500, body: "No cluster leader"}, 0},
		"forbids":   {reply{status: 403, body: "ACL not found"}, 0},
		"silent":    {reply{hang: true}, diskAfter},
		"no leader": {reply{index: "1"}, 0},
		"not ready": {reply{index: "1", leader: true}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			remembers(t, dir, entry("a"), entry("b", check("critical", "down")), entry("c", check("critical", "draining")))
			var lines strings.Builder
			up := false
			follow(t, Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&lines, nil))}, func(c call) reply {
				if !up {
					return absent.reply
				}
				return reply{index: "9", leader: true, hang: c.kind == block, body: body(entry("a"), entry("n"))}
			}, func(t *testing.T, w *Watcher, s *script) {
				start := time.Now()
				wantLatest(t, w, "a:passing b:critical c:draining")
				if took := time.Since(start); took > absent.within {
					t.Errorf("waited %s; want at most %s", took, absent.within)
				}
				err := trouble(t, w)
				if !errors.Is(err, catalog.ErrFromDisk) {
					t.Errorf("got trouble %v; want %v", err, catalog.ErrFromDisk)
				}
				settle(time.Minute)
				if err := trouble(t, w); !errors.Is(err, catalog.ErrFromDisk) || name == "refuses" && !strings.Contains(err.Error(), "connection refused") {
					t.Errorf("a minute later: got trouble %v; want %v and what Consul does", err, catalog.ErrFromDisk)
				}
				first, _ := w.Latest(t.Context(), "order")
				if at, _ := first.Freshness(); time.Since(at) < time.Minute {
					t.Errorf("proven %s ago; want the time of the proof in the first process", time.Since(at))
				}
				s.do(func() { up = true })
				settle(30 * time.Second)
				// b and c are gone from the catalog, and were not in good health.
				wantLatest(t, w, "a:passing n:passing")
				if err := trouble(t, w); err != nil {
					t.Errorf("after the first answer: got trouble %v; want none", err)
				}
			})
			if n := strings.Count(lines.String(), "begins with the set on disk"); n != 1 {
				t.Errorf("the log says it %d times; want once:\n%s", n, &lines)
			}
		})
	}
}

func TestConsulThatAnswersIsBelievedAndTheDiskIsNot(t *testing.T) {
	dir := folder(t)
	remembers(t, dir, entry("a"), entry("b"))
	follow(t, Config{Dir: dir}, func(c call) reply {
		return reply{index: "9", leader: true, hang: c.kind == block, after: diskAfter / 2, body: body(entry("b"))}
	}, func(t *testing.T, w *Watcher, _ *script) {
		wantLatest(t, w, "b:passing")
		settle(time.Minute)
		wantLatest(t, w, "b:passing")
	})
}

func TestWhatVanishedBetweenDiskAndFirstAnswerIsMissingForAWhile(t *testing.T) {
	dir := folder(t)
	remembers(t, dir, entry("a"), entry("b"))
	up := false
	follow(t, Config{Dir: dir}, func(c call) reply {
		if !up {
			return reply{status: 500}
		}
		return reply{index: "9", leader: true, hang: c.kind == block, body: body(entry("b"))}
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing b:passing")
		s.do(func() { up = true })
		settle(10 * time.Second)
		wantLatest(t, w, "a:passing? b:passing")
		settle(30 * time.Second)
		wantLatest(t, w, "b:passing")
	})
}

func TestSnapshotFileIsWrittenWholeForItsOwnerOnlyAndFollowsTheSet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "us")
	file := filepath.Join(dir, "order.json")
	set := []*api.ServiceEntry{entry("a")}
	changed := make(chan struct{}, 1)
	n := 7
	follow(t, Config{Dir: dir}, func(c call) reply {
		if c.kind == block {
			select {
			case <-changed:
			default:
				return reply{hang: true}
			}
		}
		return reply{index: index(n), leader: true, body: body(set...)}
	}, func(t *testing.T, w *Watcher, s *script) {
		read := func() string {
			data, err := os.ReadFile(file)
			if err != nil {
				return err.Error()
			}
			return string(data)
		}
		change := func(next ...*api.ServiceEntry) {
			s.do(func() { set, n = next, n+1 })
			settle(15 * time.Second) // an audit finds the query deaf, or a second one does
			settle(15 * time.Second)
		}
		wantLatest(t, w, "a:passing")
		settle(2 * saveDelay)
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("got permissions %v; want 0600", info.Mode().Perm())
		}
		change(entry("a"), entry("b"))
		wantLatest(t, w, "a:passing b:passing")
		if got := read(); !strings.Contains(got, `"id":"b"`) {
			t.Errorf("the file is %s; want the new set", got)
		}
		before := read()
		settle(3 * saveEvery)
		if after := read(); after == before {
			t.Error("the file's proof stands still; want it to be brought up to date every minute or so")
		}
		// Everybody leaves in order: nothing is left to remember.
		change(entry("a", check("critical", "draining")), entry("b", check("critical", "draining")))
		change()
		wantLatest(t, w, "")
		if got := read(); !strings.Contains(got, "no such file") && runtime.GOOS != "windows" {
			t.Errorf("got %s; want no file for a service that nobody offers", got)
		}
	})
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("the folder holds %v (%v); want nothing half-written", entries, err)
	}
}

func TestServiceThatNobodyOffersCostsNoFile(t *testing.T) {
	dir := folder(t)
	follow(t, Config{Dir: dir}, func(c call) reply {
		return reply{index: "7", leader: true, hang: c.kind == block}
	}, func(t *testing.T, w *Watcher, _ *script) {
		for n := range 100 {
			if _, err := w.Latest(t.Context(), fmt.Sprint("name-from-a-request-", n)); err != nil {
				t.Fatal(err)
			}
		}
		settle(time.Minute)
	})
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("the folder holds %d files (%v); want none", len(entries), err)
	}
}

func TestRecordComesBackAsItWentUnlessItsTimeIsOver(t *testing.T) {
	now := time.Now()
	full := catalog.Instance{
		ID: "a", Service: "order", Node: "n", Host: "::1", Port: 9, Tags: []string{"x", ""}, Meta: map[string]string{"k": "v\n"}, Weight: 3,
		Kind: "mesh-gateway", Region: "r", Zone: "z", State: catalog.StateMaintenance, Reason: "disk swap",
	}
	set := []catalog.Instance{full}
	for n, s := range catalog.States {
		set = append(set, catalog.Instance{ID: fmt.Sprint("b", n), Service: "order", Node: "n", Host: "h", Port: 1 + n, Weight: 1, State: s})
	}
	missing := catalog.Instance{ID: "m", Service: "order", Node: "n", Host: "m", Port: 1, Weight: 1, State: catalog.StatePassing, MissingUntil: now.Add(20 * time.Second)}
	over := missing
	over.ID, over.Host, over.MissingUntil = "o", "o", now.Add(time.Second)
	data, err := (&record{service: "order", set: append(slices.Clone(set), missing, over), since: now.Add(-time.Hour), proven: now}).encode()
	if err != nil {
		t.Fatal(err)
	}
	later := now.Add(5 * time.Second)
	r, err := decodeRecord("order", strings.NewReader(string(data)), later)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append(slices.Clone(set), missing), r.set); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	if !r.proven.Equal(now) || !r.since.Equal(now.Add(-time.Hour)) {
		t.Errorf("proven %s, since %s; want %s and an hour before", r.proven, r.since, now)
	}
	for _, at := range []time.Time{r.proven, r.since, r.set[len(r.set)-1].MissingUntil} {
		if !strings.Contains(at.String(), " m=") {
			t.Errorf("%s has no reading of the monotonic clock: a jump of the wall clock moves it", at)
		}
	}
}

// file is a good one about order, proven at the time.
func file(t *testing.T, proven time.Time) string {
	t.Helper()
	data, err := (&record{
		service: "order", since: proven, proven: proven,
		set: []catalog.Instance{{ID: "a", Service: "order", Node: "n", Host: "h", Port: 80, Weight: 1, State: catalog.StatePassing}},
	}).encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestBadSnapshotFileIsWarnedOfAndIgnored(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(good string) string
		aged  time.Duration
		mode  os.FileMode
		why   string
	}{
		"good":             {why: ""},
		"cut off":          {spoil: func(s string) string { return s[:len(s)/2] }, why: "no snapshot"},
		"empty":            {spoil: func(string) string { return "" }, why: "no snapshot"},
		"zeros":            {spoil: func(s string) string { return strings.Repeat("\x00", len(s)) }, why: "no snapshot"},
		"of others":        {spoil: func(string) string { return `{"hello":"world"}` }, why: "unknown field"},
		"goes on":          {spoil: func(s string) string { return s + s }, why: "goes on after its end"},
		"later version":    {spoil: func(s string) string { return strings.Replace(s, `"version":1`, `"version":2`, 1) }, why: "version 2; want 1"},
		"other service":    {spoil: func(s string) string { return strings.Replace(s, `"order"`, `"user"`, 1) }, why: `is about "user"`},
		"port 0":           {spoil: func(s string) string { return strings.Replace(s, `"port":80`, `"port":0`, 1) }, why: "Port is 0"},
		"unknown state":    {spoil: func(s string) string { return strings.Replace(s, "passing", "unknown", 1) }, why: `state "unknown"`},
		"no instance":      {spoil: func(s string) string { return s[:strings.Index(s, "[")] + "[]}" }, why: "no instance"},
		"old":              {aged: 25 * time.Hour, why: "ago; want at most 24h"},
		"from the future":  {aged: -2 * time.Hour, why: "from the future"},
		"almost old":       {aged: 23 * time.Hour, why: ""},
		"a little ahead":   {aged: -30 * time.Second, why: ""},
		"others may write": {mode: 0o666, why: "permissions -rw-rw-rw-; want"},
		"too large": {spoil: func(s string) string {
			return strings.Replace(s, `"id":"a"`, `"id":"a"`+strings.Repeat(" ", maxFile), 1)
		}, why: fmt.Sprint(maxFile)},
	} {
		t.Run(name, func(t *testing.T) {
			if c.mode != 0 && runtime.GOOS == "windows" {
				t.Skip("no such permissions here")
			}
			dir := folder(t)
			var lines strings.Builder
			var failed []error
			trace := &Trace{Failed: func(_ string, err error) { failed = append(failed, err) }}
			follow(t, Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&lines, nil)), Trace: trace}, away, func(t *testing.T, w *Watcher, _ *script) {
				good := file(t, time.Now().Add(-c.aged)) // the bubble's time
				if c.spoil != nil {
					good = c.spoil(good)
				}
				name := filepath.Join(dir, "order.json")
				if err := os.WriteFile(name, []byte(good), 0o600); err != nil {
					t.Fatal(err)
				}
				if c.mode != 0 {
					if err := os.Chmod(name, c.mode); err != nil {
						t.Fatal(err)
					}
				}
				got := latest(t, w)
				if c.why == "" && got != "a:passing" {
					t.Errorf("got %q; want the set on disk", got)
				}
				if c.why != "" && !strings.Contains(got, "connection refused") {
					t.Errorf("got %q; want no set, and Consul's own trouble", got)
				}
			})
			warned := strings.Count(lines.String(), "snapshot on disk ignored")
			if c.why == "" && warned != 0 || c.why != "" && (warned != 1 || !strings.Contains(failed[0].Error(), c.why)) {
				t.Errorf("warned %d times, told of %v; want %q once:\n%s", warned, failed[0], c.why, &lines)
			}
		})
	}
}

func TestSetOnDiskIsNoOlderThanStaleForAllows(t *testing.T) {
	dir := folder(t)
	follow(t, Config{Dir: dir, StaleFor: time.Minute}, away, func(t *testing.T, w *Watcher, _ *script) {
		if err := os.WriteFile(filepath.Join(dir, "order.json"), []byte(file(t, time.Now().Add(-30*time.Second))), 0o600); err != nil {
			t.Fatal(err)
		}
		wantLatest(t, w, "a:passing")
		settle(31 * time.Second)
		if _, err := w.Latest(t.Context(), "order"); !errors.Is(err, ErrStale) {
			t.Errorf("got %v; want %v: it was proven 61s ago", err, ErrStale)
		}
	})
}

func TestFolderThatCanNotBeWrittenToIsAWrongSetting(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	client := (&script{}).client(t)
	for _, dir := range []string{file, filepath.Join(file, "below"), "a\x00b"} {
		if _, err := New(Config{Client: client, Dir: dir}); err == nil || !strings.Contains(err.Error(), "watch: Dir is ") {
			t.Errorf("Dir %q: got %v; want an error that names it", dir, err)
		}
	}
	if _, err := New(Config{Client: client, DirMaxAge: -1}); err == nil || !strings.Contains(err.Error(), "DirMaxAge") {
		t.Errorf("got %v; want an error about DirMaxAge", err)
	}
}

func TestDiskThatFailsLaterIsWarnedOfOnceAndCostsNothing(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a folder in use can't be removed here")
	}
	dir := folder(t)
	var lines strings.Builder
	n := 1
	follow(t, Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&lines, nil))}, func(c call) reply {
		if c.kind == audit {
			return reply{index: index(n), leader: true}
		}
		n++
		a := reply{index: index(n), leader: true, body: body(entry("a", check("passing", ""))), after: 5 * time.Second}
		if n%2 == 0 {
			a.body, a.after = body(entry("a"), entry("b")), 0
		}
		return a
	}, func(t *testing.T, w *Watcher, _ *script) {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		wantLatest(t, w, "a:passing b:passing")
		settle(time.Minute)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
	})
	if strings.Count(lines.String(), "can't be written to disk") != 1 || strings.Count(lines.String(), "can be written to disk again") != 1 {
		t.Errorf("want one line about the loss and one about its end:\n%s", &lines)
	}
}

func TestWhatADeadProcessLeftHalfWrittenIsRemoved(t *testing.T) {
	dir := folder(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	old, young, other := filepath.Join(dir, tempPrefix+"1"), filepath.Join(dir, tempPrefix+"2"), filepath.Join(dir, "order.json")
	for _, name := range []string{old, young, other} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if name != young {
			if err := os.Chtimes(name, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w, err := New(Config{Client: (&script{}).client(t), Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for name, want := range map[string]bool{old: false, young: true, other: true} {
		if _, err := os.Stat(name); (err == nil) != want {
			t.Errorf("%s: got %v; want it there: %v", filepath.Base(name), err, want)
		}
	}
}

// FuzzSnapshotFile reads anything: no panic, and nothing that could not have
// come from Consul.
func FuzzSnapshotFile(f *testing.F) {
	now := time.Now()
	good, err := (&record{service: "order", since: now, proven: now, set: []catalog.Instance{
		{ID: "a", Service: "order", Host: "h", Port: 80, Weight: 1, State: catalog.StatePassing, MissingUntil: now.Add(time.Minute)},
	}}).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"service":"order","instances":[null,{}]}`))
	f.Add([]byte(`{"version":1,"service":"order","proven":"9999-12-31T23:59:59Z","instances":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord("order", strings.NewReader(string(data)), now)
		if err != nil {
			return
		}
		if len(r.set) == 0 || r.proven.After(now) || r.since.After(now) || !slices.IsSortedFunc(r.set, func(a, b catalog.Instance) int { return strings.Compare(a.ID, b.ID) }) {
			t.Errorf("got %+v", r)
		}
		for _, i := range r.set {
			if err := i.Validate(); err != nil || i.Service != "order" || i.State == catalog.StateUnknown || i.Missing() && !now.Before(i.MissingUntil) {
				t.Errorf("got %+v (%v)", i, err)
			}
		}
	})
}
