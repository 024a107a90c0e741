#!/bin/sh
# histories.sh PROGRAM: RUNS random histories (1,000,000 unless said otherwise) of address custody, in two processes; SEED is the first
# one's seed. A history that breaks an invariant is printed with the variables that repeat it.
set -u
half=$((${RUNS:-1000000} / 2))
first=${SEED:-20261126}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
began=$(date +%s)
TRESTLE_SEED=$first TRESTLE_HISTORIES=$half "$1" >"$logs/1" 2>&1 &
one=$!
TRESTLE_SEED=$((first + half)) TRESTLE_HISTORIES=$half "$1" >"$logs/2" 2>&1 &
two=$!
status=0
wait $one || status=1
wait $two || status=1
grep -h 'TRESTLE_SEED=\|FAILED' "$logs/1" "$logs/2"
echo "test-histories: $((2 * half)) histories in $(($(date +%s) - began)) s, $([ $status = 0 ] && echo 'no invariant broken' || echo failed)"
exit $status
