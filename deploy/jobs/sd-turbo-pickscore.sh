#!/usr/bin/env bash
# SD-Turbo against PickScore with the paper's settings, on N trainer GPUs; each has an equal share of the 32 groups of a
# step. Not yet run on the real weights.
#
#   deploy/jobs/sd-turbo-pickscore.sh 4 --features.path /var/lib/drpo/models/latent-mae --prompts.path prompts/train.jsonl
#
# Paths are those of the nodes, or relative to this repository's folder: prompts travel with the job. The service must
# have pickscore: docker-compose.gpu.yml, or any with DRPO_SERVE_CONFIG=/etc/drpo/serve-gpu.yaml.
set -euo pipefail
if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: $0 GPUS [--section.key VALUE ...]" >&2
  exit 2
fi
gpus=$1
shift
# The driver runs on a trainer node: it evaluates there, on a GPU that its workers have left.
export DRPO_JOB_OPTIONS="--entrypoint-resources {\"trainer\":0.001} ${DRPO_JOB_OPTIONS:-}"
exec "$(dirname "$0")/submit.sh" --preset sd-turbo-pickscore --training.num_workers "$gpus" "$@"
