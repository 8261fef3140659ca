report() { wget -q -O - --header 'Content-Type: application/json' --post-data '{"cycle":'$1',"attractor_state":{"id":"a-1","type":"symbolic","stability":0.91,"phase":"stable","scr":0.8},"drift_metrics":{"sdi":0.2,"sv":0.1,"pd":0.1,"di":0.1667},"memory_snapshot":{"retention_index":0.82},"safety_flags":{"aegida_status":"nominal","phase_lock":false,"recenter_active":false}}' http://127.0.0.1:7405/field/state; }
cycle=0
trap 'report 9999; echo; echo agent exit; exit 0' TERM
echo agent up
while :; do cycle=$((cycle + 1)); report $cycle; echo; sleep 1 & wait $!; [ "$cycle" != "${CYCLES:-0}" ] || exit 0; done
