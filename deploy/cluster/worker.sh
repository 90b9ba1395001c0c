#!/usr/bin/env bash
# A worker node in the foreground. It waits for the head, and ends when the head is lost, to be started again.
#
#   drpo-worker rewards|trainer [more options of `ray start`]
#
# The name becomes a resource of the node, by which rewards and trainers find the nodes that are meant for them.
# DRPO_HEAD     address of the head; head:6379
set -euo pipefail
pool=$1
shift
head=${DRPO_HEAD:-head:6379}
until [[ -s $RAY_AUTH_TOKEN_PATH ]] && (: < "/dev/tcp/${head%:*}/${head##*:}") 2> /dev/null; do sleep 1; done
exec ray start --block --disable-usage-stats \
  --address="$head" --metrics-export-port=8090 --resources="{\"$pool\": 1000}" "$@"
