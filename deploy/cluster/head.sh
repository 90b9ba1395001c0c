#!/usr/bin/env bash
# Runs a head node in the foreground: creates the cluster's secrets on first use, starts Ray, and deploys the rewards. A
# restart after a crash does the same, so the service comes back by itself.
#
#   drpo-head [more options of `ray start`]
#
# DRPO_SERVE_CONFIG     the Serve config to deploy; default /etc/drpo/serve.yaml
set -euo pipefail
umask 027  # the group may read the secrets, because Prometheus is in it

make_secret() {  # creates a file of 256 random bits, atomically, unless it exists
  [[ -s $1 ]] && return
  python -c 'import secrets; print(secrets.token_hex(32))' > "$1.new"
  mv "$1.new" "$1"
}
make_secret "$RAY_AUTH_TOKEN_PATH"
make_secret "$DRPO_API_KEYS_FILE"

config=${DRPO_SERVE_CONFIG:-/etc/drpo/serve.yaml}
deploy() {
  until (: < /dev/tcp/127.0.0.1/8265) 2> /dev/null; do sleep 0.5; done
  until output=$(serve deploy "$config" 2>&1); do
    echo "drpo-head: could not deploy $config yet: ${output##*$'\n'}" >&2
    sleep 2
  done
  echo "drpo-head: asked Ray Serve for $config"
}
deploy &

# No CPUs: the head schedules and runs gateways and the drivers of jobs; rewards and trainers run on other nodes.
exec ray start --head --block --disable-usage-stats --resources='{"gateways": 8}' \
  --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265 --metrics-export-port=8090 --num-cpus=0 "$@"
