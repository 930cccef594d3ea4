"""Publishes through the door with redis-py, in the ways its users do: singly, in pipelines with and without MULTI."""

import json
import sys

import redis

host, port, protocol = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = redis.Redis(host=host, port=port, protocol=protocol, decode_responses=True, client_name="shop")
assert client.ping()
assert client.echo("시루") == "시루"
assert client.client_getname() == "shop"
assert client.info()["redis_mode"] == "standalone"

topic, number, ids = f"py{protocol}", 0, []


def entry():
    global number
    number += 1
    return {"topic": topic, "data": json.dumps({"n": number, "text": "안녕!"})}


for _ in range(10):
    ids.append(client.xadd("fanfare:in", entry()))

for transaction in (False, True):
    with client.pipeline(transaction=transaction) as pipe:
        for _ in range(500):
            pipe.xadd("fanfare:in", entry(), maxlen=1000)
        ids += pipe.execute()

with client.pipeline(transaction=True) as pipe:
    for n in range(1, 101):
        pipe.rpush("fanfare:list", json.dumps({"topic": f"{topic}.list", "data": {"n": n}}))
    assert pipe.execute() == list(range(1, 101))
assert client.rpush("fanfare:list", *[json.dumps({"topic": f"{topic}.list", "data": {"n": n}}) for n in (101, 102)]) == 2
assert client.llen("fanfare:list") == 0

ordered = [tuple(map(int, i.split("-"))) for i in ids]
assert ordered == sorted(set(ordered)), "ids ascend"
assert client.xlen("fanfare:in") >= len(ids)

for wrong, shows in (
    (lambda: client.xadd("laravel_database_fanfare:in", entry()), "laravel_database_fanfare:in"),
    (lambda: client.publish("news", "1"), "XADD"),
    (lambda: client.lpush("fanfare:list", "{}"), "RPUSH"),
    (lambda: client.set("a", "b"), "unknown command"),
):
    number_before = number
    try:
        wrong()
    except redis.ResponseError as error:
        assert shows in str(error), error
        number = number_before
    else:
        raise AssertionError(shows)
client.close()
print(json.dumps({"topic": topic, "stream": number, "list": 102}))
