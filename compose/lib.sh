# Shared by the scripts of this folder; sourced, never run.
# Written for bash 3.2, which is what macOS has.
# shellcheck shell=bash disable=SC2034 # its variables are used by those who source it

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${XDG_CACHE_HOME:-$HOME/.cache}/rollcall/tools

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() {
  warn "error: $*"
  exit 1
}

# setting NAME DEFAULT: from the environment, else from .env, else the default:
# the order that Compose has.
setting() {
  local value=${!1-}
  if [ -z "$value" ] && [ -f "$root/.env" ]; then
    value=$(sed -n "s/^[[:space:]]*\(export \)\{0,1\}$1=//p" "$root/.env" | tail -n 1 | tr -d "\"'\r")
  fi
  printf '%s' "${value:-$2}"
}

# project: the name that Compose labels our containers, volumes and images with.
project() { setting COMPOSE_PROJECT_NAME rollcall; }

# compose ARGUMENT…: as a person in the root of the clone would call it, so that
# what .env remembers holds here too.
compose() { (cd "$root" && docker compose "$@"); }

# What overlays write: certificates and tokens. A folder for each, which only its
# owner may enter.
secrets=$root/compose/.secrets

# overlays: the names of those that the fleet has now, in order: the files of
# compose/with in COMPOSE_FILE.
overlays() { setting COMPOSE_FILE '' | tr ':' '\n' | sed -n 's#^compose/with/\(.*\)\.yaml$#\1#p'; }

# all_overlays: the names that there are.
all_overlays() { (cd "$root/compose/with" 2>/dev/null && for file in *.yaml; do printf '%s\n' "${file%.yaml}"; done) | sed '/^\*$/d'; }

# quietly LOG COMMAND…: runs a command whose output is of use only if it fails.
quietly() {
  local log=$1
  shift
  if ! "$@" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    return 1
  fi
}

# need_docker: the client, and an engine that answers.
need_docker() {
  command -v docker >/dev/null ||
    die "docker is not on the PATH; install Docker Engine 20.10 or newer"
  docker version --format '{{.Server.Version}}' >/dev/null 2>&1 ||
    die "the Docker engine does not answer; start it, or see what \`docker info\` says"
}

need_compose() {
  docker compose version >/dev/null 2>&1 ||
    die "docker has no compose plugin yet; \`make up\` installs one"
}

# The variable that a binary's version is stamped into.
version_variable=github.com/rollcall-mesh/rollcall/services/internal/app.Version

# version: of the services. A test build has a name of its own, so that its
# images never pass for those of production.
version() {
  local v=${ROLLCALL_VERSION:-} tags=${ROLLCALL_TAGS:-}
  [ -n "$v" ] || v=$(git -C "$root" describe --tags --always --dirty 2>/dev/null) || v=dev
  [ -n "${ROLLCALL_VERSION:-}" ] || v=$v${tags:+-${tags//,/-}}
  printf '%s' "$v"
}

# The lines of .env that are ours stand between these two; the others are left
# as a person wrote them.
env_begin='# rollcall: written by make up, replaced each time'
env_end='# rollcall: end'

# write_env LINE…: our lines of .env. None: takes them out, and the file with
# them if nothing else is in it.
write_env() {
  local new=$root/.env.new
  if [ -f "$root/.env" ]; then
    awk -v begin="$env_begin" -v end="$env_end" \
      '$0 == begin { ours = 1 } !ours { print } $0 == end { ours = 0 }' "$root/.env" >"$new"
  else
    : >"$new"
  fi
  [ $# -eq 0 ] || printf '%s\n' "$env_begin" "$@" "$env_end" >>"$new"
  if [ -s "$new" ]; then
    mv "$new" "$root/.env"
  else
    rm -f "$new" "$root/.env"
  fi
}

# set_env NAME=VALUE…: these lines of ours in .env; the others of ours stay. One
# without a value is taken out.
set_env() {
  local line lines=''
  [ ! -f "$root/.env" ] || lines=$(awk -v begin="$env_begin" -v end="$env_end" \
    '$0 == end { ours = 0 } ours { print } $0 == begin { ours = 1 }' "$root/.env")
  for line; do
    lines=$(printf '%s\n' "$lines" | sed "/^${line%%=*}=/d")
    [ -z "${line#*=}" ] || lines=$lines${lines:+$'\n'}$line
  done
  write_env ${lines:+"$lines"}
}

# free_gb FOLDER: whole gigabytes that are free where it lies.
free_gb() { df -Pk "$1" | awk 'NR == 2 { print int($4 / 1048576) }'; }
