#!/bin/sh
# Notifications for each user, with an unread count that is right on every device. Nothing but curl.
set -eu
hub=${FANFARE_URL:-http://127.0.0.1:8080}
user=${1:-ann}
topic=$hub/v1/topics/user.$user

json() { curl -sS --fail-with-body "$@"; }
field() { sed "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/"; }
notify() { json --json "$1" "$hub/v1/users/$user/messages" >/dev/null; }
unread() { echo "$1: $(json "$topic/cursors/$1" | field lag) unread"; }

# The first look of a device makes its cursor: what comes from now on is unread there.
for device in phone laptop; do
  json "$topic/messages?cursor=$device&limit=1" >/dev/null
  unread $device
done

notify '{"text":"Your parcel is on its way"}'
notify '{"text":"Ben likes your picture"}'
notify '{"text":"안녕하세요"}'
unread phone
unread laptop

# Somebody opens the list on the phone: it is read there, and moves that device's place only.
page=$(json "$topic/messages?cursor=phone")
echo "$page" | grep -o '"text":"[^"]*"'
at=$(echo "$page" | sed 's/,"items".*//' | field at)
json -X PUT --json "{\"at\":\"$at\"}" "$topic/cursors/phone" >/dev/null
unread phone
unread laptop
