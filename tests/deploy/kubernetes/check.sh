#!/bin/bash
# What a real Kubernetes makes of deploy/: the box of box.sh must be up and hold the images driftgate,
# nats, your-agent (agent.sh) and pause. DRIFTGATE is the program, HELM and the tools are optional.
# Prints one line a check, and passed and failed at the end.
set -u
here=$(cd "$(dirname "$0")" && pwd) root=$(cd "$(dirname "$0")/../../.." && pwd)
work=${KUBE_DIR:?the folder of the box}/check; mkdir -p "$work"
pass=0 fail=0
k() { "$KUBE_DIR/box.sh" k "$@"; }
said() { # what outcome
    if [ "$2" = 0 ]; then pass=$((pass + 1)) && echo "ok    $1"; else fail=$((fail + 1)) && echo "FAIL  $1"; fi
}
is() { if [ "$2" = "$3" ]; then said "$1" 0; else said "$1: $3 expected, not $2" 1; fi; }
has() { if grep -qE "$3" <<<"$2"; then said "$1" 0; else said "$1: no $3 in: $(tail -n 3 <<<"$2")" 1; fi; }
skip() { echo "SKIPPED  $1"; }
until_true() { # seconds command...
    for _ in $(seq "$(($1 * 2))"); do "${@:2}" >/dev/null 2>&1 && return; sleep 0.5; done; return 1
}

# A namespace with Pod Security "restricted", the key and the configuration of one runtime.
namespace() { # name runtime peer
    k delete namespace "$1" --ignore-not-found --wait >/dev/null 2>&1
    k create namespace "$1" >/dev/null && k label namespace "$1" pod-security.kubernetes.io/enforce=restricted >/dev/null
    k -n "$1" create secret generic driftgate-keys --from-file=k1="$work/k1" >/dev/null
    configuration "$2" "$3" >"$work/$1.toml"
    k -n "$1" create configmap driftgate --from-file=driftgate.toml="$work/$1.toml" >/dev/null
}
configuration() { # runtime peer
    cat <<TOML
runtime = { id = "$1", attractor_type = "symbolic" }
nats.url = ["nats://nats.broker:4222"]
peers = [{ id = "$2", export = ["state", "snapshot"], import = ["state"] }]
integrity = { sign_with = "k1", keys = [{ id = "k1", file = "/etc/driftgate/keys/k1" }] }
TOML
}
# The agent's part of a pod; $1 the indentation, $2 how many cycles it lives (0: for good).
agent() {
    sed "s/^/$1/" <<YAML
automountServiceAccountToken: false
terminationGracePeriodSeconds: 20
securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
containers:
- name: agent
  image: your-agent:1.0.0
  env: [{name: CYCLES, value: "$2"}]
  securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
YAML
}
labels="labels: {driftgate.io/config: driftgate, app: it}"
ready() { k -n "$1" wait --for=condition=Ready pod -l app=it --timeout=90s >/dev/null 2>&1; }
first() { k -n "$1" get pod -l app=it -o 'jsonpath={.items[0].spec.initContainers[0].name}:{.items[0].spec.initContainers[0].restartPolicy}' 2>/dev/null; }
delivered() { ready "$2"; said "$1: Ready under restricted" $?; is "$1: sidecar first" "$(first "$2")" driftgate:Always; }
pod() { k -n "$1" get pod -l app=it -o 'jsonpath={.items[0].metadata.name}'; }
ask() { k -n "$1" exec "$(pod "$1")" -c agent -- wget -q -O - "http://127.0.0.1:7405$2"; }
restarts() { k -n "$1" get pod -l app=it -o "jsonpath={.items[0].status.$2[0].restartCount}"; }

k version 2>/dev/null | grep Server
[ -e "$work/k1" ] || "$DRIFTGATE" keygen --out "$work/k1"
namespace broker none none >/dev/null 2>&1
k -n broker apply -f "$here/nats.yaml" >/dev/null
k -n broker wait --for=condition=Ready pod/nats --timeout=60s >/dev/null; said "the broker runs" $?

