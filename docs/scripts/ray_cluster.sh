#!/usr/bin/env bash
# Make machines a Ray cluster, by ssh, and run a diffugen command on the first one:
#   ray_cluster.sh "HEAD WORKER1 WORKER2" diffugen generate CONFIG --out SHARED/DIR --set executor.kind=ray executor.address=auto
# The machines have diffugen[ray] in the same place, and share the output folder. "localhost" is this machine.
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0
read -r -a machines <<<"$1"
shift
port=${RAY_PORT:-6379}
on() { # on MACHINE COMMAND...
    local machine=$1
    shift
    if [ "$machine" = localhost ]; then "$@"; else ssh "$machine" RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0 "PATH=$PATH" "$@"; fi
}
head=${machines[0]}
address=$head
[ "$head" != localhost ] || address=127.0.0.1
stop() { for machine in "${machines[@]}"; do on "$machine" ray stop >/dev/null 2>&1 || true; done; }
trap stop EXIT
on "$head" ray start --head --port="$port" --include-dashboard=false
for machine in "${machines[@]:1}"; do on "$machine" ray start --address="$address:$port"; done
on "$head" env RAY_ADDRESS="$address:$port" "$@"
