#!/usr/bin/env bash
# Runs a worker node in the foreground. It waits for the head, and exits when the head is lost, so that it is restarted.
#
#   drpo-worker rewards|trainer [more options of `ray start`]
#
# The name becomes a resource of the node, which places rewards and trainers on their own nodes.
# DRPO_HEAD     address of the head; default head:6379
set -euo pipefail
pool=$1
shift
head=${DRPO_HEAD:-head:6379}
until [[ -s $RAY_AUTH_TOKEN_PATH ]] && (: < "/dev/tcp/${head%:*}/${head##*:}") 2> /dev/null; do sleep 1; done
exec ray start --block --disable-usage-stats \
  --address="$head" --metrics-export-port=8090 --resources="{\"$pool\": 1000}" "$@"
