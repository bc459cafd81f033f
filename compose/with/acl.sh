#!/usr/bin/env bash
# Of the overlay acl: Consul's CA and certificate, its policies, and a token in a
# file for each role, as compose/with/acl/policies has them.
#
#   compose/with/acl.sh                makes what is missing, and starts Consul
#   compose/with/acl.sh rotate ROLE…   gives each a new token, and deletes the old
#
# All of it is in compose/.secrets/acl, which only its owner may enter; the files in
# there can be read by the containers' users, who see no more than their own folder.
# No token is in an environment or in an argument.
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

folder=$secrets/acl
policies=$root/compose/with/acl/policies
days=1825

# consul ARGUMENT…: Consul's command in its container, with the token that may do all.
consul() { compose exec -T -e CONSUL_HTTP_TOKEN_FILE=/consul/config/management consul /bin/consul "$@"; }

# tls ARGUMENT…: `consul tls` in a container of its own, as the owner of the folder.
tls() {
  quietly "$work/tls" compose run --rm --no-deps -T --user "$(id -u):$(id -g)" \
    --volume "$folder/tls:/tls" --workdir /tls consul tls "$@" || die "consul tls $1 $2 failed"
}

# put FILE: the input, whole and at once; what is there already stays if it is the same.
put() {
  cat >"$1.new"
  if cmp -s "$1.new" "$1"; then
    rm -f "$1.new"
    return 1
  fi
  mv "$1.new" "$1"
}

roles() { (cd "$policies" && for file in *.hcl; do printf '%s\n' "${file%.hcl}"; done); }

uuid() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n' | sed 's/^\(.\{8\}\)\(.\{4\}\).\(.\{3\}\).\(.\{3\}\)\(.*\)$/\1-\2-4\3-8\4-\5/'; }

# field NAME JSON
field() { printf '%s\n' "$2" | sed -n "s/^ *\"$1\": \"\([0-9a-f-]*\)\".*/\1/p" | head -n 1; }

# certificates: of the CA and of Consul, once.
certificates() {
  [ -f "$folder/tls/consul-agent-ca.pem" ] || tls ca create "-days=$days"
  [ -f "$folder/tls/dc1-server-consul-0.pem" ] || tls cert create -server -dc=dc1 "-days=$days" -additional-dnsname=consul
}

# configure: what Consul reads at its start and at a reload; false if it has all that.
configure() {
  local changed=1 file name token
  for file in "$root"/compose/consul/*.hcl "$root/compose/with/acl/consul.hcl"; do
    name=${file##*/}
    [ "$file" = "$root/compose/consul/$name" ] || name=acl.hcl
    ! put "$folder/consul/$name" <"$file" || changed=0
  done
  ! put "$folder/consul/ca.pem" <"$folder/tls/consul-agent-ca.pem" || changed=0
  ! put "$folder/consul/server.pem" <"$folder/tls/dc1-server-consul-0.pem" || changed=0
  ! put "$folder/consul/server-key.pem" <"$folder/tls/dc1-server-consul-0-key.pem" || changed=0
  [ -f "$folder/consul/management" ] || uuid | put "$folder/consul/management"
  [ ! -f "$folder/health/token" ] || ! put "$folder/consul/health" <"$folder/health/token" || changed=0
  ! {
    printf 'acl {\n  tokens {\n    initial_management = "%s"\n' "$(cat "$folder/consul/management")"
    for name in agent:agent agent:config_file_service_registration dns:dns; do
      token=$(cat "$folder/${name%%:*}/token" 2>/dev/null) || continue
      printf '    %s = "%s"\n' "${name#*:}" "$token"
    done
    printf '  }\n}\n'
  } | put "$folder/consul/tokens.hcl" || changed=0
  return $changed
}

# start: Consul, until it knows the token that may do all.
start() {
  local began=$SECONDS
  quietly "$work/up" compose up --detach consul || die "docker compose could not start Consul"
  until consul acl token read -self >"$work/self" 2>&1; do
    [ $((SECONDS - began)) -lt "${ROLLCALL_WAIT:-180}" ] || die "Consul does not know its token: $(tail -n 1 "$work/self")"
    sleep 0.5
  done
}

# policy ROLE: as its file says, unless Consul, which has those listed, was told so.
policy() {
  local do=create
  if grep -qF "\"Name\": \"$1\"" "$work/policies"; then
    ! cmp -s "$policies/$1.hcl" "$folder/told/$1.hcl" || return 0
    do=update
  fi
  quietly "$work/policy" consul acl policy "$do" -name "$1" -rules - <"$policies/$1.hcl" || die "the policy $1 could not be written"
  put "$folder/told/$1.hcl" <"$policies/$1.hcl" || true
}

# token ROLE: a new one, into its file.
token() {
  local made
  made=$(consul acl token create -description "rollcall $1" -policy-name "$1" -format json) || die "no token for $1"
  field AccessorID "$made" | put "$folder/told/$1"
  field SecretID "$made" | put "$folder/$1/token"
}

# supply: every role has its policy, a token that Consul knows, and the CA.
supply() {
  local role
  consul acl policy list -format json >"$work/policies" || die "Consul does not list its policies"
  consul acl token list -format json >"$work/tokens" || die "Consul does not list its tokens"
  for role in $(roles); do
    policy "$role"
    { [ -f "$folder/$role/token" ] && grep -qF -f "$folder/told/$role" "$work/tokens"; } || token "$role"
    put "$folder/$role/ca.pem" <"$folder/tls/consul-agent-ca.pem" || true
  done
}

# hand_over: what this machine and Consul itself need of the tokens.
hand_over() {
  # How compose/up.sh asks Consul.
  {
    printf 'cacert = "%s"\n' "$folder/reader/ca.pem"
    printf 'header = "X-Consul-Token: %s"\n' "$(cat "$folder/reader/token")"
  } | put "$folder/consul.curl" || true
  ! configure || quietly "$work/reload" consul reload || die "Consul could not be told of its tokens"
}

# rotate ROLE: the old one is deleted when the new one is in its place.
rotate() {
  local old
  [ -f "$folder/$1/token" ] || die "there is no role $1 with a token; want one of $(roles | tr '\n' ' ')"
  old=$(cat "$folder/told/$1")
  token "$1"
  hand_over
  quietly "$work/delete" consul acl token delete -accessor-id "$old" || die "the old token of $1 could not be deleted"
  say "$1 has a new token; the old one is deleted"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
umask 077
mkdir -p "$folder"
umask 022
mkdir -p "$folder/tls" "$folder/consul" "$folder/told"
case ${1:-} in
  '')
    say "Making certificates, policies and tokens for Consul"
    # Docker makes a folder that is to be mounted and is not there, with another owner.
    for role in $(roles); do mkdir -p "$folder/$role"; done
    certificates
    configure || true
    start
    supply
    hand_over
    ;;
  rotate)
    shift
    for role; do rotate "$role"; done
    ;;
  *) die "no command $1; want rotate ROLE…, or none" ;;
esac
