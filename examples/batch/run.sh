#!/bin/sh
# A batch that starts by itself: when ten invoices wait, or when the night comes. What starts it is written in fanfare.toml,
# so this example has a hub of its own. A program is run once for each batch: invoices.sh.
set -eu
fanfare=${FANFARE:-fanfare}
here=$(dirname "$0")
dir=$(mktemp -d)
mkfifo "$dir/told"

$fanfare demo --config "$here/fanfare.toml" --listen 127.0.0.1:0 --admin-listen same --redis-listen off >"$dir/hub" &
pids=$!
trap 'kill $pids; rm -r "$dir"' EXIT
until FANFARE_URL=$(grep -om1 'http://[0-9.:]*' "$dir/hub"); do sleep 0.1; done
export FANFARE_URL

$fanfare work invoices --batch 100 --exec "sh $here/invoices.sh $dir/told" &
pids="$! $pids"

put() {
  for n in $(seq "$1" "$2"); do echo "{\"queue\":\"invoices\",\"data\":{\"invoice\":$n}}"; done |
    curl -sS --fail-with-body --json "[$(paste -sd, -)]" "$FANFARE_URL/v1/messages" >/dev/null
  echo "put $1 to $2"
}
told() { head -1 "$dir/told"; }

put 1 10
told # ten wait: it starts at once

put 11 13
told # three are not enough, but the night comes