namespace planner planner critic
has "deploy/pod.yaml, strict dry run under restricted" \
    "$(k -n planner apply --dry-run=server --validate=strict -f - <"$root/deploy/pod.yaml" 2>&1)" 'pod/planner created'
loose=$(printf 'apiVersion: v1\nkind: Pod\nmetadata: {name: loose}\nspec: {containers: [{name: a, image: a}]}\n')
has "control: restricted refuses a loose pod" "$(k -n planner apply --dry-run=server -f - <<<"$loose" 2>&1)" 'violates PodSecurity'

# Four deliveries.
{ printf 'apiVersion: v1\nkind: Pod\nmetadata:\n  name: planner\n  %s\nspec:\n' "$labels"; agent '  ' 0; } >"$work/planner.yaml"
"$DRIFTGATE" inject -f "$work/planner.yaml" 2>/dev/null | k -n planner apply -f - >/dev/null
delivered inject planner

namespace critic critic planner
mkdir -p "$work/kustomize"; cp -r "$root/deploy/kustomize" "$work/kustomize/component" 2>/dev/null
printf 'components: [component]\nresources: [it.yaml]\n' >"$work/kustomize/kustomization.yaml"
{ printf 'apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: critic\n  %s\nspec:\n  selector: {matchLabels: {app: it}}\n  template:\n    metadata:\n      %s\n    spec:\n' "$labels" "$labels"; agent '      ' 0; } >"$work/kustomize/it.yaml"
kubectl kustomize "$work/kustomize" | k -n critic apply -f - >/dev/null
delivered kustomize critic

if command -v "${HELM:-helm}" >/dev/null; then
    namespace chart charted planner
    { echo 'agent:'; echo '  labels: {app: it}'; echo '  container:'; agent '    ' 0 | sed -n '/- name: agent/,$p' | sed 's/^    - /      /; s/^    /    /'; } >"$work/values.yaml"
    "${HELM:-helm}" template it "$root/deploy/helm/driftgate" -f "$work/values.yaml" | k -n chart apply -f - >/dev/null
    delivered chart chart
else skip "the chart: no helm"; fi

if k apply -f - <"$root/deploy/admission/policy.yaml" >"$work/policy.log" 2>&1; then
    namespace admitted admitted planner
    sleep 3
    sed 's/name: planner/name: admitted/' "$work/planner.yaml" | k -n admitted apply -f - >/dev/null
    delivered "admission policy" admitted
    k create namespace unrestricted >/dev/null
    asking=$(printf 'apiVersion: v1\nkind: Pod\nmetadata: {name: open, %s}\nspec: {hostNetwork: true, containers: [{name: a, image: a}]}\n' "$labels")
    has "it refuses to leave a pod that asks without its sidecar" \
        "$(k -n unrestricted apply --dry-run=server -f - <<<"$asking" 2>&1)" 'open to the whole node'
    k delete -f - <"$root/deploy/admission/policy.yaml" >/dev/null 2>&1
else skip "the admission policy: $(tail -n 1 "$work/policy.log")"; fi

# Two runtimes in two namespaces, through a Service and DNS with search domains.
heard() { ask "$1" /field/state | grep -qE "\"$2\".*\"cycle\":$3|\"cycle\":$3.*\"$2\""; }
until_true 60 sh -c "$(declare -f k ask pod); KUBE_DIR=$KUBE_DIR; ask critic '/field/state?source=planner' | grep -q attractor"
said "critic hears planner across namespaces" $?
ask critic '/field/state?source=planner' >"$work/heard.json" 2>&1

