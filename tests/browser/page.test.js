// The demo page in a real browser, against the built binary: what a person would try in the first minutes.

import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { mkdirSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { resolve } from "node:path"
import { after, before, beforeEach, afterEach, describe, test } from "node:test"
import { promisify } from "node:util"
import { createClient } from "redis"
import { publish, root, startBrowser, startHub } from "./hub.js"

const run = promisify(execFile)
const shots = resolve(root, ".dev/shots")
const SAMPLE = "첫 메시지가 도착했습니다"
const KEPT = 1000 // messages of a topic that history keeps
let hub, browser, context, page, faults, sockets

before(async () => {
  mkdirSync(shots, { recursive: true })
  hub = await startHub()
  browser = await startBrowser()
})
after(async () => {
  await browser?.close()
  await hub?.stop()
})

// Every test also holds that nothing was complained of and nothing asked of another host.
async function open(options = {}) {
  context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options })
  page = await context.newPage()
  faults = []
  sockets = []
  page.on("websocket", socket => sockets.push(socket))
  page.on("console", message => ["error", "warning"].includes(message.type()) && faults.push(`console: ${message.text()}`))
  page.on("pageerror", error => faults.push(`page: ${error.message}`))
  page.on("request", request => {
    const { host, protocol } = new URL(request.url())
    if (protocol !== "data:" && host !== new URL(hub.url).host) faults.push(`foreign request: ${request.url()}`)
  })
  await page.exposeFunction("violated", what => faults.push(`csp: ${what}`))
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", event => window.violated(`${event.violatedDirective} ${event.blockedURI}`))
  })
  await page.goto(`${hub.url}/`)
  await stateIs("live")
  await subscribed("hello")
}

const stateIs = state => page.waitForSelector(`#state[data-state="${state}"]`)
const subscribed = topic => page.waitForSelector(`#positions tr:has(th:text-is("${topic}"))`)
const text = selector => page.locator(selector).textContent()
const appears = (selector, what) => page.locator(selector, { hasText: what }).first().waitFor()
const newest = async topic => (await (await fetch(`${hub.url}/v1/topics/${topic}/messages?last=1`)).json()).items[0]
const logRow = what => page.locator("#log-list li", { hasText: what })

