package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// What else can be laid over the fleet to look at it has no more rights than the fleet.
func TestOverlaysToLookAtTheFleetGiveContainersNoRights(t *testing.T) {
	for name, port := range map[string]string{"grafana": "3000", "alertmanager": "9093"} {
		t.Run(name, func(t *testing.T) {
			s, ok := project(t, nil, "compose/with/"+name+".yaml").Services[name]
			if !ok {
				t.Fatalf("the overlay has no service %s", name)
			}
			if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
				t.Errorf("read_only %v, cap_drop %v, security_opt %v; want true, ALL and no-new-privileges:true", s.ReadOnly, s.CapDrop, s.SecurityOpt)
			}
			if strings.HasPrefix(s.User, "0") || s.User == "" {
				t.Errorf("user is %q; want one that is not root", s.User)
			}
			if len(s.Ports) != 1 || s.Ports[0].HostIP != "127.0.0.1" || s.Ports[0].Published != port {
				t.Errorf("ports %+v; want %s of this machine only", s.Ports, port)
			}
			mountsAreThereAndReadOnly(t, s)
		})
	}
}

func TestAlertmanagerIsWherePrometheusLooksForIt(t *testing.T) {
	prometheus := project(t, nil, "compose/with/alertmanager.yaml").Services["prometheus"]
	mountsAreThereAndReadOnly(t, prometheus)
	at := slices.IndexFunc(prometheus.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == "/etc/alertmanagers" })
	if at < 0 {
		t.Fatalf("Prometheus has the mounts %+v; want one at /etc/alertmanagers", prometheus.Volumes)
	}
	config, err := os.ReadFile(root(t) + "/observability/prometheus/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(config), "/etc/alertmanagers/*.yml") {
		t.Error("Prometheus does not look for targets at /etc/alertmanagers/*.yml")
	}
	targets, err := os.ReadFile(prometheus.Volumes[at].Source + "/alertmanager.yml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(targets), `"alertmanager:9093"`) {
		t.Errorf("the targets are %s; want the service's name and port", targets)
	}
}

func mountsAreThereAndReadOnly(t *testing.T, s types.ServiceConfig) {
	t.Helper()
	for _, v := range s.Volumes {
		if v.Type != types.VolumeTypeBind {
			continue
		}
		if _, err := os.Stat(v.Source); err != nil {
			t.Errorf("%s mounts what is not there: %v", s.Name, err)
		}
		if !v.ReadOnly {
			t.Errorf("%s can write to %s", s.Name, v.Source)
		}
	}
}
