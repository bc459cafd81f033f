#!/usr/bin/env bash
# Builds a tool from its Go module, once per version and machine, and prints
# the folder it is in:
#
#   compose/tools/build.sh [--name] NAME [linux/ARCH]
#
# --name only prints how that folder is called.
# NAME is alertmanager (with amtool), compose, consul, prometheus (with promtool),
# jaeger, golangci-lint or gotestsum. With a platform the binaries are for the
# containers, else for this machine. A later run, in this clone or another, finds them
# in the cache.
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

alertmanager=0.35.0
golangci_lint=2.15.0
gotestsum=1.13.0

# module NAME PATH: the version that a tools module requires, without its v.
module() {
  sed -n "s#^\(require \)\{0,1\}[[:space:]]*$2 v\([0-9][^ ]*\).*#\2#p" "$root/compose/tools/$1/go.mod" | head -n 1
}

tool_version() {
  case $1 in
    compose) module compose github.com/docker/compose/v2 ;;
    consul) module consul github.com/hashicorp/consul ;;
    # Module v0.3MM.P is release 3.MM.P.
    prometheus) module prometheus github.com/prometheus/prometheus | sed 's/^0\.3\([0-9][0-9]\)\./3.\1./; s/^3\.0/3./' ;;
    alertmanager) printf '%s' "$alertmanager" ;;
    jaeger) module jaeger github.com/jaegertracing/jaeger ;;
    golangci-lint) printf '%s' "$golangci_lint" ;;
    gotestsum) printf '%s' "$gotestsum" ;;
    *) die "no tool named $1; want alertmanager, compose, consul, prometheus, jaeger, golangci-lint or gotestsum" ;;
  esac
}

# What it is and how long it takes on two cores with nothing cached.
describe() {
  case $1 in
    alertmanager) printf 'Alertmanager %s with amtool, about 3 minutes' "$2" ;;
    compose) printf 'Docker Compose %s, about 2 minutes' "$2" ;;
    consul) printf 'Consul %s, about 6 minutes' "$2" ;;
    prometheus) printf 'Prometheus %s with promtool, about 8 minutes' "$2" ;;
    jaeger) printf 'Jaeger %s, about 5 minutes' "$2" ;;
    golangci-lint) printf 'golangci-lint %s, about 2 minutes' "$2" ;;
    gotestsum) printf 'gotestsum %s, about half a minute' "$2" ;;
  esac
}

# compile NAME VERSION FOLDER: into the folder, which exists. Each is built as
# its makers build it: static, stripped, with its version in it.
compile() {
  local name=$1 version=$2 out=$3
  local go_build=(go build -trimpath -buildvcs=false)
  case $name in
    alertmanager | golangci-lint | gotestsum) ;; # their versions are all that they need
    *)
      cd "$root/compose/tools/$name" || return
      export GOWORK=off # a tool's versions are its own makers'
      ;;
  esac
  case $name in
    alertmanager)
      # It embeds the folder of its pages, which npm makes and its module lacks: so it is
      # built from a copy where that folder has no page in it. All else is there.
      local from
      from=$(go mod download -json "github.com/prometheus/alertmanager@v$version" | sed -n 's/^.*"Dir": "\(.*\)",*$/\1/p')
      cp -R "$from" "$out/../source" && cd "$out/../source" && chmod -R u+w . || return
      mkdir -p ui/app/dist && : >ui/app/dist/none.txt
      GOWORK=off "${go_build[@]}" -ldflags "-s -w -X github.com/prometheus/common/version.Version=$version" \
        -o "$out/" ./cmd/alertmanager ./cmd/amtool
      ;;
    compose)
      "${go_build[@]}" -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=v$version" \
        -o "$out/docker-compose" github.com/docker/compose/v2/cmd
      ;;
    consul)
      "${go_build[@]}" -ldflags '-s -w' -o "$out/consul" github.com/hashicorp/consul
      ;;
    prometheus)
      # Of its service discoveries only Consul's: half the size and time.
      "${go_build[@]}" -tags remove_all_sd,enable_consul_sd \
        -ldflags "-s -w -X github.com/prometheus/common/version.Version=$version" \
        -o "$out/" github.com/prometheus/prometheus/cmd/prometheus github.com/prometheus/prometheus/cmd/promtool
      ;;
    jaeger)
      # Its page is built by npm, and is not in the module: it has the API alone.
      "${go_build[@]}" -ldflags "-s -w -X github.com/jaegertracing/jaeger/internal/version.latestVersion=v$version" \
        -o "$out/jaeger" github.com/jaegertracing/jaeger/cmd/all-in-one
      ;;
    golangci-lint)
      GOBIN=$out go install -trimpath -ldflags "-s -w -X main.version=$version" \
        "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$version"
      ;;
    gotestsum)
      GOBIN=$out go install -trimpath -ldflags "-s -w -X gotest.tools/gotestsum/cmd.version=$version" "gotest.tools/gotestsum@v$version"
      ;;
  esac
}

only_name=
if [ "${1:-}" = --name ]; then
  only_name=yes
  shift
fi
name=${1:?want the name of a tool}
version=$(tool_version "$name")
[ -n "$version" ] || die "compose/tools/$name/go.mod names no version of $name"

folder=$tools/$name-$version
export CGO_ENABLED=0
if [ -n "${2:-}" ] && [ "$2" != "$(go env GOHOSTOS 2>/dev/null)/$(go env GOHOSTARCH 2>/dev/null)" ]; then
  folder=$folder-${2%/*}-${2#*/}
  export GOOS=${2%/*} GOARCH=${2#*/}
fi

if [ -n "$only_name" ]; then
  printf '%s\n' "${folder##*/}"
  exit
fi

if [ -z "$(ls -A "$folder" 2>/dev/null)" ]; then
  command -v go >/dev/null ||
    die "go is not on the PATH, and $name must be built from source here; install Go 1.26 or newer"
  warn "Building $(describe "$name" "$version"), into $folder"
  mkdir -p "$tools"
  # Built beside its place and moved there whole: a build that is cut short
  # leaves nothing that looks finished.
  part=$(mktemp -d "$tools/.$name-XXXXXX")
  trap 'rm -rf "$part"' EXIT
  mkdir "$part/out"
  compile "$name" "$version" "$part/out" >"$part/log" 2>&1 &
  build=$!
  trap 'kill "$build" 2>/dev/null; rm -rf "$part"; exit 130' INT TERM
  while kill -0 "$build" 2>/dev/null; do
    sleep 1
    [ $((SECONDS % 30)) -ne 0 ] || warn "  building $name: $SECONDS s"
  done
  if ! wait "$build"; then
    tail -n 20 "$part/log" >&2
    die "$name $version could not be built"
  fi
  rm -rf "$folder"
  mv "$part/out" "$folder" 2>/dev/null || [ -d "$folder" ] # another clone was quicker
  warn "  built $name in $SECONDS s"
fi
printf '%s\n' "$folder"
