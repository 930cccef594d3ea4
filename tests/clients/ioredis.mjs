// Publishes through the door with ioredis: singly, in pipelines, and in MULTI. It asks INFO before it is ready.

import assert from "node:assert/strict";
import Redis from "ioredis";

const client = new Redis({ host: process.argv[2], port: Number(process.argv[3]), connectionName: "shop", retryStrategy: null });
assert.equal(await client.ping(), "PONG");

const topic = "io";
let number = 0;
const entry = () => ["topic", topic, "data", JSON.stringify({ n: ++number, text: "안녕!" })];

for (let i = 0; i < 10; i++) await client.xadd("fanfare:in", "*", ...entry());
for (const batch of [client.pipeline(), client.multi()]) {
  for (let i = 0; i < 500; i++) batch.xadd("fanfare:in", "MAXLEN", "~", 1000, "*", ...entry());
  for (const [error, id] of await batch.exec()) {
    assert.equal(error, null);
    assert.match(id, /^\d+-\d+$/);
  }
}
const list = client.multi();
for (let n = 1; n <= 100; n++) list.rpush("fanfare:list", JSON.stringify({ topic: `${topic}.list`, data: { n } }));
assert.deepEqual((await list.exec()).map(([, length]) => length), Array.from({ length: 100 }, (_, i) => i + 1));
assert.equal(await client.llen("fanfare:list"), 0);
await assert.rejects(client.publish("news", "1"), /XADD/);
await assert.rejects(client.lpush("fanfare:list", "1"), /RPUSH/);
await client.quit();
console.log(JSON.stringify({ topic, stream: number, list: 100 }));
