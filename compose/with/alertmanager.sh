#!/usr/bin/env bash
# Builds Alertmanager and its image where images can't be pulled, before the fleet
# starts.
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

[ "$(setting ROLLCALL_PULL_POLICY missing)" = never ] || exit 0
folder=$("$root/compose/tools/build.sh" alertmanager "linux/$(docker version --format '{{.Server.Arch}}')")
image=$(project)/alertmanager:$("$root/compose/tools/build.sh" --name alertmanager | sed 's/.*-//')
log=$(mktemp)
trap 'rm -f "$log"' EXIT
ROLLCALL_ALERTMANAGER_FOLDER=$folder ROLLCALL_ALERTMANAGER_IMAGE=$image \
  quietly "$log" docker compose -p "$(project)" -f "$root/compose/with/alertmanager/build.yaml" build ||
  die "the image of Alertmanager could not be built"
set_env "ROLLCALL_ALERTMANAGER_IMAGE=$image"