# What changes while it runs: the kubelet swaps the files, and the sidecar reads them by itself.
logged() { k -n "$1" logs "$(pod "$1")" -c driftgate | grep -c "$2"; }
rises() { [ "$(logged "$1" "$2")" -gt "$3" ]; }
# A change of the pod makes the kubelet look at its volumes at once.
look() { k -n "$1" annotate pod -l app=it --overwrite "look=$SECONDS" >/dev/null; }
was=$(logged critic 'configuration reloaded')
sed 's/^peers = \[/&{ id = "newcomer", import = ["state"] }, /' "$work/critic.toml" >"$work/changed.toml"
k -n critic create configmap driftgate --from-file=driftgate.toml="$work/changed.toml" --dry-run=client -o yaml | k -n critic apply -f - >/dev/null 2>&1
look critic; until_true 120 rises critic 'configuration reloaded' "$was"; said "a changed ConfigMap is in force without a restart" $?
has "and the new peer is known" "$(ask critic /field/state)" newcomer
was=$(logged critic 'configuration reloaded')
"$DRIFTGATE" keygen --out "$work/k2.$$"
k -n critic create secret generic driftgate-keys --from-file=k1="$work/k2.$$" --dry-run=client -o yaml | k -n critic apply -f - >/dev/null 2>&1
look critic; until_true 120 rises critic 'configuration reloaded' "$was"; said "a changed Secret is in force without a restart" $?
is "and nothing was restarted" "$(restarts critic initContainerStatuses):$(restarts critic containerStatuses)" 0:0

# Memory and disk, attacked through the API's own limits: forty of the largest snapshots, eight at once.
"$KUBE_DIR/box.sh" in env NAME="$(pod critic)" FILE="$work/large" sh -c '
    # Each has a forward of its own, which ends with the connection that is refused.
    push() {
        head -c 12582912 /dev/urandom >"$FILE.$1"
        kubectl -n critic port-forward "pod/$NAME" "1740$1:7405" >/dev/null 2>&1 & forward=$!
        sleep 2
        curl -s -m 60 -o /dev/null -w "%{http_code}\n" -X PUT -H "Host: 127.0.0.1:7405" -H "Content-Type: application/octet-stream" --data-binary "@$FILE.$1" "http://127.0.0.1:1740$1/memory/snapshot"
        kill $forward
    }
    for turn in 1 2 3 4 5; do
        for one in 1 2 3 4 5 6 7 8; do push $one & all="$all $!"; done
        wait $all; all=
    done
    rm -f "$FILE".*' | sort | uniq -c | tr '\n' ';' >"$work/attack.log"
has "pushes as large and as many as can be: $(tr -s ' ' <"$work/attack.log")" "$(cat "$work/attack.log")" ' 20[12];'
is "neither killed for memory nor evicted for disk" "$(restarts critic initContainerStatuses):$(k -n critic get pod -l app=it -o 'jsonpath={.items[*].status.phase}')" 0:Running
ready critic; said "and Ready" $?

# Crashes.
pid() { "$KUBE_DIR/box.sh" in sh -c "for p in /proc/[0-9]*; do tr '\0' ' ' <\$p/cmdline | grep -q '^$1' && grep -q $2 \$p/cgroup && basename \$p; done" | head -n 1; }
uid=$(k -n planner get pod planner -o 'jsonpath={.metadata.uid}')
"$KUBE_DIR/box.sh" in kill -9 "$(pid '/driftgate run' "$uid")"
back() { [ "$(restarts planner initContainerStatuses)" = 1 ]; }
until_true 30 back; is "a killed sidecar comes back alone" "$(restarts planner initContainerStatuses):$(restarts planner containerStatuses)" 1:0
ready planner; said "and is Ready again" $?
"$KUBE_DIR/box.sh" in pkill -x kubelet; sleep 4
until_true 60 k get --raw /api/v1/nodes/kubebox/proxy/healthz
is "kubelet restarted, nothing else" "$(restarts planner initContainerStatuses):$(restarts planner containerStatuses)" 1:0

