#!/usr/bin/env bash
# Takes the fleet down with its data, the images that were built for it, and
# what `make up` wrote into the clone. What another project has stays, and so do
# the tools in the user's cache: they took minutes, and other clones use them.
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_docker
need_compose
compose down --volumes --remove-orphans --timeout 15
images=$(docker image ls --quiet --filter "label=com.docker.compose.project=$(project)" | sort -u)
if [ -n "$images" ]; then
  # shellcheck disable=SC2086 # a list of words
  docker image rm --force $images >/dev/null || warn "an image is in use by another project and stays"
fi
# shellcheck disable=SC2119 # no lines, on purpose
write_env
rm -rf "$root/compose/.bin" "$secrets"
[ ! -d "$tools" ] || say "Kept: $tools, the tools built from source ($(du -sh "$tools" | cut -f 1))"
