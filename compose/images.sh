#!/usr/bin/env bash
# Brings the images of the fleet: pulled where a registry can be reached, else
# the same software built from source. What it chose stands in .env, for every
# later `docker compose`. ROLLCALL_IMAGES=pull or =source settles the choice.
# ROLLCALL_TAGS=faults makes a test build of the services.
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

build_gb=5 # of module sources, compiler cache and binaries

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM # and not: what was interrupted could not be built

# install_compose: the plugin, unless docker has one that knows `include` well.
install_compose() {
  local have folder plugins
  have=$(docker compose version --short 2>/dev/null | sed 's/^v//') || have=
  case $have in
    2.2[4-9]* | 2.[3-9]* | [3-9]* | [1-9][0-9]*) return ;;
  esac
  plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
  [ -z "$have" ] || die "docker compose is $have; want 2.24 or newer (or remove it, and \`make up\` installs one into $plugins)"
  say "docker has no compose plugin"
  folder=$("$root/compose/tools/build.sh" compose)
  mkdir -p "$plugins"
  cp "$folder/docker-compose" "$plugins/docker-compose.new"
  mv "$plugins/docker-compose.new" "$plugins/docker-compose"
  say "Installed it as $plugins/docker-compose"
}

# foreign: the software of others that the fleet has, with its overlays.
foreign() {
  printf 'consul\nprometheus\n'
  ! overlays | grep -qxF traces || printf 'jaeger\n'
}

# pinned: the images that the Compose files name when no setting says otherwise.
pinned() {
  local name
  for name in consul prometheus $(overlays | sed 's#^#with/#'); do
    sed -n 's/.*{ROLLCALL_[A-Z]*_IMAGE:-\(.*\)}.*/\1/p' "$root/compose/$name.yaml"
  done
  sed -n 's/^ARG GO_VERSION=\(.*\)/golang:\1-alpine/p' "$root/compose/Dockerfile"
}

# pull: every pinned image, or false at the first that can't be had.
pull() {
  local image
  for image in $(pinned); do
    docker image inspect "$image" >/dev/null 2>&1 && continue
    say "Pulling $image"
    docker pull --quiet "$image" >"$work/pull" 2>&1 || return 1
  done
}

# choose: prints pull or source.
choose() {
  local wanted=${ROLLCALL_IMAGES:-}
  # What an earlier run found out still holds, and asking again may mean a
  # long wait for a registry that does not answer.
  [ -n "$wanted" ] || case $(setting ROLLCALL_BINARIES '') in
    host) wanted=source ;;
  esac
  case $wanted in
    source) ;;
    pull) pull >&2 || die "an image can't be pulled: $(tail -n 1 "$work/pull")" ;;
    '')
      if pull >&2; then
        wanted=pull
      else
        warn "Images can't be pulled here ($(tail -n 1 "$work/pull"))"
        warn "Building Consul, Prometheus and the services from source instead"
        wanted=source
      fi
      ;;
    *) die "ROLLCALL_IMAGES is $wanted; want pull or source" ;;
  esac
  printf '%s' "$wanted"
}

# build_tools ARCH: what is foreign from source, as images; sets consul_image,
# prometheus_image and jaeger_image.
build_tools() {
  local name folder jaeger_folder=''
  jaeger_image=
  for name in $(foreign); do
    if [ ! -d "$tools/$("$root/compose/tools/build.sh" --name "$name" "linux/$1")" ]; then
      [ "$(free_gb "$HOME")" -ge "$build_gb" ] ||
        die "$HOME has $(free_gb "$HOME") GB free; building $name from source wants $build_gb GB"
    fi
    folder=$("$root/compose/tools/build.sh" "$name" "linux/$1")
    folder=${folder##*/}
    case $name in
      consul) consul_folder=$folder consul_image=$(project)/consul:${folder#consul-} ;;
      prometheus) prometheus_folder=$folder prometheus_image=$(project)/prometheus:${folder#prometheus-} ;;
      jaeger) jaeger_folder=$folder jaeger_image=$(project)/jaeger:${folder#jaeger-} ;;
    esac
  done
  # shellcheck disable=SC2046 # a list of words
  ROLLCALL_TOOLS=$tools \
    ROLLCALL_TOOLS_DOCKERFILE=$root/compose/tools/Dockerfile \
    ROLLCALL_CONSUL_FOLDER=$consul_folder ROLLCALL_CONSUL_IMAGE=$consul_image \
    ROLLCALL_PROMETHEUS_FOLDER=$prometheus_folder ROLLCALL_PROMETHEUS_IMAGE=$prometheus_image \
    ROLLCALL_JAEGER_FOLDER=$jaeger_folder ROLLCALL_JAEGER_IMAGE=$jaeger_image \
    quietly "$work/build" docker compose -p "$(project)" -f "$root/compose/tools/compose.yaml" build $(foreign) ||
    die "the images of $(foreign | tr '\n' ' ')could not be built"
}

# build_binaries ARCH VERSION: the services and the command, on this machine, for the
# containers.
build_binaries() {
  command -v go >/dev/null ||
    die "go is not on the PATH, and the services must be built on this machine; install Go 1.26 or newer"
  mkdir -p "$root/compose/.bin"
  (cd "$root" && CGO_ENABLED=0 GOOS=linux GOARCH=$1 go build -trimpath -buildvcs=false \
    -tags "${ROLLCALL_TAGS:-}" -ldflags "-s -w -X main.version=$2 -X $version_variable=$2" -o compose/.bin/ ./services/cmd/... ./discovery/cmd/rollcall) ||
    die "the services could not be built"
}

main() {
  local mode version
  need_docker
  install_compose
  mode=$(choose)
  version=$(version)
  case $mode in
    pull)
      set_env "ROLLCALL_VERSION=$version" ROLLCALL_BINARIES=compile \
        ROLLCALL_CONSUL_IMAGE= ROLLCALL_PROMETHEUS_IMAGE= ROLLCALL_JAEGER_IMAGE= ROLLCALL_PULL_POLICY=
      ;;
    source)
      local arch
      arch=$(docker version --format '{{.Server.Arch}}')
      build_tools "$arch"
      say "Building the services, version $version"
      build_binaries "$arch" "$version"
      set_env "ROLLCALL_VERSION=$version" ROLLCALL_BINARIES=host \
        "ROLLCALL_CONSUL_IMAGE=$consul_image" "ROLLCALL_PROMETHEUS_IMAGE=$prometheus_image" \
        "ROLLCALL_JAEGER_IMAGE=$jaeger_image" \
        ROLLCALL_PULL_POLICY=never
      ;;
  esac
  say "Building the images of the services"
  quietly "$work/build" compose --profile command build ||
    die "the images of the services could not be built"
}
main
