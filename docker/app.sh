#!/bin/sh
# An application as shipper meets it: appends JSON lines, one request each, and renames its log when it is long.
# LOG_DIR, LINES_PER_SECOND, LINES_PER_FILE and KEEP_FILES may be set.
set -eu
dir=${LOG_DIR:-/var/log/app}
per_second=${LINES_PER_SECOND:-20}
per_file=${LINES_PER_FILE:-2000}
keep=${KEEP_FILES:-5}
log=$dir/shop.log

rotate() {
  number=$keep
  rm -f "$log.$keep"
  while [ "$number" -gt 1 ]; do
    if [ -e "$log.$((number - 1))" ]; then mv "$log.$((number - 1))" "$log.$number"; fi
    number=$((number - 1))
  done
  mv "$log" "$log.1"
}

trap 'exit 0' TERM INT
run=$(date +%s)
in_file=0
[ ! -e "$log" ] || in_file=$(wc -l <"$log")
request=0
while :; do
  now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  sent=0
  while [ "$sent" -lt "$per_second" ]; do
    request=$((request + 1))
    status=200
    [ $((request % 97)) -ne 0 ] || status=500
    printf '{"@timestamp":"%s","message":"GET /cart/%d","service":{"name":"shop"},"http":{"response":{"status_code":%d}},"event":{"duration":%d},"trace":{"id":"%s-%08d"}}\n' \
      "$now" "$((request % 31))" "$status" "$((request * 7919 % 90000 + 400))" "$run" "$request" >>"$log"
    sent=$((sent + 1))
    in_file=$((in_file + 1))
    if [ "$in_file" -ge "$per_file" ]; then
      rotate
      in_file=0
    fi
  done
  sleep 1 &
  wait $!
done
