#!/usr/bin/env bash
# Sees to it that Grafana's image is there, before the fleet starts.
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

image=$(setting ROLLCALL_GRAFANA_IMAGE "$(sed -n 's/.*{ROLLCALL_GRAFANA_IMAGE:-\(.*\)}.*/\1/p' "$root/compose/with/grafana.yaml")")
docker image inspect "$image" >/dev/null 2>&1 && exit
log=$(mktemp)
trap 'rm -f "$log"' EXIT
say "Pulling $image"
docker pull --quiet "$image" >"$log" 2>&1 ||
  die "$image can't be pulled ($(tail -n 1 "$log")), and Grafana isn't built from source here; name another with ROLLCALL_GRAFANA_IMAGE, or leave it out with \`make up WITH=none\`"
