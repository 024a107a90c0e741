#!/bin/bash
# packaging/deps.sh GROUP...: installs what the groups of a Debian 12 machine lack, and says nothing when they lack nothing.
#
# One look at dpkg's database costs a few milliseconds, so every make target can ask. `apt-get update` runs only when something is
# missing. Not root, or not a Debian: says what is missing and goes on, the compiler will tell the rest.
set -euo pipefail

declare -A groups=(
	[build]="gcc libc6-dev linux-libc-dev make pkg-config libevent-dev libjansson-dev libmnl-dev libnftnl-dev
		libsodium-dev libsqlite3-dev uthash-dev"
	[test]="libcmocka-dev python3 iproute2 iputils-ping nftables iptables containernetworking-plugins procps tshark util-linux"
	[cni]="containernetworking-plugins podman containerd runc iptables busybox-static golang-go golang-github-appc-cni-dev"
	[docker]="docker.io containerd runc iptables busybox-static curl python3 python3-yaml iproute2 iputils-ping nftables procps util-linux"
	[check]="clang-format cppcheck git python3"
	[bench-gossip]="serf python3 iproute2 nftables util-linux"
	[fuzz]="clang libclang-rt-14-dev"
)

wanted=()
for group in "$@"; do
	[[ -v "groups[$group]" ]] || { echo "deps.sh: no group \"$group\"; there are: ${!groups[*]}" >&2; exit 2; }
	read -r -d '' -a names <<<"${groups[$group]}" || true
	wanted+=("${names[@]}")
done
[ ${#wanted[@]} -gt 0 ] || exit 0
if ! command -v dpkg-query >/dev/null; then
	echo "deps.sh: not a Debian system; needed are: ${wanted[*]}" >&2
	exit 0
fi

installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "${wanted[@]}" 2>/dev/null | awk '$2 == "installed" { print $1 }' || true)
missing=$(comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) <(sort -u <<<"$installed"))
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "deps.sh: run as root to install, or install: $(tr '\n' ' ' <<<"$missing")" >&2
	exit 0
fi

# docker.io would start an engine, and containerd itself, on the machine's own network. policy-rc.d with status 101 forbids it
# (invoke-rc.d(8)); a policy that is there already is its owner's decision.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 130' INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi

log=$(mktemp /tmp/trestle-deps-XXXXXX.log)
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -q -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
echo "  APT   $(tr '\n' ' ' <<<"$missing")"
# shellcheck disable=SC2086 # one word per package
if ! { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
	tail -n 40 "$log" >&2
	echo "deps.sh: could not install; all of apt's words are in $log" >&2
	exit 1
fi
rm -f "$log"
