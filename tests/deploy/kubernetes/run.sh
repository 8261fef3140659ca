#!/bin/bash
# A Kubernetes of one node in namespaces of its own, made from the Go module proxy and Debian
# packages alone, and check.sh on it. The first run builds for some ten minutes; what is built stays
# in KUBE_DIR. Nothing of it is left running.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) root=$(cd "$(dirname "$0")/../../.." && pwd)
[ "$(id -u)" = 0 ] || { echo "make kubernetes needs root: it makes namespaces and control groups" >&2; exit 1; }
command -v go >/dev/null || { echo "make kubernetes needs Go: it builds Kubernetes from its modules" >&2; exit 1; }
for tool in openssl nft musl-gcc busybox python3 kubectl nsenter; do
    command -v $tool >/dev/null || { echo "make kubernetes needs $tool (Debian: openssl nftables musl-tools busybox-static containernetworking-plugins libseccomp-dev pkg-config kubectl)" >&2; exit 1; }
done
if ldd "$NATS_SERVER" 2>/dev/null | grep -q '=>'; then
    echo "make kubernetes needs a nats-server that is linked statically, for its image holds nothing else: $NATS_SERVER is not (unset NATS_SERVER and take it off PATH, then one is fetched)" >&2; exit 1
fi
export KUBE_DIR=${KUBE_DIR:-$root/target/kubernetes}; mkdir -p "$KUBE_DIR/img"; cp -r "$here"/box/* "$KUBE_DIR/"; cd "$KUBE_DIR"
[ -x bin/hyper ] || ./build.sh
[ -x bin/runc ] || ./build2.sh
[ -x bin/coredns ] || ./build3.sh
. ./env.sh
musl-gcc -Os -static -DVERSION=box -o img/pause "$GOMODCACHE/k8s.io/kubernetes@v$KV/build/pause/linux/pause.c"
python3 mkimage.py img/pause.tar localhost/pause:1 '["/pause"]' img/pause=/pause --user 65535:65535
links=(); for a in sh sleep echo wget; do links+=(--link "busybox=/bin/$a"); done
python3 mkimage.py img/agent.tar docker.io/library/your-agent:1.0.0 --user 65532:65532 '["/bin/sh","/agent.sh"]' "$(command -v busybox)=/bin/busybox" "$here/agent.sh=/agent.sh" "${links[@]}"
python3 mkimage.py img/nats.tar docker.io/library/nats:2.15.1 --user 65532:65532 '["/nats-server"]' "$NATS_SERVER=/nats-server" DIR=/tmp
cp "$root"/target/image/driftgate-*-amd64.tar img/driftgate.tar
trap './box.sh down' EXIT
./box.sh up && ./box.sh import img/*.tar >/dev/null 2>&1
DRIFTGATE=$(ls "$root"/target/x86_64-unknown-linux-musl/release/driftgate) "$here/check.sh"
