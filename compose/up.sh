#!/usr/bin/env bash
# Brings the fleet up and returns when all of it is found, healthy and scraped.
# What stands in the way is said before anything is started.
#
#   compose/up.sh [NAME,NAME|none]
#
# The names are overlays, the files compose/with/NAME.yaml. They are remembered
# in .env, for each later `make` and `docker compose`, until others are named.
# compose/with/NAME.sh, where there is one, is run when the images are there and
# before the fleet starts.
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

patience=${ROLLCALL_WAIT:-180} # seconds until the fleet counts as not coming up

get() { curl --silent --noproxy '*' --max-time 3 "$@"; }
status() { get --output /dev/null --write-out '%{http_code}' "$1" || true; }

# at NAME PORT SERVICE TARGET: the URL of a port of the fleet, of its first
# container if the setting NAME is a range.
at() {
  local port
  port=$(setting "$1" "$2")
  case $port in
    *-*) port=$(compose port "$3" "$4" | sed 's/.*://') ;;
  esac
  printf 'http://localhost:%s' "$port"
}

# locate: sets where things are.
locate() {
  gateway=$(at ROLLCALL_GATEWAY_PORT 8080 gateway 8080)
  users=$(at ROLLCALL_USERS_PORT 5000 gateway 5000)
  orders=$(at ROLLCALL_ORDERS_PORT 5001 gateway 5001)
  admin=$(at ROLLCALL_GATEWAY_ADMIN_PORT 8081 gateway 8081)
  consul=$(at ROLLCALL_CONSUL_PORT 8500 consul 8500)
  prometheus=$(at ROLLCALL_PROMETHEUS_PORT 9090 prometheus 9090)
  local name
  for name in $(overlays); do
    [ -f "$secrets/$name/consul.curl" ] || continue
    consul=https${consul#http}
    asking=(--config "$secrets/$name/consul.curl")
  done
}
asking=() # curl's options for Consul

# ids [FLAG]: of the project's containers that run; with --all, of all.
ids() { docker ps --quiet ${1:+"$1"} --filter "label=com.docker.compose.project=$(project)" --filter label=com.docker.compose.oneoff=False; }

# containers: a line for each of ours: its service, its health, its addresses.
containers() {
  # shellcheck disable=SC2046 # a list of words
  docker inspect --format \
    '{{index .Config.Labels "com.docker.compose.service"}} {{with .State.Health}}{{.Status}}{{else}}none{{end}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' \
    $(ids --all) || true
}

# each NAME: the answer of Prometheus or Consul on the input, one object of the
# list NAME a line.
each() { sed "s/{\"$1\":/\\
/g"; }

# any BEFORE AFTER WORD…: whether a line of the input has one of the words
# between the two.
any() {
  local before=$1 after=$2 word patterns=()
  shift 2
  for word; do patterns+=(-e "$before$word$after"); done
  grep -qF "${patterns[@]}"
}

# look: sets seen, a line that tells what is there of what is ours, and returns
# whether it is all that there should be. What others have in the catalog is
# their business.
look() {
  local all targets catalog service one health addresses names want have total=0 scraped=0 healthy=0 ready=yes url code
  seen=
  all=$(containers)
  targets=$(get "$prometheus/api/v1/targets?state=active" | each discoveredLabels | grep -F '"health":"up"' | sed 's#"scrapeUrl":"https:#"scrapeUrl":"http:#' || true)
  for service in consul user order gateway prometheus; do
    catalog=$(get ${asking[@]+"${asking[@]}"} "$consul/v1/health/service/$service?passing" || true)
    want=0 have=0
    while read -r one health addresses; do
      [ "$one" = "$service" ] || continue
      want=$((want + 1))
      [ "$health" != healthy ] || healthy=$((healthy + 1))
      names=$service # by which Consul and Prometheus know each other
      [ "$service" != prometheus ] || names='prometheus localhost'
      # shellcheck disable=SC2086 # a list of words
      ! any '"Address":"' '"' $addresses $names <<<"$catalog" || have=$((have + 1))
      # shellcheck disable=SC2086 # a list of words
      ! any '"scrapeUrl":"http://' ':' $addresses $names <<<"$targets" || scraped=$((scraped + 1))
    done <<<"$all"
    total=$((total + want))
    seen="$seen$service $have/$want, "
    [ "$have" -eq "$want" ] && [ "$want" -gt 0 ] || ready=no
  done
  seen="$seen""scraped $scraped/$total, healthy $healthy/$total"
  [ "$scraped" -eq "$total" ] && [ "$healthy" -eq "$total" ] || ready=no
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

# choose_overlays LIST: remembers them.
choose_overlays() {
  local files=compose.yaml all name
  [ -n "$1" ] || return 0
  [ -z "${COMPOSE_FILE:-}" ] || die "WITH is $1, and the environment has a COMPOSE_FILE; want one of them"
  all=$(all_overlays)
  for name in $(printf '%s' "$1" | tr ',' ' '); do
    [ "$1" != none ] || break
    printf '%s\n' "$all" | grep -qxF -e "$name" ||
      die "WITH is $1, and there is no $name; want none, or some of ${all//$'\n'/, }"
    case ":$files:" in
      *":compose/with/$name.yaml:"*) ;;
      *) files=$files:compose/with/$name.yaml ;;
    esac
  done
  [ "$files" != compose.yaml ] || files=
  set_env "COMPOSE_FILE=$files"
}

# prepare: what the overlays need before the fleet starts.
prepare() {
  local name
  for name in $(overlays); do
    [ ! -f "$root/compose/with/$name.sh" ] || "$root/compose/with/$name.sh" </dev/null || exit
  done
}

# interrupted: says what there is now, when the command that was interrupted has
# ended. Its output may still be redirected.
interrupted() {
  trap '' INT TERM
  exec 2>&3
  if [ -z "$started" ]; then
    die "interrupted; nothing was started, and what was built is kept for the next \`make up\`"
  fi
  die "interrupted; $(ids | wc -l | tr -d ' ') of the fleet's containers run: \`make up\` goes on, \`make down\` stops them"
}

started=
log=$(mktemp)
trap 'rm -f "$log"' EXIT
exec 3>&2
trap interrupted INT TERM
choose_overlays "${1:-}"
"$root/compose/check.sh"
"$root/compose/images.sh"
with=$(overlays | tr '\n' ' ')
say "Starting the fleet${with:+, with ${with% }}"
started=yes
prepare
quietly "$log" compose up --detach --remove-orphans || {
  blame
  die "docker compose could not start the fleet"
}
locate
say "Waiting until it is found, healthy and scraped ($patience s at most)"
wait_until_up
jaeger=
! overlays | grep -qxF traces || jaeger="
  Jaeger       $(at ROLLCALL_JAEGER_PORT 16686 jaeger 16686)"
cat <<END

The mesh is up:
  curl $gateway/orders/1
  curl $gateway/users/1

  the mesh     $admin/mesh/
  Consul       $consul/ui
  Prometheus   $prometheus/$jaeger

  docker compose up -d --scale order=5
END
