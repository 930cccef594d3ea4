// The client of the README, word for word, in a real browser: it must lose nothing over any cut, or be told.

import assert from "node:assert/strict"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import { resolve } from "node:path"
import { after, afterEach, before, beforeEach, describe, test } from "node:test"
import { publish, root, startBrowser, startHub, startWire } from "./hub.js"

const KEPT = 1000 // messages of a topic that history keeps
const client = () => readFileSync(resolve(root, "README.md"), "utf8").match(/```js\n([\s\S]*?)```/)[1]
let hub, wire, browser, site, page, faults

before(async () => {
  hub = await startHub()
  wire = await startWire(hub.port)
  // The text names localhost:8080; the browser is told where that is.
  browser = await startBrowser(`--host-resolver-rules=MAP localhost:8080 127.0.0.1:${wire.port}`)
  site = createServer((request, response) => {
    if (request.url !== "/") return response.writeHead(404).end()
    response.setHeader("content-type", "text/html; charset=utf-8")
    response.end(`<!doctype html><link rel="icon" href="data:,"><script>${surroundings}</script><script>${client()}</script>`)
  }).listen(0, "127.0.0.1")
  await once(site, "listening")
})
after(async () => {
  await browser?.close()
  await wire?.stop()
  site?.close()
  await hub?.stop()
})

// What a page around the client has: something that shows, something that fetches the state anew. A second topic is
// asked for beside the client's own on each connection, in the way the client itself asks.
const surroundings = `
  const shown = { news: [], sport: [] }
  let reloads = 0
  function show(topic, data) { shown[topic].push(data) }
  function reload() { reloads++ }
  if (location.hash === "#two") {
    const send = WebSocket.prototype.send
    WebSocket.prototype.send = function (text) {
      send.call(this, text)
      send.call(this, JSON.stringify({ sub: "sport", after: at.sport }))
    }
  }
`

beforeEach(() => wire.mend())
afterEach(() => page.context().close())

async function open(hash = "") {
  page = await (await browser.newContext()).newPage()
  faults = []
  page.on("pageerror", error => faults.push(error.message))
  await page.goto(`http://127.0.0.1:${site.address().port}/${hash}`)
  await page.waitForFunction(() => at.news)
  if (hash) await page.waitForFunction(() => at.sport)
}

const news = data => ({ topic: "news", data })
const seen = () => page.evaluate(() => ({ ...shown, reloads }))
const sees = last => page.waitForFunction(([topic, data]) => shown[topic].at(-1) === data, last)

/** Publishes one by one what is missed, while the line is cut. */
async function whileAway(documents) {
  wire.cut()
  for (const document of documents) await publish(hub, document)
  wire.mend()
}

describe("the README's client", () => {
  test("loses nothing by a cut before its first message", async () => {
    await open()
    await whileAway(["a", "b", "c"].map(news))
    await sees(["news", "c"])
    await publish(hub, news("d"))
    await sees(["news", "d"])
    assert.deepEqual(await seen(), { news: ["a", "b", "c", "d"], sport: [], reloads: 0 })
    assert.deepEqual(faults, [])
  })

  test("keeps two topics apart over a cut", async () => {
    await open("#two")
    await publish(hub, [news(1), { topic: "sport", data: "x1" }])
    await sees(["news", 1])
    await sees(["sport", "x1"])
    await whileAway([{ topic: "sport", data: "x2" }, news(2), news(3), { topic: "sport", data: "x3" }])
    await sees(["news", 3])
    await sees(["sport", "x3"])
    assert.deepEqual(await seen(), { news: [1, 2, 3], sport: ["x1", "x2", "x3"], reloads: 0 })
  })

  test("is told of a gap, once, and given what is left", { timeout: 60_000 }, async () => {
    await open()
    wire.cut()
    const { stored } = await publish(hub, { ...news("short-lived"), ttl: 0.2 })
    await publish(hub, news("lasting"))
    const gone = async () => (await fetch(`${hub.url}/v1/topics/news/messages/${stored}`)).status !== 200
    while (!(await gone())); // the hub's own answer says when its time has ended
    wire.mend()
    await sees(["news", "lasting"])
    assert.deepEqual(await seen(), { news: ["lasting"], sport: [], reloads: 1 })
  })

  test("is told that history no longer reaches back, and goes on from there", async () => {
    await open()
    wire.cut()
    const many = Array.from({ length: KEPT }, (_, i) => news(i))
    await publish(hub, many)
    await publish(hub, many.slice(0, 10))
    wire.mend()
    await page.waitForFunction(() => reloads > 0)
    await publish(hub, news("after"))
    await sees(["news", "after"])
    assert.deepEqual(await seen(), { news: ["after"], sport: [], reloads: 1 })
  })
})
