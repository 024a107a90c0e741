#!/bin/sh
# histories.sh PROGRAM: RUNS random histories (1,000,000 unless said otherwise) of address custody, SEED being the first one's seed, in as
# many processes as there are cores. After each batch it says from where another run, here or on another machine, goes on. A history
# that breaks an invariant is printed with the variables that repeat it, and ends the run.
set -u
runs=${RUNS:-1000000}
seed=${SEED:-20261126}
batch=50000 # of one process: about half a minute
cores=$(nproc)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
began=$(date +%s)
done=0

run_batch() { # PROGRAM COUNT
	pids= n=0 failed=0
	while [ $n -lt "$cores" ]; do
		from=$(($2 * n / cores)) to=$(($2 * (n + 1) / cores))
		TRESTLE_SEED=$((seed + from)) TRESTLE_HISTORIES=$((to - from)) "$1" >"$logs/$n" 2>&1 &
		pids="$pids $!" n=$((n + 1))
	done
	for pid in $pids; do
		wait "$pid" || failed=1
	done
	return $failed
}

while [ $done -lt "$runs" ]; do
	count=$((batch * cores))
	[ $count -gt $((runs - done)) ] && count=$((runs - done))
	if ! run_batch "$1" $count; then
		grep -h 'TRESTLE_SEED=\|FAILED' "$logs"/*
		echo "test-histories: failed after $done histories from SEED=${SEED:-20261126}"
		exit 1
	fi
	done=$((done + count)) seed=$((seed + count))
	echo "test-histories: $done histories in $(($(date +%s) - began)) s, go on with SEED=$seed"
done
echo "test-histories: $done histories in $(($(date +%s) - began)) s, no invariant broken"
