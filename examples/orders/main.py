"""Orders: the events of one order are worked on one after the other, those of different orders at the same time; and an
event that its sender repeats is one job. Two workers, three orders, every event sent twice."""

import asyncio, json, os, random
from itertools import count

from websockets.asyncio.client import connect

HUB = os.environ.get("FANFARE_URL", "http://127.0.0.1:8080").replace("http", "ws") + "/ws"
QUEUE = "orders"
ORDERS, STEPS = ["o-1", "o-2", "o-3"], ["created", "paid", "packed", "sent"]
done = []  # (order, step), as the workers finished them


async def shop():
    """Sends each event, and sends it again as a shop does that did not hear the answer."""
    async with connect(HUB) as ws:
        await ws.recv()  # hello
        ids, stored, repeated = count(1), 0, 0
        for step in STEPS:
            for order in ORDERS:
                for _ in range(2):
                    frame = {"id": next(ids), "put": QUEUE, "data": {"order": order, "step": step}, "group": order}
                    await ws.send(json.dumps(frame | {"dedupe": f"{order}/{step}"}))
                    answer = json.loads(await ws.recv())
                    assert answer.get("ok") == "put", answer
                    stored, repeated = stored + 1, repeated + bool(answer.get("repeated"))
        print(f"sent {stored} events, {repeated} of them repeated")


async def worker(name):
    async with connect(HUB) as ws:
        await ws.send(json.dumps({"take": QUEUE, "credit": 5, "lease": 30}))
        async for text in ws:
            job = json.loads(text)
            if "data" not in job:
                continue
            await asyncio.sleep(random.uniform(0, 0.02))  # the work
            await ws.send(json.dumps({"ack": job["tag"]}))
            done.append((job["data"]["order"], job["data"]["step"]))
            print(f"{name}: {job['data']['order']} {job['data']['step']}")
            if len(done) == len(ORDERS) * len(STEPS):
                return


async def main():
    workers = [asyncio.create_task(worker(name)) for name in ("worker a", "worker b")]
    await shop()
    await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    for task in workers:
        task.cancel()
    for order in ORDERS:
        steps = [step for of, step in done if of == order]
        assert steps == STEPS, (order, steps)
    print(f"{len(done)} jobs for {len(ORDERS)} orders, each order's in its order")


asyncio.run(main())
