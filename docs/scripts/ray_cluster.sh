#!/usr/bin/env bash
# Make machines a Ray cluster, by ssh, and run a diffugen command on the first one:
#   ray_cluster.sh "HEAD WORKER1 WORKER2" diffugen generate CONFIG --out SHARED/DIR --set executor.kind=ray executor.address=auto
# The machines have diffugen[ray] and this folder in the same place, and share the output folder. "localhost" is this
# machine. None may run Ray for something else: at the end Ray is stopped on all of them.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 \"HEAD WORKER...\" COMMAND..." >&2
    exit 2
fi
export RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0 RAY_AUTH_MODE=token
read -r -a machines <<<"$1"
shift
port=${RAY_PORT:-6379}
terminal=()
on() { # on MACHINE COMMAND...: the command there, in this folder
    local machine=$1
    shift
    if [ "$machine" = localhost ]; then
        "$@"
    else
        ssh "${terminal[@]}" "$machine" "cd $(printf %q "$PWD") && env RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0 \
RAY_AUTH_MODE=token PATH=$(printf %q "$PATH") $(printf '%q ' "$@")"
    fi
}
for machine in "${machines[@]}"; do
    if on "$machine" pgrep -x raylet >/dev/null; then
        echo "$machine runs Ray already; stop it there, or leave the machine out" >&2
        exit 1
    fi
done
head=${machines[0]}
address=$head
[ "$head" != localhost ] || address=$([ ${#machines[@]} = 1 ] && echo 127.0.0.1 || hostname)
started=()
stop() { for machine in "${started[@]}"; do on "$machine" ray stop >/dev/null 2>&1 || true; done; }
trap stop EXIT
token=$(on "$head" ray get-auth-token --generate | tail -n 1)
started+=("$head")
on "$head" ray start --head --port="$port" --include-dashboard=false
for machine in "${machines[@]:1}"; do
    if ! on "$machine" bash -c 'umask 077; mkdir -p ~/.ray; read -r token; own=~/.ray/auth_token
        [ -s "$own" ] || printf %s "$token" >"$own"; [ "$(cat "$own")" = "$token" ]' <<<"$token"; then
        echo "$machine has another ~/.ray/auth_token; move it away" >&2
        exit 1
    fi
    started+=("$machine")
    on "$machine" ray start --address="$address:$port"
done
[ ! -t 0 ] || terminal=(-t) # so that Ctrl-C reaches the command
on "$head" env RAY_ADDRESS="$address:$port" "$@"
