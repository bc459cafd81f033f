#!/usr/bin/env bash
# Takes the fleet down in its order: services first, which leave the catalog,
# then Consul. The volumes stay.
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_docker
need_compose
compose down --remove-orphans
