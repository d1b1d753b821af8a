#!/bin/sh
# Creates the root filesystem of an image: one static program, an init that forwards signals and reaps orphans, the
# certificates of public CAs, an unprivileged user, and the notices of all of these. Nothing else: no shell, no package manager.
# Usage: [DEBIAN=DIR] deploy/rootfs.sh DIR PROGRAM USER NOTICES
# DEBIAN has the files of the packages tini and ca-certificates; default: those that are installed.
set -eu
root=$1 program=$2 user=$3 notices=$4 debian=${DEBIAN:-}
install -d "$root/etc/ssl/certs" "$root/sbin"
install -m 755 "$program" "$root/"
install -m 755 "$debian/usr/bin/tini-static" "$root/sbin/tini"
install -m 644 "$debian/etc/ssl/certs/ca-certificates.crt" "$root/etc/ssl/certs/"
echo "nonroot:x:$user:$user:nonroot:/:/sbin/nologin" >"$root/etc/passwd"
echo "nonroot:x:$user:" >"$root/etc/group"
{
	cat "$notices"
	for package in tini ca-certificates; do
		printf '\n==== %s (Debian)\n\n' "$package"
		cat "$debian/usr/share/doc/$package/copyright"
	done
} >"$root/NOTICES"
