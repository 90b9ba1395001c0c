#!/usr/bin/env bash
# Submits a training run to the cluster, shows its log until it ends, and returns its exit code. Ctrl-C leaves the job
# running; `ray job stop` stops it with a checkpoint.
#
#   deploy/jobs/submit.sh --preset shapes --run.name mine         options go to `drpo train`
#   deploy/jobs/submit.sh --resume mine
#
# DRPO_CLUSTER      address of the dashboard; default http://127.0.0.1:8265
# RAY_AUTH_TOKEN    token of the cluster; default: that of this folder's compose cluster
# DRPO_JOB_OPTIONS  more options of `ray job submit`, in one string
set -euo pipefail
cd "$(dirname "$0")/../.."
ray=.venv/bin/ray
[[ -x $ray ]] || ray=ray
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(docker compose exec -T head cat /var/lib/drpo/secrets/ray-token)}
# shellcheck disable=SC2086  # options are split at spaces
exec "$ray" job submit --address "${DRPO_CLUSTER:-http://127.0.0.1:8265}" --working-dir . ${DRPO_JOB_OPTIONS:-} \
  -- python -m drpo train "$@"
