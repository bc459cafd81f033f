package e2e

import (
	"testing"
	"time"
)

// TestFleet runs one check after the other on one fleet, from its clean state: first what it answers, then what
// it shows, then what becomes of requests when parts of it go. A check leaves the fleet as it found it.
func TestFleet(t *testing.T) {
	m := clean(t)
	for _, check := range []struct {
		name string
		run  func(*testing.T, *mesh)
	}{
		{"AnswersTableByteForByte", testAnswersTableByteForByte},
		{"TutorialPortsServeOneServiceEach", testTutorialPortsServeOneServiceEach},
		{"AnswersNameInstanceAndRequest", testAnswersNameInstanceAndRequest},
		{"RequestsAreSpreadOverOrders", testRequestsAreSpreadOverOrders},
		{"BadInputIsRefusedWithProblem", testBadInputIsRefusedWithProblem},
		{"PostIsSeenByAllOrders", testPostIsSeenByAllOrders},

		{"ConsulListsEverybodyPassing", testConsulListsEverybodyPassing},
		{"PrometheusScrapesEverybodyFoundThroughConsul", testPrometheusScrapesEverybodyFoundThroughConsul},
		{"EveryQueryOfADashboardHasData", testEveryQueryOfADashboardHasData},
		{"AdminPortShowsGatewayAndTrafficPortsDoNot", testAdminPortShowsGatewayAndTrafficPortsDoNot},
		{"RequestForAnotherServiceIsRefused", testRequestForAnotherServiceIsRefused},
		{"PageShowsTheFleetAndFollowsAScaleUp", testPageShowsTheFleetAndFollowsAScaleUp},
		{"CommandRunsInAContainer", testCommandRunsInAContainer},
		{"ContainersHaveNoRights", testContainersHaveNoRights},
		{"StockGoKitClientFindsAndCallsAllOrders", testStockGoKitClientFindsAndCallsAllOrders},
		{"WrongSettingStopsStartWithOneLine", testWrongSettingStopsStartWithOneLine},

		{"ScalingUpAndDownFailsNoRequest", testScalingUpAndDownFailsNoRequest},
		{"StoppedOrderDrainsAndExitsWithZero", testStoppedOrderDrainsAndExitsWithZero},
		{"KilledOrderFailsNoGetAndNoPostThatHadNotReachedIt", testKilledOrderFailsNoGetAndNoPostThatHadNotReachedIt},
		{"PausedOrderFailsNoGet", testPausedOrderFailsNoGet},
		{"OneRequestIsOneTraceInJaegerAndASlowBucketLeadsToIt", testOneRequestIsOneTraceInJaegerAndASlowBucketLeadsToIt},
		{"ConsulRestartedWithItsDataFailsNoGet", testConsulRestartedWithItsDataFailsNoGet},
		{"ConsulRecreatedWithoutItsDataFailsNoGet", testConsulRecreatedWithoutItsDataFailsNoGet},
		{"OrderStartsWithoutConsulAndRegistersWhenItComes", testOrderStartsWithoutConsulAndRegistersWhenItComes},
		{"DownAndUpKeepsDataAndShowsOnlyLivingInstances", testDownAndUpKeepsDataAndShowsOnlyLivingInstances},
	} {
		t.Run(check.name, func(t *testing.T) {
			m.repair(t)
			began := time.Now()
			defer func() {
				t.Logf("took %v", time.Since(began).Round(100*time.Millisecond))
				if t.Failed() {
					t.Logf("after the failure:\n%s", m.dump())
				}
			}()
			check.run(t, m)
		})
	}
}
