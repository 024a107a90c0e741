#!/bin/sh
# RUNS random runs (10,000 unless said otherwise) of 3 to 50 hosts, in two processes; ends with the count. A failed run is printed with the
# command that repeats it. SEED is the first seed.
set -u
sim=build/release/tests/sim/sim
half=$((${RUNS:-10000} / 2))
first=${SEED:-1}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
began=$(date +%s)
"$sim" --seed "$first" --runs $half explore >"$logs/1" &
one=$!
"$sim" --seed $((first + half)) --runs $half explore >"$logs/2" &
two=$!
wait $one
status=$?
wait $two || status=1
grep -h -A1 '^FAIL' "$logs/1" "$logs/2"
tail -q -n1 "$logs/1" "$logs/2"
echo "test-sim-long: $((2 * half)) runs in $(($(date +%s) - began)) s"
exit $status
