#!/usr/bin/env bash
# The whole stack on this machine: looks whether what it needs is here, starts everything, waits until it is healthy, asks each part how
# it is, and prints the addresses. May be called again at any time. What can be set stands in .env.example.
#
#   ./deploy_vm.sh
set -euo pipefail
cd "$(dirname "$0")"
# Reports belong to whoever calls this.
export BATCHSQL_UID=${BATCHSQL_UID:-$(id -u)} BATCHSQL_GID=${BATCHSQL_GID:-$(id -g)}

die() { printf 'deploy_vm: %s\n' "$*" >&2; exit 2; }

compose() { docker compose -f docker-compose.integration.yml "$@"; }

check() {
  local version
  command -v docker >/dev/null || die "docker is missing: install Docker Engine (https://docs.docker.com/engine/install/)"
  docker info >/dev/null 2>&1 || die "the Docker engine does not answer: start it, or let this user use it (group docker)"
  version=$(docker compose version --short 2>/dev/null) || die "the Compose plugin is missing: install docker-compose-plugin"
  # Since 2.23.1 a config may have its content in the compose file.
  [ "$(printf '%s\n' 2.23.1 "${version#v}" | sort -V | head -n 1)" = 2.23.1 ] || die "Compose $version is too old: 2.23.1 or later is needed"
  # Not all of it is needed at once: images, the program's build, and data.
  [ "$(df -Pk . | awk 'NR == 2 { print $4 }')" -ge 10485760 ] || die "less than 10 GB are free here: make room"
  compose config --quiet || die "docker-compose.integration.yml or .env is wrong: see above"
}

# The host's address of a port of a service.
address() { # SERVICE PORT WHAT
  local at
  if at=$(compose port "$1" "$2" 2>/dev/null); then printf '  %-16s http://%s%s\n' "$1" "$at" "${3:-}"; fi
}

check
mkdir -p reports
compose up -d --wait --wait-timeout 600 || { compose ps -a; die "not everything was started and became healthy: see above, and docker compose -f docker-compose.integration.yml logs SERVICE"; }
ill=0
compose run --rm --no-deps -T harness doctor scenarios/compose/postgres.yaml scenarios/compose/mysql.yaml scenarios/compose/mariadb.yaml \
  </dev/null || ill=$?
echo "addresses:"
address grafana 3000 " (admin / GRAFANA_ADMIN_PASSWORD)"
address prometheus 9090
address alertmanager 9093
address victoriametrics 8428
address gateway 3001 "/dashboard"
address serve 3009
exit "$ill"
