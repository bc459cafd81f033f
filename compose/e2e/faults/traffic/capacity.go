package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// together is how many clients Capacity has: enough for every processor to be at work.
const together = 8

// Capacity is how many orders are listed in a second at a gateway, and well, while eight clients ask for them one
// after another. What the first third of the time gave does not count: connections are made in it.
func Capacity(ctx context.Context, base string, lasts time.Duration) (perSecond float64, err error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: together, DisableCompression: true}, Timeout: lasts}
	defer client.CloseIdleConnections()
	a := vegeta.NewAttacker(vegeta.Client(client), vegeta.Workers(together), vegeta.MaxWorkers(together), vegeta.MaxBody(1<<20))
	target := vegeta.NewStaticTargeter(vegeta.Target{Method: http.MethodGet, URL: base + OrdersPath})
	began := time.Now()
	counted, wrong := 0, 0
	for r := range a.Attack(target, vegeta.Rate{}, lasts, "") {
		switch {
		case ctx.Err() != nil:
			a.Stop() // and then reads what is still told
		case r.Timestamp.Sub(began) < lasts/3:
		case r.Code == http.StatusOK:
			counted++
		default:
			wrong++
		}
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if counted == 0 {
		return 0, errors.New("traffic: no answer while nothing is wrong; want some")
	}
	if wrong > counted/100 {
		return 0, fmt.Errorf("traffic: %d of %d answers are no 200 while nothing is wrong", wrong, wrong+counted)
	}
	return float64(counted) / (lasts * 2 / 3).Seconds(), nil
}
