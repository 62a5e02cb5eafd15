"""What the script of a job does once its variables are set: begin an attempt, srun, end it.

Signals are passed on to the ranks; an attempt that was to make room, or lost a node, begins again.
"""

import shlex
from pathlib import Path

from ...params import LaunchParams, SlurmParams

_BODY = """
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
orders=$(mktemp -u "${TMPDIR:-/tmp}/curitorch-XXXXXX")
mkfifo -m 600 "$orders" && exec 3<>"$orders" && rm "$orders" || exit 1

asked=  # pause: save, stop and come back; stop: save and stop
ask() {
    asked=$1
    echo stop >&3  # reaches the ranks of every node, see curitorch.external.node
}
on_term() {  # the time limit is near, or a preemption; after scancel the job runs no longer
    local state
    for _ in 1 2 3; do  # a busy controller may not answer at once
        state=$(squeue --noheader --job="$job" --format=%T) && [ -n "$state" ] && break
    done
    echo "$(date '+%F %T') SIGTERM, while the job is ${state:-unknown to squeue}"
    case $state$1 in RUNNING | SIGNALING) ask pause ;; *) ask stop ;; esac
}
trap 'on_term "$1"' TERM
trap 'ask stop' USR1
trap 'echo stacks >&3' USR2  # where the ranks are, into their logs

books() { "$python" -m curitorch.external.slurm_job "$@"; }
begun=$(books begin "${1:-sbatch}" "$nodes" "$processes"@saves@) || exit 1
eval "$begun"

srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 @srun@ \\
    bash -c '
        head=$(scontrol show hostnames "$SLURM_STEP_NODELIST" | head -n 1)
        exec "$0" -m curitorch.external.node "$0" -m torch.distributed.run \\
            --rdzv-endpoint="$head:$1" --rdzv-conf="is_host=$((SLURM_PROCID == 0))@elastic@" \\
            --local-addr="$SLURMD_NODENAME" "${@:2}"' \\
    "$python" $((15000 + SLURM_JOB_ID % 15000)) \\
    --nnodes=@nnodes@ --nproc-per-node="$processes" --max-restarts=@restarts@ \\
    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}.$CURITORCH_ATTEMPT" \\
    -m -- curitorch.external.rank "${trainer[@]}" \\
    <&3 >"$run/logs/attempt-$CURITORCH_ATTEMPT/launcher.log" 2>&1 &
step=$!
# srun never hears the end of a node that died. The first node holds the rendezvous: when torchrun
# has ended there, all has, and the others get 30 s to say what they saw.
ended=$run/logs/attempt-$CURITORCH_ATTEMPT/ended
(while [ ! -s "$ended" ]; do sleep 2; done; sleep 30; kill -KILL "$step") 3>&- 2>/dev/null &
watch=$!
while kill -0 "$step" 2>/dev/null; do wait "$step"; done  # a trapped signal ends a wait
wait "$step"
rc=$?
{ kill "$watch" && wait "$watch"; } 2>/dev/null

lost() {
    local states
    for _ in 1 2 3; do
        states=$(sinfo --noheader --nodes="$SLURM_JOB_NODELIST" --format=%T) && break
    done
    case $states in *'*'* | *down*) ;; *) false ;; esac
}
node=
if [ "$rc" -ge 128 ] && [ -s "$ended" ]; then
    rc=$(cat "$ended")
    if [ "$rc" -ne 0 ] && [ -z "@elastic@" ]; then  # Slurm sees it with its next ping
        timeout=$(scontrol show config | awk '$1 == "SlurmdTimeout" { print $3 }')
        for ((waited = 0; waited < ${timeout:-300} / 2 + 10; waited += 2)); do
            lost && break
            sleep 2
        done
    fi
fi
if [ "$rc" -ne 0 ] && lost; then
    case $(scontrol --oneliner show job "$job") in *JobState=CANCELLED*) ;; *) node=lost ;; esac
fi

if [ -z "$asked" ] && [ "$1" != here ]; then  # a preemption mostly tells the ranks alone
    case $(scontrol --oneliner show job "$job") in *PreemptTime=[0-9]*) asked=pause ;; esac
fi
# srun's exit code does not tell a crash from a stop that was asked for; what the ranks wrote does.
outcome=$(books end "$rc" "${node:-$asked}") || outcome=failed
echo "$(date '+%F %T') attempt $CURITORCH_ATTEMPT: $outcome (asked: ${asked:-no}, srun: $rc)"
if [ "$outcome" = complete ]; then exit 0; fi
case $outcome$asked in
stoppedpause | lost | lostpause)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt @requeues@ ] && [ "$1" != here ]; then
        scontrol requeue "$job" && sleep 3600  # Slurm ends the script, and begins it again
    fi
    ;;
esac
if [ "$outcome" = stuck ]; then
    echo "Two attempts did not get a step further: is the time limit too short?"
fi
if [ "$outcome" = stopped ] || [ "$outcome" = stuck ]; then exit 143; fi
if [ "$rc" -eq 0 ]; then exit 1; fi
exit "$rc"
"""


def render_body(launch: LaunchParams, slurm: SlurmParams, *, saves: Path | None) -> str:
    """Return the lines that come after the variables `run`, `python`, `nodes`, … in the script.

    Args:
        launch: How often torchrun may restart.
        slurm: How srun is called, and how often the job may come back.
        saves: Where a script with the SDK saves, or None for other trainers.
    """
    elastic = slurm.min_nodes is not None
    step = ["--kill-on-bad-exit=0", *(["--no-kill", "--wait=0"] if elastic else ["--wait=60"])]
    parts = {
        "saves": "" if saves is None else " " + shlex.quote(str(saves)),
        "srun": shlex.join([*step, *slurm.srun]) + " ${1:+--overlap}",
        "nnodes": f'"{slurm.min_nodes}:$nodes"' if elastic else '"$nodes"',
        "elastic": ",last_call_timeout=10" if elastic else "",
        "restarts": str(launch.max_restarts if elastic else 0),
        "requeues": str(slurm.max_requeues),
    }
    body = _BODY
    for name, text in parts.items():
        body = body.replace(f"@{name}@", text)
    return body