describe("the page", () => {
  beforeEach(() => open())
  afterEach(async () => {
    await context.close()
    assert.deepEqual(faults, [])
  })

  test("is served under a policy that allows nothing from elsewhere", async () => {
    const { headers } = await fetch(`${hub.url}/`)
    const policy = headers.get("content-security-policy") ?? ""
    assert.match(policy, /default-src 'none'/)
    assert.doesNotMatch(policy, /unsafe/)
  })

  test("waits, and says on what", async () => {
    assert.match(await text("#waiting"), /listening on hello/)
    assert.equal(await page.getAttribute("#stage", "data-state"), "waiting")
  })

  test("draws vitals that move", async () => {
    await appears("#tile-cpu .sub", "core")
    const drawn = () => page.getAttribute("#tile-load .stroke", "d")
    const before = await drawn()
    await page.waitForFunction(was => document.querySelector("#tile-load .stroke").getAttribute("d") !== was, before)
    assert.match(await text("#tile-memory .figure"), /^\d+\.\dGiB$/)
    assert.match(await text("#tile-load .figure"), /^\d+\.\d\d$/)
  })

  test("shows a message sent from the page itself, with its whole way timed", async () => {
    await page.click("#send-here")
    await appears("#slip-title", SAMPLE)
    await page.waitForSelector('[data-stop="screen"][data-known="true"]')
    assert.match(await text("#slip-via"), /this page/)
    assert.match(await text('[data-stop="published"] dd'), /^\d\d:\d\d:\d\d\.\d{3}$/)
    assert.match(await text('[data-stop="stored"] dd'), /(\+\d.*|<1) ?m?s$/)
    assert.match(await text('[data-stop="screen"] dd'), /(\+\d.*|<1) ?m?s$/)
  })

  for (const [tab, way] of [["redis", "redis-cli"], ["curl", "curl"], ["python", "python"]]) {
    test(`shows what its own ${way} line sends from a shell`, async () => {
      await page.click(`#tab-${tab}`)
      const line = await page.locator(`#way-${tab} pre`).first().textContent()
      assert.ok(!line.includes("\n"), "it is one line")
      await run("bash", ["-c", line], { timeout: 15_000 })
      await appears("#slip-via", `by ${way}`)
      assert.equal(await text("#slip-title"), SAMPLE)
      const timed = await page.getAttribute('[data-stop="published"]', "data-known")
      assert.equal(timed, String(way === "python"), "a figure only where the line carries a clock")
    })
  }

  test("shows what its own line sends from the browser's console", async () => {
    const line = await page.locator("#way-console pre").textContent()
    const devtools = await context.newCDPSession(page)
    await devtools.send("Runtime.evaluate", { expression: line, replMode: true })
    await appears("#slip-via", "by console")
  })

  test("shows what any Redis client adds, and takes markup for text", async () => {
    const client = await createClient({ url: hub.facts.redis }).connect()
    const data = { title: '<img src=x onerror="violated(1)">', text: "<b>bold</b>" }
    await client.xAdd(hub.facts.stream, "*", { topic: "hello", data: JSON.stringify(data) })
    client.destroy()
    await appears("#slip-title", data.title)
    assert.equal(await page.locator("#slip img, #slip b").count(), 0)
  })

  test("keeps the earlier ones in order, newest first", async () => {
    for (const title of ["one", "two", "three"]) await publish(hub, { topic: "hello", data: { title } })
    await appears("#slip-title", "three")
    assert.deepEqual(await page.locator("#staff .what").allTextContents(), ["two", "one"])
  })

  test("comes back after a cut with what was missed, in order", async () => {
    await page.click("#cut")
    await stateIs("away")
    await page.click("#hold")
    for (const title of ["하나", "둘", "셋"]) await publish(hub, { topic: "hello", data: { title } })
    assert.equal(await page.getAttribute("#stage", "data-state"), "waiting", "nothing reaches a page that is away")
    await page.click("#back")
    await appears("#happened li", "hello: resumed: true, 3 missed messages")
    assert.equal(await text("#slip-title"), "셋")
    assert.deepEqual(await page.locator("#staff .what").allTextContents(), ["둘", "하나"])
  })

  test("is unplugged by its switch, and shows what it missed as recovered when it is plugged in again", async () => {
    await page.focus("#unplug")
    await page.keyboard.press("Space")
    await stateIs("held")
    assert.equal(await page.getAttribute("#unplug", "aria-checked"), "true")
    await appears("#unplug-told", "Unplugged for")
    for (const socket of sockets) if (!socket.isClosed()) await socket.waitForEvent("close")
    assert.ok(sockets.length > 0)
    for (const title of ["하나", "둘"]) await publish(hub, { topic: "hello", data: { title } })
    await page.click("#send-here") // by HTTP: a page needs no line of its own to publish
    while ((await newest("hello")).data.via !== "this page");
    assert.equal(await page.getAttribute("#stage", "data-state"), "waiting", "nothing reaches a page that is unplugged")

    await page.click("#unplug")
    await stateIs("live")
    assert.equal(await page.getAttribute("#unplug", "aria-checked"), "false")
    await appears("#unplug-told", "3 on hello")
    assert.match(await text("#unplug-told"), /^Back after \d+ s\. \d+ recovered, in order: .*3 on hello/)
    assert.equal(await page.getAttribute("#unplug-told", "data-kind"), "whole")
    assert.equal(await text("#slip-title"), SAMPLE)
    assert.ok(await page.isVisible("#slip-recovered"))
    assert.deepEqual(await page.locator("#staff .what").allTextContents(), ["둘", "하나"])
    await page.waitForFunction(() => document.querySelectorAll("#staff .recovered").length === 2)
    await appears("#unplug-said", "Back after")

    await publish(hub, { topic: "hello", data: { title: "새것" } })
    await appears("#slip-title", "새것")
    assert.ok(!(await page.isVisible("#slip-recovered")), "what is new is not marked")
  })

  test("says what a page that was unplugged for too long did not get", async () => {
    await page.click("#unplug")
    await stateIs("held")
    const many = Array.from({ length: KEPT }, (_, i) => ({ topic: "hello", data: { title: `${i}` } }))
    await publish(hub, many)
    await publish(hub, many.slice(0, 5))
    await page.click("#unplug")
    await appears("#unplug-told", "Hello is not whole: history no longer reaches back so far")
    assert.equal(await page.getAttribute("#unplug-told", "data-kind"), "gap")
  })

  test("comes back by itself, within the time it says", async () => {
    await page.click("#cut")
    await stateIs("away")
    const seconds = Number((await text("#state-text")).match(/back in ([\d.]+) s/)[1])
    assert.ok(seconds <= 4.5)
    await stateIs("live")
    await appears("#happened li", "vitals: resumed: true")
  })

  test("walks its tabs by keyboard", async () => {
    await page.focus("#tab-redis")
    for (const [key, name] of [["ArrowRight", "curl"], ["End", "console"], ["ArrowRight", "redis"], ["ArrowLeft", "console"], ["Home", "redis"]]) {
      await page.keyboard.press(key)
      assert.equal(await page.evaluate(() => document.activeElement.id), `tab-${name}`)
      assert.equal(await page.getAttribute(`#tab-${name}`, "aria-selected"), "true")
      assert.deepEqual(await page.locator("[role=tabpanel]:visible").evaluateAll(all => all.map(p => p.id)), [`way-${name}`])
    }
    await page.keyboard.press("Tab")
    assert.equal(await page.evaluate(() => document.activeElement.id), "way-redis")
  })

  test("reaches its content past the header by the skip link", async () => {
    await page.keyboard.press("Tab")
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip")
    await page.keyboard.press("Enter")
    assert.equal(await page.evaluate(() => document.activeElement.id), "send")
  })

  test("subscribes to any topic, publishes to it and leaves it", async () => {
    await publish(hub, { topic: "room.1", data: "from before" })
    await page.fill("#topic", "room.1")
    await page.click("#sub-form button[type=submit]")
    await logRow("from before").waitFor()
    await page.fill("#body", '{"say":"안녕"}')
    await page.click("#pub-form button[type=submit]")
    await logRow('{"say":"안녕"}').waitFor()
    await page.check("[value=text]")
    await page.fill("#body", "plain words")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await logRow("plain words").waitFor()
    assert.match(await text("#pub-answer"), /^stored at \S+/)

    await page.click('[aria-label="Unsubscribe from room.1"]')
    await page.waitForSelector('#positions tr:has(th:text-is("room.1"))', { state: "detached" })
    await publish(hub, [{ topic: "room.1", data: "unheard" }, { topic: "hello", data: { title: "heard" } }])
    await appears("#slip-title", "heard")
    assert.equal(await logRow("unheard").count(), 0)
  })

  test("shows the hub's own words for a name that cannot be, and for what is not JSON", async () => {
    await page.fill("#topic", "bad name")
    await page.click("#sub-form button[type=submit]")
    await appears("#sub-fault", "bad-name")
    assert.match(await text("#sub-fault"), /A-Z a-z 0-9/)
    await page.fill("#topic", "news")
    await page.fill("#body", "{not json")
    await page.click("#pub-form button[type=submit]")
    await appears("#pub-answer", "Not JSON yet")
  })

  test("shows a rejected entry made by its own line, and lets go of it", async () => {
    const lettersBefore = await page.locator("#dead li").count()
    await run("bash", ["-c", await text("#dead-line pre")], { timeout: 15_000 })
    await page.locator("#rejected").scrollIntoViewIfNeeded()
    await appears("#dead .dead-text", "topic")
    const letter = page.locator("#dead li").first()
    assert.match(await letter.textContent(), /주소 없는 편지/)
    const id = await letter.getAttribute("data-id")
    await letter.getByRole("button", { name: "Retry" }).click()
    await page.waitForSelector(`#dead li[data-id="${id}"]`, { state: "detached" })
    await page.waitForFunction(n => document.querySelectorAll("#dead li").length === n, lettersBefore + 1) // it lacks a topic still
    await page.locator("#dead li").first().getByRole("button", { name: "Drop" }).click()
    await page.waitForFunction(n => document.querySelectorAll("#dead li").length === n, lettersBefore)
    assert.equal(await text("#dead-fault"), "")
  })

  test("does not move when messages arrive", async () => {
    await page.evaluate(() => {
      window.shifted = 0
      new PerformanceObserver(list => list.getEntries().forEach(entry => (window.shifted += entry.value))).observe({ type: "layout-shift" })
    })
    const box = () => page.locator("#vitals").boundingBox()
    const before = await box()
    for (const title of ["one", "아주 긴 제목 ".repeat(40), "three"]) await publish(hub, { topic: "hello", data: { title, text: title } })
    await appears("#slip-title", "three")
    await page.waitForSelector('[data-stop="screen"][data-known="true"]')
    assert.deepEqual(await box(), before)
    assert.equal(await page.evaluate(() => window.shifted), 0)
  })

  test("announces what came to screen readers, without the vitals", async () => {
    await publish(hub, { topic: "hello", data: { title: "들리나요" } })
    await appears("#announcer", "Message on hello: 들리나요")
    assert.equal(await page.locator("#vitals [aria-live], #vitals [role=status], #vitals [role=log]").count(), 0)
  })

  test("keeps a chosen theme over a reload", async () => {
    const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
    const light = await paper()
    await page.click("#theme")
    const dark = await paper()
    assert.notEqual(dark, light)
    await page.reload()
    assert.equal(await paper(), dark)
    assert.equal(await page.getAttribute("#theme", "aria-pressed"), "true")
  })
})

