#!/usr/bin/env bash
# A SLURM cluster of one node on this machine, without systemd, accounting or cgroups.
#
#   sudo tests/experiments/slurm_node.sh start FOLDER    (state, logs and settings)
#   sudo tests/experiments/slurm_node.sh stop FOLDER
#
# Needs root and Debian's packages slurm-wlm and munge. Afterwards, in any shell:
#   export SLURM_CONF=FOLDER/slurm.conf
set -euo pipefail

action=${1:?start or stop}
folder=$(realpath -m "${2:?a folder}")

stop() {
    for name in slurmd slurmctld munged; do
        [ -s "$folder/$name.pid" ] || continue
        daemon=$(cat "$folder/$name.pid")
        kill "$daemon" 2>/dev/null || continue
        for _ in $(seq 20); do
            kill -0 "$daemon" 2>/dev/null || continue 2
            sleep 0.5
        done
        kill -9 "$daemon" 2>/dev/null || true
    done
}

start() {
    mkdir -p "$folder/state" "$folder/spool"
    chmod 755 "$folder"
    host=$(hostname -s)
    cores=$(nproc)
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    # munged insists on a socket folder that only its user can write to.
    install -d -m 755 "$folder/munge"
    if [ ! -s "$folder/munge/key" ]; then
        dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none
        chmod 400 "$folder/munge/key"
    fi
    cat > "$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
SlurmctldPort=6817
SlurmdPort=6818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=2
InactiveLimit=0
SchedulerParameters=sched_interval=2,batch_sched_delay=0
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES:4
CONF
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
        --pid-file="$folder/munged.pid" --log-file="$folder/munge/munged.log" \
        --seed-file="$folder/munge/seed"
    export SLURM_CONF=$folder/slurm.conf
    slurmctld -i
    slurmd -N "$host"
    for _ in $(seq 60); do
        if sinfo --noheader --format=%t 2>/dev/null | grep -Eq '^(idle|mix|alloc)$'; then
            sinfo
            return
        fi
        sleep 0.5
    done
    echo "the node did not come up; see $folder/*.log" >&2
    sinfo -R >&2 || true
    exit 1
}

"$action"
