#!/bin/sh
# One batch: a job a line on the standard input. Exit 0 acknowledges them all; anything else would let all come again.
jobs=$(cat)
invoices=$(echo "$jobs" | grep -c '"invoice"') || exit 0 # a night on which nothing waited
case $jobs in
  *'"the night"'*) started='the night came' ;;
  *) started='ten waited' ;;
esac
echo "a batch of $invoices invoices: $started" >"$1"
