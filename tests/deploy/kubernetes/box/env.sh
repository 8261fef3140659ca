D=${KUBE_DIR:?the folder of the box}; export GOMODCACHE=$D/gomod GOCACHE=$D/gocache GOTMPDIR=$D/gotmp
export GOFLAGS="-buildvcs=false -mod=mod" KV=1.37.2; mkdir -p "$GOTMPDIR"
