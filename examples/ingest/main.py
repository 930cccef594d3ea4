"""Data ingest over partitions: sensors write with a plain Redis client; each reading goes to the partition of its sensor.
Partitions are queues that one worker at a time may take from, so the readings of a sensor stay in order; two workers
share the four partitions, each with so many readings in hand as its credit says."""

import asyncio, json, os, urllib.request, zlib
from collections import defaultdict

import redis
from websockets.asyncio.client import connect

HUB = os.environ.get("FANFARE_URL", "http://127.0.0.1:8080")
REDIS = os.environ.get("FANFARE_REDIS", "redis://127.0.0.1:6380")
PARTITIONS, SENSORS, READINGS, CREDIT = 4, 10, 100, 50
seen = defaultdict(list)  # sensor → its readings, as they were worked on
most = 0  # readings in hand at a time


def partition(sensor):
    return f"readings.{zlib.crc32(sensor.encode()) % PARTITIONS}"


def prepare(queue):
    settings = json.dumps({"like": "kinesis", "exclusive": True}).encode()
    request = urllib.request.Request(f"{HUB}/v1/queues/{queue}", settings, {"content-type": "application/json"}, method="PUT")
    urllib.request.urlopen(request).close()


def sense():
    """All sensors, in pipelines: no library of ours, and no waiting for each answer."""
    client = redis.from_url(REDIS)
    for n in range(READINGS):
        pipe = client.pipeline(transaction=False)
        for sensor in (f"sensor-{i}" for i in range(SENSORS)):
            pipe.xadd("fanfare:in", {"queue": partition(sensor), "data": json.dumps({"sensor": sensor, "n": n})})
        pipe.execute()
    client.close()
    print(f"wrote {SENSORS * READINGS} readings of {SENSORS} sensors")


async def work(name, partitions, finished):
    global most
    count = 0
    async with connect(HUB.replace("http", "ws") + "/ws") as ws:
        for queue in partitions:
            await ws.send(json.dumps({"take": queue, "credit": CREDIT, "lease": 30}))
        hand = []
        while not finished.is_set():
            try:
                job = json.loads(await asyncio.wait_for(ws.recv(), 0.05))
            except TimeoutError:
                job = {}
            if "data" in job:
                hand.append(job)
            most = max(most, len(hand))
            # Written away many at a time, as one would into a table; then acknowledged together.
            if len(hand) >= CREDIT // 2 or (hand and not job):
                for each in hand:
                    seen[each["data"]["sensor"]].append(each["data"]["n"])
                await ws.send(json.dumps({"ack": [each["tag"] for each in hand]}))
                count, hand = count + len(hand), []
            if sum(map(len, seen.values())) == SENSORS * READINGS:
                finished.set()
    print(f"{name} worked on {count} readings of {len(partitions)} partitions")


async def main():
    finished = asyncio.Event()
    names = [f"readings.{n}" for n in range(PARTITIONS)]
    for name in names:
        prepare(name)
    workers = asyncio.gather(work("worker a", names[:2], finished), work("worker b", names[2:], finished))
    await asyncio.to_thread(sense)
    await asyncio.wait_for(workers, 30)
    assert all(numbers == list(range(READINGS)) for numbers in seen.values())
    print(f"{sum(map(len, seen.values()))} readings, each sensor's in order, at most {CREDIT} of a partition in hand")


asyncio.run(main())
