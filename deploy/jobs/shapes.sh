#!/usr/bin/env bash
# Trains the embedded generator on two workers, in about five minutes. Options go to `drpo train`: --run.name mine --run.seed 1
exec "$(dirname "$0")/submit.sh" --preset shapes "$@"
