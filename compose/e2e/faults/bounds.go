package main

import (
	"math"
	"net/http"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/judge"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
)

// bounds of each row, by its name: every one that a run is judged by stands here.
var bounds = map[string]judge.Bounds{
	"scale":            {Values: map[string]judge.Range{share: atLeast(0.35)}, Words: "newcomers (half of six) take their share in 5 s"},
	"restart-services": {},
	"restart-gateways": {Values: map[string]judge.Range{waitedForUs: exactly(0)}, Words: "after the client's own try of the other port"},
	"kill-order":       {Alert: "RollcallTargetDown", Notice: 10 * time.Second, Values: map[string]judge.Range{failedDials: atMost(10)}, Words: "out of use after its first failed dial: those besides it were under way"},
	"pause-order":      {P99From: 2 * time.Second},
	"errors":           {Alert: "RollcallInstancesOut", Share: 0.005, Notice: 2 * time.Second, Recover: 40 * time.Second, Words: "ejected, and back in use"},
	"slow":             {Values: map[string]judge.Range{shareSlow: atMost(0.05)}},
	"hang-posts": {Posts: hangingPosts, Recover: 40 * time.Second, Words: "the POSTs that fail are those which it had before it was out, and its trials", Values: map[string]judge.Range{
		outAfter: atMost(5), lateFailures: atMost(6), executionsPost: atMost(1), uncounted: exactly(0),
	}},
	// A POST with a key goes to one after another: so it is begun at each of the three.
	"slow-everywhere":  {Values: map[string]judge.Range{executionsGet: atMost(2), executionsPost: atMost(3), uncounted: exactly(0), ejections: exactly(0)}},
	"open-streams":     {Share: 0.005, Notice: 5 * time.Second, Recover: 30 * time.Second, Values: map[string]judge.Range{streamsOpen: exactly(streamsHeld)}, Words: "its share back"},
	"lost-syn":         {Values: map[string]judge.Range{lostPackets: atLeast(3), ejections: exactly(0)}},
	"consul-restart":   {},
	"consul-wipe":      {Recover: time.Second, Words: "all registered"},
	"consul-pause":     {Alert: "RollcallSnapshotOld", Values: map[string]judge.Range{age: atLeast(50)}},
	"consul-away-swap": {},
	"consul-away-up":   {Recover: 3 * time.Second, Words: "the newcomer is in use"},
	"disconnect":       {Posts: judge.Any, Recover: 40 * time.Second, Words: "back in use under whatever address it got"},
	"all-critical":     {Alert: "RollcallPanicMode", Values: map[string]judge.Range{panics: atLeast(1)}},
	"maintenance":      {Values: map[string]judge.Range{late: exactly(0), left: exactly(1)}, Words: "no request to it from 1 s on, and our registration leaves it so"},
	"rotate-token": {Recover: 5 * time.Second, Words: "20 s after the rotation a drain shows in the catalog, and an instance that leaves is gone from it", Values: map[string]judge.Range{
		drainShows: atMost(5), blocked: exactly(0), tooMany: exactly(0),
	}},
	"two-agents": {Words: "a minute later the catalog has one entry for each instance, and the log says once what is wrong", Values: map[string]judge.Range{
		tooMany: exactly(0), notThere: exactly(0), rewritten: exactly(0), told: atLeast(1), toldMost: atMost(1),
	}},
	"servers-wiped":         {Recover: 13 * time.Second, Words: "found within 12 s of the agent's having a leader, then mended"},
	"swap":                  {Values: map[string]judge.Range{misdirected: atLeast(1)}, Words: "none answered by the wrong service"},
	"consul-refuses":        {Alert: "RollcallSnapshotOld", Values: map[string]judge.Range{failing: exactly(1)}, Words: "set kept, said loudly"},
	"users-killed":          {Excused: quickRefusal, Recover: time.Second, Words: "none that order can answer by itself; the rest a 503 problem in under 1 s"},
	"disk-full":             {Alert: "RollcallBudgetBurn1h", Excused: fullDisk, Words: "POSTs 503 or 507 problems, nothing half-written"},
	"overload":              {Alert: "RollcallShedding", Excused: shed, Recover: 2 * time.Second, Values: map[string]judge.Range{goodput: atLeast(0.8), slowdown: atMost(3)}, Words: "shed with 503 and Retry-After"},
	"poison":                {Alert: "RollcallEntriesRefused", Values: map[string]judge.Range{refused: atLeast(1)}, Words: "each bad entry counted with its reason"},
	"clock":                 {},
	"scale-grpc":            {Values: neverWithoutUser},
	"restart-services-grpc": {Values: neverWithoutUser},
	"kill-user-grpc":        {Values: neverWithoutUser},
	"pause-user-grpc":       {Values: neverWithoutUser},
	"consul-wipe-grpc":      {Values: neverWithoutUser, Recover: time.Second, Words: "all registered"},
	"exactly-once": {Words: "of 1,000 orders by 20 clients every one is stored once, whatever happens to the instances", Values: map[string]judge.Range{
		ordersAcknowledged: exactly(clients * ordersEach), ordersStored: exactly(clients * ordersEach), ordersDistinct: exactly(clients * ordersEach), integrityOK: exactly(1),
	}},
}

