#!/usr/bin/env bash
# Says what stands in the way of starting the fleet, one line each, and changes
# nothing.
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

min_free_gb=1 # of images, volumes and logs; images.sh asks for more where it builds Consul

problems=0
problem() {
  warn "error: $*"
  problems=$((problems + 1))
}

# held: the host ports that containers of this project hold already.
held() {
  local ids
  ids=$(docker ps --quiet --filter "label=com.docker.compose.project=$(project)")
  # shellcheck disable=SC2086 # a list of words
  [ -z "$ids" ] ||
    docker inspect --format '{{range .NetworkSettings.Ports}}{{range .}}{{.HostPort}} {{end}}{{end}}' $ids | tr '\n' ' '
}

# taken PORT: whether something on this machine listens there.
taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# taken_udp PORT: as far as a machine tells us (Linux does).
taken_udp() { grep -qsi "^ *[0-9]*: [0-9A-F]*:$(printf '%04X' "$1") " /proc/net/udp /proc/net/udp6; }

is_port() {
  case $1 in
    '' | *[!0-9]* | ??????*) return 1 ;;
  esac
  [ "$1" -ge 1 ] && [ "$1" -le 65535 ]
}

# has LIST WORD: whether the words have it.
has() { case " $1 " in *" $2 "*) ;; *) false ;; esac; }

# wanted: the published ports, each with its setting and its default, and those that
# the overlays add. Those of the gateway are one for each of its containers.
wanted() {
  local name
  {
    cat <<'PORTS'
ROLLCALL_GATEWAY_PORT 8080
ROLLCALL_GATEWAY_ADMIN_PORT 8081
ROLLCALL_USERS_PORT 5000
ROLLCALL_ORDERS_PORT 5001
ROLLCALL_CONSUL_PORT 8500
ROLLCALL_CONSUL_DNS_PORT 8600
ROLLCALL_PROMETHEUS_PORT 9090
PORTS
    for name in $(overlays); do
      [ ! -f "$root/compose/with/$name.yaml" ] ||
        sed -n 's/.*{\(ROLLCALL_[A-Z_]*PORT\):-\([0-9]*\)}.*/\1 \2/p' "$root/compose/with/$name.yaml"
    done
  } | awk '!seen[$1]++'
}

# ports_of VALUE: the port, or those of a range FIRST-LAST; nothing if it is neither.
ports_of() {
  local port=${1%%-*} last=${1#*-}
  is_port "$port" && is_port "$last" && [ $((last - port)) -lt 100 ] || return 0
  while [ "$port" -le "$last" ]; do
    printf '%s ' "$port"
    port=$((port + 1))
  done
}

busy() { taken "$1" || { [ "$2" = ROLLCALL_CONSUL_DNS_PORT ] && taken_udp "$1"; }; }

# instead NAME PORT COUNT: ports to suggest, which are free and nobody else's.
instead() {
  local first=$(($2 < 55000 ? $2 + 10000 : $2 - 10000)) port last
  while last=$((first + $3 - 1)) && [ "$last" -le 65535 ]; do
    for port in $(ports_of "$first-$last"); do
      if has "$mentioned" "$port" || busy "$port" "$1"; then
        first=$((port + 1))
        continue 2
      fi
    done
    mentioned="$mentioned $(ports_of "$first-$last")"
    suggestion=$1=$first
    [ "$3" -eq 1 ] || suggestion=$suggestion-$last
    return
  done
  suggestion="$1=…"
}

check_ports() {
  local seen='' ours name value ports port count gateways
  gateways=$(setting ROLLCALL_GATEWAY_REPLICAS 1)
  case $gateways in
    [1-9] | [1-9][0-9]) ;;
    *)
      problem "ROLLCALL_GATEWAY_REPLICAS is $gateways; want 1 to 99"
      return
      ;;
  esac
  ours=$(held)
  mentioned=$(wanted | while read -r name value; do ports_of "$(setting "$name" "$value")"; done)
  while read -r name value; do
    value=$(setting "$name" "$value")
    case $name in
      ROLLCALL_GATEWAY_* | ROLLCALL_USERS_* | ROLLCALL_ORDERS_*) count=$gateways ;;
      *) count=1 ;;
    esac
    ports=$(ports_of "$value")
    if [ -z "$ports" ]; then
      problem "$name is $value; want a port from 1 to 65535"
      continue
    fi
    # With fewer a gateway finds none; with more each start may take another.
    # shellcheck disable=SC2086 # a list of words
    if [ "$(set -- $ports && echo $#)" -ne "$count" ]; then
      instead "$name" "${ports%% *}" "$count"
      problem "$name is $value, for $count gateway(s), as ROLLCALL_GATEWAY_REPLICAS says; want a port for each, such as $suggestion in .env"
      continue
    fi
    for port in $ports; do
      if has "$seen" "$port"; then
        problem "$name is $value, which another setting has taken"
        break
      fi
      seen="$seen $port"
      has "$ours" "$port" && continue
      if busy "$port" "$name"; then
        instead "$name" "${ports%% *}" "$count"
        taken "$port" || port="$port for UDP"
        problem "port $port is in use; choose another: $suggestion in .env"
        break
      fi
    done
  done <<PORTS
$(wanted)
PORTS
}

check_disk() {
  local folder free
  folder=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null)
  [ -d "$folder" ] || folder=$HOME # the engine has a disk of its own
  free=$(free_gb "$folder")
  [ "$free" -ge "$min_free_gb" ] || problem "$folder has $free GB free; want $min_free_gb GB"
}

need_docker
check_disk
check_ports
[ "$problems" -eq 0 ] || die "nothing was started"
