#!/usr/bin/env bash
# Brings the fleet up and returns when all of it is found, healthy and scraped.
# What stands in the way is said before anything is started.
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

patience=${ROLLCALL_WAIT:-180} # seconds until the fleet counts as not coming up

gateway=http://localhost:$(setting ROLLCALL_GATEWAY_PORT 8080)
users=http://localhost:$(setting ROLLCALL_USERS_PORT 5000)
orders=http://localhost:$(setting ROLLCALL_ORDERS_PORT 5001)
admin=http://localhost:$(setting ROLLCALL_GATEWAY_ADMIN_PORT 8081)
consul=http://localhost:$(setting ROLLCALL_CONSUL_PORT 8500)
prometheus=http://localhost:$(setting ROLLCALL_PROMETHEUS_PORT 9090)

get() { curl --silent --noproxy '*' --max-time 3 "$@"; }
status() { get --output /dev/null --write-out '%{http_code}' "$1" || true; }

# count PATTERN: how often it occurs in the input.
count() { (grep -o "$1" || true) | wc -l | tr -d ' '; }

# passing SERVICE: its healthy instances in the catalog.
passing() { (get "$consul/v1/health/service/$1?passing" || true) | count '"Service":{"ID":'; }

# containers SERVICE: how many there should be of it.
containers() {
  docker ps --all --quiet --filter "label=com.docker.compose.project=$(project)" \
    --filter "label=com.docker.compose.service=$1" | wc -l | tr -d ' '
}

# look: sets seen, a line that tells what is there, and returns whether it is
# all that there should be.
look() {
  local service have want total=2 ready=yes targets url code
  seen=
  for service in user order gateway prometheus; do
    want=$(containers "$service")
    [ "$service" = prometheus ] || total=$((total + want))
    have=$(passing "$service")
    seen="$seen$service $have/$want, "
    [ "$have" -eq "$want" ] || ready=no
  done
  # Scraped are the instances, Consul and Prometheus itself.
  targets=$(get "$prometheus/api/v1/targets?state=active" || true)
  have=$(printf '%s' "$targets" | count '"health":"up"')
  seen="$seen""scraped $have/$total"
  [ "$have" -eq "$total" ] || ready=no
  [ "$(printf '%s' "$targets" | count '"health":')" -eq "$total" ] || ready=no
  for url in "$gateway/users/1" "$gateway/orders/1" "$users/users/1" "$orders/orders/1"; do
    code=$(status "$url")
    [ "$code" = 200 ] && continue
    [ "$code" != 000 ] || code='no answer'
    seen="$seen, $url: $code"
    ready=no
  done
  [ "$ready" = yes ]
}

# blame: each container that is not well, with its last words.
blame() {
  local id state
  for id in $(compose ps --all --quiet); do
    state=$(docker inspect --format '{{.State.Status}}{{with .State.Health}}, {{.Status}}{{end}}' "$id")
    case $state in
      running | 'running, healthy') continue ;;
    esac
    warn ''
    warn "$(docker inspect --format '{{.Name}}' "$id" | cut -c 2-) is $state; its last lines:"
    docker logs --tail 10 "$id" 2>&1 | sed 's/^/    /' >&2
  done
}

wait_until_up() {
  local began=$SECONDS told=0
  until look; do
    if [ $((SECONDS - began)) -ge "$patience" ]; then
      warn "error: not up after $patience s: $seen"
      blame
      warn ''
      die "left running, to be looked at: \`docker compose logs\`, \`make down\`"
    fi
    if [ $((SECONDS - told)) -ge 3 ]; then
      say "  $((SECONDS - began)) s: $seen"
      told=$SECONDS
    fi
    sleep 0.5
  done
  say "  $((SECONDS - began)) s: $seen"
}

"$root/compose/check.sh"
"$root/compose/images.sh"
say "Starting the fleet"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly "$log" compose up --detach --remove-orphans || {
  blame
  die "docker compose could not start the fleet"
}
say "Waiting until it is found, healthy and scraped ($patience s at most)"
wait_until_up
# A Prometheus built from its Go module has the API and our page, but not the
# pages of its own.
page=$prometheus/targets
[ "$(setting ROLLCALL_PULL_POLICY missing)" != never ] || page="$prometheus/consoles/service.html?service=order"
cat <<END

The mesh is up:
  curl $gateway/orders/1
  curl $gateway/users/1

  Consul       $consul/ui
  Prometheus   $page
  gateway      $admin/debug/discovery

  docker compose up -d --scale order=5
END
