#!/usr/bin/env bash
# Trains SD-Turbo on PickScore with the paper's settings, on N trainer GPUs; each takes an equal share of a step's 32
# groups. Not yet run on the real weights.
#
#   deploy/jobs/sd-turbo-pickscore.sh 4 --features.path /var/lib/drpo/models/latent-mae
#
# The prompts are Pick-a-Pic v2's: run `drpo prompts download pickapic_v2` on a node first. Or give your own with
# --prompts.source file --prompts.path prompts/train.jsonl --evaluation.path prompts/test.jsonl. Paths are absolute paths
# on the nodes, or relative to the repository's folder, which travels with the job. The service must offer pickscore: use
# docker-compose.gpu.yml, or set DRPO_SERVE_CONFIG=/etc/drpo/serve-gpu.yaml.
set -euo pipefail
if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: $0 GPUS [--section.key VALUE ...]" >&2
  exit 2
fi
gpus=$1
shift
# The driver runs on a trainer node and evaluates there, on a GPU that its workers have freed.
export DRPO_JOB_OPTIONS="--entrypoint-resources {\"trainer\":0.001} ${DRPO_JOB_OPTIONS:-}"
exec "$(dirname "$0")/submit.sh" --preset sd-turbo-pickscore --training.num_workers "$gpus" "$@"