# The order of an end, and the agent's last report.
k -n planner logs -f planner -c driftgate --timestamps --since=1s >"$work/sidecar.log" 2>&1 &
k -n planner logs -f planner -c agent --timestamps --since=1s >"$work/agent.log" 2>&1 &
sleep 2; k -n planner delete pod planner --wait >/dev/null; wait
ended=$(grep 'agent exit' "$work/agent.log" | cut -c1-29) told=$(grep '"stopping' "$work/sidecar.log" | head -n 1 | cut -c1-29)
[ -n "$ended" ] && [ -n "$told" ] && [[ "$ended" < "$told" ]]; said "the agent ends ($ended) before the sidecar is told ($told)" $?
has "the sidecar drains and ends" "$(cat "$work/sidecar.log")" '"message":"stopped"'
has "the last report is judged and stored" "$(grep -B 2 'agent exit' "$work/agent.log")" '"status":"stored"'

# An agent that does not end when it is told uses up the grace period; the pod is gone all the same.
{ printf 'apiVersion: v1\nkind: Pod\nmetadata:\n  name: deaf\n  labels: {driftgate.io/config: driftgate, app: deaf}\nspec:\n'; agent '  ' 0; } |
    sed 's/PeriodSeconds: 20/PeriodSeconds: 5/; s/image: your-agent:1.0.0/&\n    command: [sh, -c, "trap : TERM; while :; do sleep 1; done"]/' >"$work/deaf.yaml"
"$DRIFTGATE" inject -f "$work/deaf.yaml" 2>/dev/null | k -n planner apply -f - >/dev/null
k -n planner wait --for=condition=Ready pod/deaf --timeout=90s >/dev/null; said "a deaf agent runs" $?
k -n planner logs -f deaf -c driftgate --since=1s >"$work/deaf.log" 2>&1 &
sleep 2; since=$SECONDS; k -n planner delete pod deaf --wait --timeout=60s >/dev/null; gone=$?; took=$((SECONDS - since)); wait
[ $gone = 0 ] && [ $took -ge 5 ] && [ $took -le 20 ]; said "its pod is gone after the grace period ($took s)" $?
has "its sidecar was told and drained" "$(cat "$work/deaf.log")" '"message":"stopped"'

# Jobs end; with an ordinary container they do not, which is the control.
job() { printf 'apiVersion: batch/v1\nkind: Job\nmetadata: {name: %s}\nspec:\n  template:\n    metadata:\n      %s\n    spec:\n      restartPolicy: Never\n' "$1" "$labels"; agent '      ' 3; }
job native >"$work/job.yaml"; "$DRIFTGATE" inject -f "$work/job.yaml" 2>/dev/null >"$work/native.yaml"
k -n planner apply -f - <"$work/native.yaml" >/dev/null
k -n planner wait --for=condition=Complete job/native --timeout=180s >/dev/null; said "a Job completes" $?
{ printf 'apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: cron}\nspec:\n  schedule: "* * * * *"\n  jobTemplate:\n    spec:\n      template:\n        metadata:\n          %s\n        spec:\n          restartPolicy: Never\n' "$labels"; agent '          ' 3; } >"$work/cron.yaml"
"$DRIFTGATE" inject -f "$work/cron.yaml" 2>/dev/null | k -n planner apply -f - >/dev/null
k -n planner create job once --from=cronjob/cron >/dev/null && k -n planner wait --for=condition=Complete job/once --timeout=180s >/dev/null
said "a CronJob's Job completes" $?
k -n planner delete cronjob cron >/dev/null
# The sidecar's own lines, as one more entry of `containers`, which stand last.
awk '/^      - name: driftgate$/ { on = 1 } /^      [a-zA-Z]/ { on = 0 } on { ours = ours $0 "\n"; next }
    /^      initContainers:$/ { next } { print } END { printf "%s", ours }' "$work/native.yaml" |
    sed 's/name: native/name: ordinary/; /restartPolicy: Always/d' >"$work/ordinary.yaml"
k -n planner apply -f - <"$work/ordinary.yaml" >"$work/ordinary.log" 2>&1
has "control: the Job with an ordinary container is made" "$(cat "$work/ordinary.log")" created
! k -n planner wait --for=condition=Complete job/ordinary --timeout=25s >/dev/null 2>&1; said "control: and never completes" $?

echo "$pass passed, $fail failed in $((SECONDS / 60)) min $((SECONDS % 60)) s"
[ "$fail" = 0 ]
