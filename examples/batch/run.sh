#!/bin/sh
# A batch that starts by itself: when ten invoices wait, or when the oldest has waited for a second (for a real night it
# would be "10 or 1h"). Its program runs once for each batch, with one job a line on its standard input.
set -eu
fanfare=${FANFARE:-fanfare}
queue=invoices
dir=$(mktemp -d)
mkfifo "$dir/told"

$fanfare queue create $queue --set 'start_when=10 or 1s' >/dev/null

# Exit 0 acknowledges the whole batch; anything else would let all of it come again.
$fanfare work $queue --batch 100 --exec "echo a batch of \$(grep -c .) invoices >$dir/told" &
worker=$!
trap 'kill $worker; rm -r "$dir"' EXIT

put() {
  for n in $(seq "$1" "$2"); do $fanfare queue put $queue "{\"invoice\":$n}" >/dev/null; done
  echo "put $1 to $2"
}
told() { head -1 "$dir/told"; }

put 1 10
told # ten wait: it starts at once

put 11 13
told # three are not enough, but the first of them grows old