// The names of what rows measure besides the requests.
const (
	share       = "share of the newcomers"
	failedDials = "failed dials"
	shareSlow   = "share of the slow one from 5 s on"
	age         = "age of the snapshot as shown (s)"
	panics      = "picks in panic mode"
	late        = "requests to it from 1 s on"
	left        = "in maintenance at the end"
	failing     = "gateway says that it can't ask Consul"
	goodput     = "goodput to capacity"
	slowdown    = "p99 of the accepted to that before"

	drainShows = "a drain shows in the catalog after (s)"
	blocked    = "words that ACLs kept from the catalog from 20 s on"
	tooMany    = "entries that no instance has"
	notThere   = "instances without a passing entry"
	rewritten  = "entries written anew in the last 20 s"
	told       = "instances that log the error"
	toldMost   = "most such lines of one instance"

	ordersAcknowledged = "orders acknowledged"
	ordersStored       = "orders stored"
	ordersDistinct     = "different orders stored"
	integrityOK        = "integrity of the database"

	waitedForUs    = "waited half a second and were sent while both ran"
	outAfter       = "out of use after the end of the third wait (s)"
	lateFailures   = "POSTs failed of those sent once it was out"
	executionsGet  = "executions of one GET"
	executionsPost = "executions of one POST"
	uncounted      = "answered requests whose execution was not counted"
	ejections      = "ejections of orders"
	streamsOpen    = "streams to it that are open at the end"
	lostPackets    = "first packets lost"
	misdirected    = "tries answered 421"
	withoutUser    = "answers that were given without asking user"

	refused = "refused entries to those that can't be used"
)

// neverWithoutUser is for the rows in which user is asked by gRPC: no order was shown without asking it.
var neverWithoutUser = map[string]judge.Range{withoutUser: exactly(0)}

// hangingPosts is how many POSTs may fail at an order that hangs on them. What waits counts as load, so it gets about
// one a second of the 20 there are, for 10 s at most; the rest is for its trials.
const hangingPosts = 25

func atLeast(v float64) judge.Range { return judge.Range{Min: v, Max: math.Inf(1)} }
func atMost(v float64) judge.Range  { return judge.Range{Min: math.Inf(-1), Max: v} }
func exactly(v float64) judge.Range { return judge.Range{Min: v, Max: v} }

// quickRefusal is what a request is owed that only user could answer, when there is none.
func quickRefusal(s *traffic.Sample) bool {
	own := s.Method == http.MethodGet && s.Path == traffic.OrdersPath // order answers it from its own store
	return !own && s.Problem && s.Status == http.StatusServiceUnavailable && s.Took < time.Second
}

// fullDisk is what a POST is owed when there is no room for it.
func fullDisk(s *traffic.Sample) bool {
	return s.Method == http.MethodPost && s.Problem && (s.Status == http.StatusServiceUnavailable || s.Status == http.StatusInsufficientStorage)
}

// shed is what a request is owed that is too much.
func shed(s *traffic.Sample) bool {
	return s.Problem && s.Status == http.StatusServiceUnavailable && s.Retry != ""
}