describe("the page, looked at", () => {
  afterEach(() => context.close())

  async function faultsForAxe() {
    const { violations } = await page.evaluate(() => window.axe.run())
    const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical")
    return serious.map(v => `${v.id}: ${v.nodes.map(node => node.target).join(", ")}`)
  }

  for (const width of [390, 1440]) {
    for (const colorScheme of ["light", "dark"]) {
      test(`fits ${width} px in ${colorScheme} and has no serious fault for axe`, async () => {
        const look = `${width}-${colorScheme}`
        // axe is brought in from outside, which the page's policy rightly forbids: only here is it passed over.
        await open({ viewport: { width, height: width === 390 ? 844 : 900 }, colorScheme, bypassCSP: true, reducedMotion: "reduce" })
        await appears("#tile-cpu .sub", "core")
        await page.screenshot({ path: `${shots}/${look}-waiting.png` })
        await page.fill("#topic", "news")
        await page.click("#sub-form button[type=submit]")
        await page.click("#pub-form button[type=submit]")
        await logRow("안녕하세요").first().waitFor()
        await page.click("#send-here")
        await appears("#slip-title", SAMPLE)
        await page.waitForSelector('[data-stop="screen"][data-known="true"]')
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0, "nothing sticks out")
        await page.evaluate(() => scrollTo(0, 0))
        await page.screenshot({ path: `${shots}/${look}-arrived.png` })
        await page.screenshot({ path: `${shots}/${look}-whole.png`, fullPage: true })

        await page.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"))
        assert.deepEqual(await faultsForAxe(), [])

        await page.click("#unplug")
        await stateIs("held")
        await appears("#unplug-told", "Unplugged")
        await page.screenshot({ path: `${shots}/${look}-away.png` })
        await publish(hub, { topic: "hello", data: { title: SAMPLE, text: "While it was unplugged", via: "curl" } })
        await publish(hub, { topic: "news", data: { hello: "안녕하세요" } })
        await page.click("#send-here")
        while ((await newest("hello")).data.via !== "this page");
        await page.click("#unplug")
        await appears("#unplug-told", "on news")
        await page.waitForSelector("#staff .recovered")
        assert.deepEqual(await faultsForAxe(), [])
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0, "nothing sticks out")
        await page.evaluate(() => scrollTo(0, document.querySelector(".unplug").offsetTop - 120))
        await page.screenshot({ path: `${shots}/${look}-recovered.png` })
      })
    }
  }

  test("stands still for who asks for less motion", async () => {
    await open({ reducedMotion: "reduce" })
    await page.click("#send-here")
    await appears("#slip-title", SAMPLE)
    assert.equal(await page.evaluate(() => document.getAnimations().length), 0)
  })
})
