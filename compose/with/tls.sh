#!/usr/bin/env bash
# Of the overlay tls: an authority, and a certificate of its own for each service,
# made by `consul tls` in a container of Consul's image.
#
#   compose/with/tls.sh                    makes what is missing, or is 300 days old
#   compose/with/tls.sh renew SERVICE…     makes a new certificate for each
#
# All of it is in compose/.secrets/tls, which only its owner may enter; the files in
# there can be read by the containers' users, who see no more than their own folder.
# The authority's key is in none of those.
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

folder=$secrets/tls
ca_days=1825
days=365
names='user order gateway'

# tls ARGUMENT…: `consul tls` in a container of its own, as the owner of the folder.
tls() {
  quietly "$work/tls" compose run --rm --no-deps -T --user "$(id -u):$(id -g)" \
    --volume "$folder/made:/tls" --workdir /tls consul tls "$@" || die "consul tls $1 $2 failed"
}

# sign SERVICE: its certificate and key, in place of those that are there. Services
# that run see them within 11 s.
sign() {
  mkdir -p "$folder/$1"
  # Not -server: those have the name of Consul's servers.
  tls cert create -client -dc=dc1 "-days=$days" "-additional-dnsname=$1"
  cp "$folder/made/consul-agent-ca.pem" "$folder/$1/ca.pem"
  mv "$folder/made/dc1-client-consul-0-key.pem" "$folder/$1/key.pem"
  mv "$folder/made/dc1-client-consul-0.pem" "$folder/$1/cert.pem"
  chmod 0755 "$folder/$1"
  chmod 0644 "$folder/$1"/*.pem
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder/made"
chmod 0700 "$secrets" "$folder" "$folder/made"
[ -f "$folder/made/consul-agent-ca.pem" ] || tls ca create "-days=$ca_days"
rm -f "$folder"/made/dc1-client-* # of a run that was interrupted
if [ "${1:-}" = renew ]; then
  shift
  [ $# -gt 0 ] || die "renew what? want some of $names"
  for name; do
    case " $names " in *" $name "*) ;; *) die "there is no $name; want some of $names" ;; esac
    sign "$name"
  done
  exit
fi
for name in $names; do
  [ -n "$(find "$folder/$name/cert.pem" -mtime -300 2>/dev/null)" ] || sign "$name"
done
