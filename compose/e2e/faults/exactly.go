package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the driver

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
)

const (
	clients      = 20
	ordersEach   = 50
	chaosSeed    = 6
	orderTimeout = 2 * time.Minute // for one order, with all its repetitions
)

// exactlyOnce has 20 clients post 1,000 orders, each repeated with its key until it is acknowledged, while instances
// are killed, paused, scaled, made to die between commit and answer, and Consul is restarted.
func exactlyOnce(ctx context.Context, r *trial) error {
	name := fmt.Sprintf("once-%d", time.Now().UnixNano())
	user, err := r.newUser(ctx, name)
	if err != nil {
		return err
	}
	r.start()
	var posting sync.WaitGroup
	var acknowledged, repeated, gaveUp atomic.Int64
	for c := range clients {
		posting.Go(func() {
			for n := range ordersEach {
				item := fmt.Sprintf("%s-%d-%d", name, c, n)
				tries, err := r.order(ctx, user, item)
				repeated.Add(int64(tries - 1))
				if err != nil {
					gaveUp.Add(1)
					continue
				}
				acknowledged.Add(1)
				if rig.Pause(ctx, 700*time.Millisecond) != nil {
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { posting.Wait(); close(done) }()
	made, err := r.chaos(ctx, done)
	<-done
	r.end()
	if err != nil {
		return err
	}
	if err := r.recovered(ctx, "all are registered", r.usual); err != nil {
		return err
	}
	r.m.Values[ordersAcknowledged] = float64(acknowledged.Load())
	r.note("%d repetitions by the clients, %d orders given up; %s", repeated.Load(), gaveUp.Load(), made)
	return r.stored(ctx, user, name)
}

// order posts one until it is acknowledged.
func (r *trial) order(ctx context.Context, user int64, item string) (tries int, err error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	for {
		tries++
		var status int
		if status, err = r.post(ctx, user, item); status == http.StatusCreated {
			return tries, nil
		}
		if err == nil {
			err = fmt.Errorf("status %d", status)
		}
		if rig.Pause(ctx, 200*time.Millisecond) != nil {
			return tries, err
		}
	}
}

var poster = &http.Client{Timeout: 5 * time.Second}

func (r *trial) post(ctx context.Context, user int64, item string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("%s/orders/%d", r.Gateway(), user), strings.NewReader(fmt.Sprintf(`{"item":%q}`, item)))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", `"`+item+`"`)
	resp, err := poster.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// chaos makes faults, one after another, until done; the seed makes their order the same each time.
func (r *trial) chaos(ctx context.Context, done <-chan struct{}) (string, error) {
	random := rand.New(rand.NewPCG(chaosSeed, chaosSeed)) //nolint:gosec // it is to be repeatable
	made := map[string]int{}
	kinds := []string{"kill", "pause", "scale", "crash", "consul"}
	for {
		kind := kinds[random.IntN(len(kinds))]
		made[kind]++
		if err := r.disturb(ctx, kind, random); err != nil {
			return "", fmt.Errorf("%s: %w", kind, err)
		}
		select {
		case <-done:
			_, err := r.Compose(ctx, "up", "--detach", "--no-recreate")
			return fmt.Sprintf("faults, seed %d: %v", chaosSeed, made), err
		default:
		}
		if err := rig.Pause(ctx, 500*time.Millisecond); err != nil {
			return "", err
		}
	}
}

func (r *trial) disturb(ctx context.Context, kind string, random *rand.Rand) error {
	cs, err := r.Running(ctx, "order")
	if err != nil || len(cs) == 0 {
		return errors.Join(err, errors.New("no order runs"))
	}
	c := cs[random.IntN(len(cs))]
	switch kind {
	case "kill":
		if err := r.docker(ctx, "kill", "--signal", "KILL", c.ID); err != nil {
			return err
		}
		if err := rig.Pause(ctx, 2*time.Second); err != nil {
			return err
		}
		return r.docker(ctx, "start", c.ID)
	case "pause":
		if err := r.docker(ctx, "pause", c.ID); err != nil {
			return err
		}
		err := rig.Pause(ctx, 3*time.Second)
		return errors.Join(err, r.docker(context.WithoutCancel(ctx), "unpause", c.ID))
	case "scale":
		_, err := r.Compose(ctx, "up", "--detach", "--no-recreate", "--scale", fmt.Sprintf("order=%d", 2+random.IntN(3)))
		return err
	case "crash": // it dies between the commit of its next order and the answer, and the engine starts it again
		if err := r.Fault(ctx, c, rig.Setting{Crash: "order.committed"}); err != nil {
			return nil //nolint:nilerr // it may have died of an earlier fault, and not be back
		}
		return rig.Pause(ctx, 2*time.Second)
	default:
		consul, err := r.consul(ctx)
		if err != nil {
			return err
		}
		return r.docker(ctx, "restart", consul.ID)
	}
}

// stored counts the orders in the database itself, read from a copy of its files.
func (r *trial) stored(ctx context.Context, user int64, name string) error {
	mount, err := r.Docker(ctx, "volume", "inspect", "--format", "{{.Mountpoint}}", r.Project+"_order-data")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "faults-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// Nobody writes any more, so the copy is of one moment.
	if err := os.CopyFS(dir, os.DirFS(strings.TrimSpace(mount))); err != nil {
		return notMade("the orders' disk can't be reached from here: " + err.Error())
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "order.db"))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	var integrity string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&integrity); err != nil {
		return err
	}
	r.note("integrity_check: %s", integrity)
	if integrity == "ok" {
		r.m.Values[integrityOK] = 1
	}
	var all, items, ids float64
	if err := db.QueryRowContext(ctx, "SELECT count(*), count(DISTINCT item), count(DISTINCT order_id) FROM orders WHERE user_id = ? AND item LIKE ?", user, name+"-%").
		Scan(&all, &items, &ids); err != nil {
		return err
	}
	maps.Copy(r.m.Values, map[string]float64{ordersStored: all, ordersDistinct: min(items, ids)})
	return nil
}
