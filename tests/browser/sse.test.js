// Event streams with the clients that people have: `EventSource` in a browser and in Node, and curl. A wire cuts each
// connection in the middle of an event, again and again; nothing may be lost, repeated or out of order.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createServer } from "node:http"
import { createInterface } from "node:readline"
import { after, before, describe, test } from "node:test"
import { publish, startBrowser, startHub, startWire } from "./hub.js"

const KEPT = 1000 // messages of a topic that history keeps
const EACH = 12
let hub, browser, site

before(async () => {
  hub = await startHub()
  browser = await startBrowser()
  // Pages of another origin of this machine, as a developer's own page is.
  const page = '<!doctype html><link rel="icon" href="data:,">'
  site = createServer((_, response) => response.setHeader("content-type", "text/html").end(page))
  site.listen(0, "127.0.0.1")
  await once(site, "listening")
})
after(async () => {
  await browser?.close()
  site?.close()
  await hub?.stop()
})

const urlOf = (port, ...topics) => `http://127.0.0.1:${port}/v1/sse?${topics.map(topic => `topic=${topic}`).join("&")}`
const expected = () => Array.from({ length: EACH }, (_, n) => n)

/** What a page does with a stream: shows messages by topic and notes what is told. */
function follow(url, state) {
  const source = new EventSource(url)
  Object.assign(state, { shown: {}, told: [], opened: 0, begun: [] })
  source.onopen = () => state.opened++
  source.onmessage = event => {
    const message = JSON.parse(event.data)
    ;(state.shown[message.topic] ??= []).push(message.data)
  }
  source.addEventListener("gap", event => state.told.push(JSON.parse(event.data)))
  source.addEventListener("subscribed", event => {
    const answer = JSON.parse(event.data)
    if (!state.begun.includes(answer.topic)) state.begun.push(answer.topic)
    if (answer.resumed === false) state.told.push(answer)
  })
}

/** A page that follows these streams; their states are `streams`. */
async function openPage(...urls) {
  const page = await (await browser.newContext()).newPage()
  await page.goto(`http://127.0.0.1:${site.address().port}/`)
  await page.addScriptTag({ content: `${follow}; var streams = ${JSON.stringify(urls)}.map(url => { const state = {}; follow(url, state); return state })` })
  return page
}

describe("EventSource in a browser", () => {
  test("loses and repeats nothing over cuts in the middle of events, with one topic and with several", { timeout: 120_000 }, async () => {
    const wires = await Promise.all(Array.from({ length: 5 }, () => startWire(hub.port)))
    // Room for the answers and a message or two of each connection.
    wires.forEach((wire, i) => wire.cutAfter(i === 0 ? 1100 : 1700 + 61 * i))
    const topics = i => (i === 0 ? ["cut.a"] : ["cut.a", "cut.b", "cut.silent"])
    const page = await openPage(...wires.map((wire, i) => urlOf(wire.port, ...topics(i))))
    await page.waitForFunction(() => streams.every((s, i) => s.begun.length === (i === 0 ? 1 : 3)))
    for (let n = 0; n < EACH; n++) await publish(hub, [{ topic: "cut.a", data: n }, { topic: "cut.b", data: n }])
    await page.waitForFunction(last => streams.every((s, i) => s.shown["cut.a"]?.at(-1) === last && (i === 0 || s.shown["cut.b"]?.at(-1) === last)), EACH - 1, { timeout: 100_000 })
    const streams = await page.evaluate(() => streams)
    streams.forEach(({ shown, told, opened }, i) => {
      assert.deepEqual(shown, i === 0 ? { "cut.a": expected() } : { "cut.a": expected(), "cut.b": expected() }, `stream ${i}`)
      assert.deepEqual(told, [])
      assert.ok(opened >= 2 && wires[i].breaks() >= 1, `stream ${i} was cut`)
    })
    await page.context().close()
    await Promise.all(wires.map(wire => wire.stop()))
  })

  test("is told of a gap, and that history no longer reaches back, and goes on", { timeout: 60_000 }, async () => {
    const wire = await startWire(hub.port)
    const page = await openPage(urlOf(wire.port, "short", "long"))
    await page.waitForFunction(() => streams[0].begun.length === 2)
    wire.cut()
    const { stored } = await publish(hub, { topic: "short", data: "gone", ttl: 0.2 })
    await publish(hub, { topic: "short", data: "lasting" })
    const many = Array.from({ length: KEPT }, (_, n) => ({ topic: "long", data: n }))
    await publish(hub, many)
    await publish(hub, many.slice(0, 5))
    while ((await fetch(`${hub.url}/v1/topics/short/messages/${stored}`)).status === 200);
    wire.mend()
    await page.waitForFunction(() => streams[0].told.length === 2)
    await publish(hub, { topic: "long", data: "after" })
    await page.waitForFunction(() => streams[0].shown.long?.at(-1) === "after" && streams[0].shown.short?.at(-1) === "lasting")
    const { shown, told } = await page.evaluate(() => streams[0])
    assert.deepEqual(shown, { short: ["lasting"], long: ["after"] })
    assert.deepEqual(told.map(({ gap, topic, why }) => `${gap ?? topic}: ${why}`).sort(), ["long: retention", "short: expired"])
    await page.context().close()
    await wire.stop()
  })

  test("is refused with a status that it takes for good where it asked wrongly", async () => {
    const page = await openPage()
    const state = await page.evaluate(url => new Promise(done => {
      const source = new EventSource(url)
      source.onerror = () => done(source.readyState)
    }), urlOf(hub.port, "no%20good"))
    assert.equal(state, 2)
    await page.context().close()
  })
})

