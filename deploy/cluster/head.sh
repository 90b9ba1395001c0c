#!/usr/bin/env bash
# A head node in the foreground: makes the cluster's secrets on first use, runs Ray, and has it serve the rewards. Started
# again after a crash it does the same, so the service comes back without anybody's help.
#
#   drpo-head [more options of `ray start`]
#
# DRPO_SERVE_CONFIG     the Serve config that is deployed; /etc/drpo/serve.yaml
set -euo pipefail
umask 027  # the group may read the secrets: Prometheus is in it

secret() {  # a file of 256 random bits, written whole or not at all, and never written twice
  [[ -s $1 ]] && return
  python -c 'import secrets; print(secrets.token_hex(32))' > "$1.new"
  mv "$1.new" "$1"
}
secret "$RAY_AUTH_TOKEN_PATH"
secret "$DRPO_API_KEYS_FILE"

config=${DRPO_SERVE_CONFIG:-/etc/drpo/serve.yaml}
deploy() {
  until (: < /dev/tcp/127.0.0.1/8265) 2> /dev/null; do sleep 0.5; done
  until said=$(serve deploy "$config" 2>&1); do
    echo "drpo-head: could not deploy $config yet: ${said##*$'\n'}" >&2
    sleep 2
  done
  echo "drpo-head: asked Ray Serve for $config"
}
deploy &

# No CPUs: the head schedules, listens and holds jobs' drivers; rewards and trainers run elsewhere.
exec ray start --head --block --disable-usage-stats \
  --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265 --metrics-export-port=8090 --num-cpus=0 "$@"
