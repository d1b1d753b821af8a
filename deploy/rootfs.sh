#!/bin/sh
# Creates the root filesystem of an image: one static program, an init that forwards signals and reaps orphans, the
# certificates of public CAs, and an unprivileged user. Nothing else: no shell, no package manager.
# Usage: deploy/rootfs.sh DIR PROGRAM USER
set -eu
root=$1 program=$2 user=$3
install -d "$root/etc/ssl/certs" "$root/sbin"
install -m 755 "$program" "$root/"
install -m 755 /usr/bin/tini-static "$root/sbin/tini"
install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo "nonroot:x:$user:$user:nonroot:/:/sbin/nologin" >"$root/etc/passwd"
echo "nonroot:x:$user:" >"$root/etc/group"