describe("EventSource in Node", () => {
  test("loses and repeats nothing over cuts in the middle of events", { timeout: 120_000 }, async () => {
    const wire = await startWire(hub.port)
    wire.cutAfter(1733)
    const script = `
      ${follow}
      const state = {}
      follow(${JSON.stringify(urlOf(wire.port, "node.a", "node.b"))}, state)
      setInterval(() => console.log(JSON.stringify(state)), 50)
    `
    const child = spawn(process.execPath, ["--no-warnings", "--experimental-eventsource", "-e", script], { stdio: ["ignore", "pipe", "inherit"] })
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const until = async judge => {
      for (;;) {
        const { value, done } = await lines.next()
        assert.ok(!done, "it ended")
        const state = JSON.parse(value)
        if (judge(state)) return state
      }
    }
    try {
      await until(({ begun }) => begun.length === 2)
      for (let n = 0; n < EACH; n++) await publish(hub, [{ topic: "node.a", data: n }, { topic: "node.b", data: n }])
      const has = (state, topic) => state.shown[topic]?.at(-1) === EACH - 1
      const { shown, told } = await until(state => has(state, "node.a") && has(state, "node.b"))
      assert.deepEqual({ shown, told }, { shown: { "node.a": expected(), "node.b": expected() }, told: [] })
      assert.ok(wire.breaks() >= 1)
    } finally {
      child.kill("SIGKILL")
      await wire.stop()
    }
  })
})

describe("curl -N", () => {
  const messages = got => got.filter(frame => "data" in frame)
  const answers = got => got.filter(frame => frame.ok === "sub")

  /** Reads until `judge` is content; gives the last id and the documents. */
  async function listen(headers, judge) {
    const url = urlOf(hub.port, "curl.a", "curl.b")
    const child = spawn("curl", ["-sN", ...headers.flatMap(header => ["-H", header]), url], { stdio: ["ignore", "pipe", "inherit"] })
    const got = []
    let id = ""
    try {
      for await (const line of createInterface({ input: child.stdout })) {
        if (line.startsWith("id: ")) id = line.slice(4)
        if (line.startsWith("data: ")) got.push(JSON.parse(line.slice(6)))
        if (await judge(got)) return { id, got }
      }
      throw new Error(`curl ended: ${JSON.stringify(got)}`)
    } finally {
      child.kill("SIGKILL")
    }
  }

  test("shows events as they come and resumes by the header", { timeout: 30_000 }, async () => {
    let asked = false
    const { id } = await listen([], async got => {
      if (answers(got).length === 2 && !asked) {
        asked = true
        await publish(hub, { topic: "curl.a", data: 1 })
      }
      return messages(got).length === 1
    })
    await publish(hub, [{ topic: "curl.b", data: 2 }, { topic: "curl.a", data: 3 }])
    const { got } = await listen([`Last-Event-ID: ${id}`], got => messages(got).length === 2)
    assert.deepEqual(messages(got).map(message => message.data).sort(), [2, 3])
    assert.deepEqual(answers(got).map(answer => answer.resumed), [true, true])
  })
})
