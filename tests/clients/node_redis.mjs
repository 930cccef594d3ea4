// Publishes through the door with node-redis: singly, pipelined by itself, and in MULTI; in both versions of the protocol.

import assert from "node:assert/strict";
import { createClient } from "redis";

const [host, port, version] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const client = createClient({ socket: { host, port, reconnectStrategy: false }, RESP: version, name: "shop" });
client.on("error", (error) => { throw error; });
await client.connect();
assert.equal(await client.ping(), "PONG");
assert.equal(await client.echo("시루"), "시루");

const topic = `node${version}`;
let number = 0;
const entry = () => ({ topic, data: JSON.stringify({ n: ++number, text: "안녕!" }) });

for (let i = 0; i < 10; i++) await client.xAdd("fanfare:in", "*", entry());
// Without waiting, so that node-redis sends them in one go.
const ids = await Promise.all(Array.from({ length: 500 }, () => client.xAdd("fanfare:in", "*", entry())));
const multi = client.multi();
for (let i = 0; i < 500; i++) multi.xAdd("fanfare:in", "*", entry());
ids.push(...(await multi.exec()));
const numbers = ids.map((id) => id.split("-").map(Number));
assert.ok(numbers.every(([ms, seq], i) => i === 0 || ms > numbers[i - 1][0] || (ms === numbers[i - 1][0] && seq > numbers[i - 1][1])));

for (let n = 1; n <= 100; n++) {
  assert.equal(await client.rPush("fanfare:list", JSON.stringify({ topic: `${topic}.list`, data: { n } })), 1);
}
assert.equal(await client.lLen("fanfare:list"), 0);
assert.ok((await client.xLen("fanfare:in")) >= ids.length);
await assert.rejects(client.publish("news", "1"), /XADD/);
await assert.rejects(client.xAdd("x:fanfare:in", "*", { topic, data: "1" }), /x:fanfare:in/);
await client.close();
console.log(JSON.stringify({ topic, stream: number, list: 100 }));
