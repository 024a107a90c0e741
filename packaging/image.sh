#!/bin/bash
# packaging/image.sh BUILD OUT: the root file system of a container image, as a tar for `docker import`: the three programs and the
# shared libraries that they name, nothing else. No registry, no base image, no shell.
set -euo pipefail
build=$1 out=$2

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
install -d "$root"/{etc/trestle,proc,sys,dev,tmp,run,var/lib}
install -D -m 755 "$build/trestled" "$root/usr/sbin/trestled"
install -D -m 755 "$build/trestle" "$build/trestle-cni" -t "$root/usr/bin"
strip "$root/usr/sbin/trestled" "$root/usr/bin/trestle" "$root/usr/bin/trestle-cni"
# "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)", "/lib64/ld-linux-x86-64.so.2 (0x...)"
for library in $(ldd "$build/trestled" "$build/trestle" | grep -o '/[^ )]*\.so[^ )]*' | sort -u); do
	install -D -m 755 "$library" "$root$library"
done
mkdir -p "$(dirname "$out")"
tar -C "$root" --owner=0 --group=0 --numeric-owner --sort=name --mtime=@0 -cf "$out.tmp" .
mv "$out.tmp" "$out"
