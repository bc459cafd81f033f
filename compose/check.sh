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

# taken PORT: whether somebody on this machine listens there.
taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# taken_udp PORT: as far as a machine tells us (Linux does).
taken_udp() { grep -qsi "^ *[0-9]*: [0-9A-F]*:$(printf '%04X' "$1") " /proc/net/udp /proc/net/udp6; }

is_port() {
  case $1 in
    '' | *[!0-9]* | ??????*) return 1 ;;
  esac
  [ "$1" -ge 1 ] && [ "$1" -le 65535 ]
}

# other PORT: one to suggest instead.
other() { printf '%s' $(($1 < 55000 ? $1 + 10000 : $1 - 10000)); }

check_ports() {
  local seen=' ' name port ours
  ours=" $(held)"
  while read -r name port; do
    port=$(setting "$name" "$port")
    if ! is_port "$port"; then
      problem "$name is $port; want a port from 1 to 65535"
      continue
    fi
    case $seen in
      *" $port "*)
        problem "$name is $port, which another setting has taken"
        continue
        ;;
    esac
    seen="$seen$port "
    case $ours in
      *" $port "*) continue ;;
    esac
    if taken "$port"; then
      problem "port $port is in use; choose another: $name=$(other "$port") in .env"
    elif [ "$name" = ROLLCALL_CONSUL_DNS_PORT ] && taken_udp "$port"; then
      problem "UDP port $port is in use; choose another: $name=$(other "$port") in .env"
    fi
  done <<'PORTS'
ROLLCALL_GATEWAY_PORT 8080
ROLLCALL_GATEWAY_ADMIN_PORT 8081
ROLLCALL_USERS_PORT 5000
ROLLCALL_ORDERS_PORT 5001
ROLLCALL_CONSUL_PORT 8500
ROLLCALL_CONSUL_DNS_PORT 8600
ROLLCALL_PROMETHEUS_PORT 9090
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
