// The broker lab in a real browser, against the built binary: every button, and what a student sees when it is pressed.

import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { mkdirSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { resolve } from "node:path"
import { after, afterEach, before, beforeEach, describe, test } from "node:test"
import { promisify } from "node:util"
import { LANGUAGES, WORDS } from "../../static/lab/words.js"
import { root, startBrowser, startHub } from "./hub.js"

const run = promisify(execFile)
const shots = resolve(root, ".dev/shots")
let hub, browser, context, page, faults

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
  context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: "reduce", ...options })
  page = await context.newPage()
  page.setDefaultTimeout(15_000)
  faults = []
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
  await page.goto(`${hub.url}/lab`)
  await page.waitForSelector("body[data-ready]")
}

const button = (name, within = page) => within.getByRole("button", { name, exact: true })
const subscriber = n => page.locator("#subscribers .actor").nth(n - 1)
const worker = n => page.locator("#workers .actor").nth(n - 1)
const card = id => page.locator(`#${id}`)
const chips = where => where.locator(".chips-list .chip-text").allTextContents()
const told = (where, text) => where.locator(".told-line", { hasText: text }).waitFor()
const reads = (selector, text) => page.waitForFunction(([s, t]) => document.querySelector(s)?.textContent === t, [selector, String(text)])
const listen = n => page.getByRole("switch", { name: `Subscriber ${n} listens` })
const shows = (where, text) => where.locator(".chip", { hasText: text }).first().waitFor()
const wire = () => page.locator("#wire-list .sent").evaluateAll(rows =>
  rows.map(row => [...row.querySelectorAll(".words")].map(words => words.querySelector("code")?.textContent ?? null)).reverse())

async function send(text, { priority, many } = {}) {
  await page.fill("#message", text)
  if (priority !== undefined) await page.selectOption("#priority", String(priority))
  await button(many ? "Send 5" : "Send").click()
}
const sent = n => page.locator("#producer-told", { hasText: `#${n} is stored` }).waitFor()

describe("the lab", () => {
  beforeEach(() => open())
  afterEach(async () => {
    await context.close()
    assert.deepEqual(faults, [])
  })

  test("is reached from the demo page and leads back", async () => {
    await page.getByRole("link", { name: "Demo page" }).click()
    await page.waitForSelector('#state[data-state="live"]')
    await page.locator("nav").getByRole("link", { name: "Broker lab" }).click()
    await page.waitForSelector("body[data-ready]")
    assert.match((await fetch(`${hub.url}/lab/`)).url, /\/lab$/)
  })

  test("gives each subscriber a copy, and one worker the job", async () => {
    await page.selectOption("#work-time", "1")
    await send("same")
    for (const n of [1, 2, 3]) await shows(subscriber(n), "#1 same")
    await reads("#count-done", 1)
    const done = await Promise.all([1, 2, 3].map(async n => (await chips(worker(n))).length))
    assert.deepEqual(done.toSorted(), [0, 0, 1])
  })

  test("lets a subscriber of a live topic miss what comes while it is off, and says so", async () => {
    await send("first")
    await shows(subscriber(2), "#1 first")
    await listen(2).click()
    await subscriber(2).getByText("Off. Missed so far: 0").waitFor()
    await send("missed")
    await subscriber(2).getByText("Off. Missed so far: 1").waitFor()
    await shows(subscriber(3), "#2 missed")
    await listen(2).click()
    await told(subscriber(2), "1 missed, and they stay missed (why: live)")
    await send("last")
    await shows(subscriber(2), "#3 last")
    assert.deepEqual(await chips(subscriber(2)), ["#3 last", "#1 first"])
    assert.deepEqual(await chips(subscriber(1)), ["#3 last", "#2 missed", "#1 first"])
  })

  test("gives a subscriber of a topic with history what it missed, marked as recovered", async () => {
    await page.getByLabel("its history").check()
    await page.locator("#topic-name", { hasText: ".log" }).waitFor()
    await send("first")
    await shows(subscriber(1), "#1 first")
    await listen(1).click()
    await subscriber(1).getByText("Missed so far: 0").waitFor()
    await send("away")
    await sent(2)
    await send("away")
    await subscriber(1).getByText("Missed so far: 2").waitFor()
    await listen(1).click()
    await told(subscriber(1), "Back: 2 recovered")
    await send("new")
    await shows(subscriber(1), "#4 new")
    const marked = await subscriber(1).locator(".chip", { has: page.locator(".badge") }).locator(".chip-text").allTextContents()
    assert.deepEqual(marked, ["#3 away", "#2 away"])
    const [frame, curl] = (await wire()).findLast(([frame]) => frame?.includes('"after"'))
    assert.match(frame, /^\{"id":\d+,"sub":"lab\.\w+\.log","after":"[^"]+"\}$/)
    assert.match(curl, new RegExp(`^curl -N '${hub.url}/v1/sse\\?topic=lab\\.\\w+\\.log&after=`))
  })

  test("gives the job of a killed worker to another, as its second try", async () => {
    await page.selectOption("#work-time", "10")
    await send("work")
    const busy = page.locator('#workers .actor[data-busy="true"]')
    await busy.waitFor()
    const first = await busy.locator("h3").textContent()
    await page.selectOption("#work-time", "1")
    await button(`Kill ${first.toLowerCase()}`).click()
    await page.locator("#workers .actor", { hasText: "Killed" }).waitFor()
    const again = page.locator("#workers .chip", { hasText: "#1" })
    await again.getByText("try 2").waitFor()
    assert.notEqual(await page.locator("#workers .actor", { hasText: "try 2" }).locator("h3").textContent(), first)
    await reads("#count-done", 1)
    await button(`Start ${first.toLowerCase()}`).click()
    await page.locator("#workers .actor", { hasText: first }).getByText("Waits for work").waitFor()
  })

  test("keeps jobs while no worker is there, the highest priority first", async () => {
    for (const n of [1, 2, 3]) await button(`Kill worker ${n}`).click()
    await send("low", { priority: 1 })
    await sent(1)
    await send("high", { priority: 9 })
    await reads("#count-waiting", 2)
    await page.waitForFunction(() => document.querySelectorAll("#waiting .chip").length === 2)
    assert.deepEqual(await page.locator("#waiting .chip").allTextContents(), ["#2P9", "#1P1"])
    await page.selectOption("#work-time", "1")
    await button("Start worker 3").click()
    await reads("#count-done", 2)
    assert.deepEqual(await chips(worker(3)), ["#1", "#2"], "newest first: #2 was done before #1")
    assert.equal(await page.textContent("#count-waiting"), "0")
  })

  test("shares five jobs out among three workers", async () => {
    await page.selectOption("#work-time", "1")
    await send("five", { many: true })
    await sent(5)
    await reads("#count-done", 5)
    for (const n of [1, 2, 3]) assert.ok((await chips(worker(n))).length >= 1, `worker ${n} had its part`)
  })

  test("prints each frame as it was sent, and a curl line that does the same", async () => {
    await page.selectOption("#work-time", "1")
    await send("안녕 'quoted'", { priority: 7 })
    await reads("#count-done", 1)
    await button("Put record", card("kinesis")).click()
    await card("kinesis").locator(".records li", { hasText: "r1" }).waitFor()
    await button("Read next for A", card("kinesis")).click()
    await told(card("kinesis"), "Read r1")
    const printed = await wire()
    const of = verb => printed.findLast(([frame]) => frame && verb in JSON.parse(frame) && (verb !== "pub" || frame.includes(".live")))
    for (const verb of ["pub", "put", "history", "commit"]) {
      const { stdout } = await run("bash", ["-c", `${of(verb)[1]} -sS --fail-with-body`])
      assert.ok(JSON.parse(stdout), verb)
    }
    await shows(subscriber(1), "#1 안녕 'quoted'")
    await page.waitForFunction(() => document.querySelectorAll("#subscribers .actor:first-child .chip").length === 2)
    await reads("#count-done", 2)
    assert.match(of("put")[1], /\?priority=7'$/)
    assert.match(of("ack")[1], /curl --json '\{"tag":"TAG"\}'/)
    const { stdout } = await run("bash", ["-c", `${of("take")[1].replace('"wait":20', '"wait":0')} -sS --fail-with-body`])
    assert.deepEqual(JSON.parse(stdout).jobs, [])
    await button("Show all").click()
    assert.ok((await page.locator("#wire-list .sent:visible").count()) >= 5)
    await button("Show the last").click()
    assert.equal(await page.locator("#wire-list .sent:visible").count(), 2)
  })

  test("copies a frame", async () => {
    await context.grantPermissions(["clipboard-read", "clipboard-write"])
    await send("copy me")
    await sent(1)
    const first = page.locator("#wire-list .sent").first()
    const frame = await first.locator('[data-part="frame"] code').textContent()
    await first.getByRole("button", { name: "Copy the frame" }).click()
    await first.getByText("Copied").waitFor()
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), frame)
  })

  test("does not meet another visitor of the same hub", async () => {
    const other = await context.newPage()
    await other.goto(`${hub.url}/lab`)
    await other.waitForSelector("body[data-ready]")
    assert.notEqual(await other.textContent("#topic-name"), await page.textContent("#topic-name"))
    await send("mine")
    await shows(subscriber(1), "#1 mine")
    assert.equal(await other.locator(".chip").count(), 0)
    await other.getByRole("button", { name: "Start over" }).click()
    await other.waitForSelector("body[data-ready]")
    await other.close()
  })

  test("says everything in Korean too, and at once", async () => {
    await send("안녕")
    await sent(1)
    await button("한국어").click()
    assert.equal(await page.getAttribute("html", "lang"), "ko")
    const left = await page.locator("[data-say]:visible").evaluateAll(all => all.map(e => e.textContent).filter(t => !/[가-힣]/.test(t)))
    assert.deepEqual([...new Set(left)].filter(text => !/^(curl|SQS FIFO|Kinesis|Kafka)$/.test(text)), [])
    await page.getByRole("switch", { name: "구독자 1 듣기" }).click()
    await subscriber(1).getByText("꺼짐. 지금까지 놓친 것: 0").waitFor()
    await page.reload()
    await page.waitForSelector("body[data-ready]")
    assert.equal(await page.textContent("h1"), WORDS.hero[LANGUAGES.indexOf("ko")], "the choice is kept")
  })

  test("is used with the keyboard alone", async () => {
    await page.focus("#message")
    await page.keyboard.press("Enter")
    await sent(1)
    await listen(1).focus()
    await page.keyboard.press("Space")
    await subscriber(1).getByText("Missed so far: 0").waitFor()
    await button("Kill worker 1").focus()
    await page.keyboard.press("Enter")
    await button("Start worker 1").waitFor()
    assert.match(await page.evaluate(() => document.activeElement.textContent), /Start/, "the focus stays")
  })
})

// Each has a card, a queue or topic, and a line of its own, so that one page does for all.
describe("the classics of the lab", () => {
  before(() => open())
  after(async () => {
    await context.close()
    assert.deepEqual(faults, [])
  })

  test("SQS standard: what is not deleted in time is visible again, and comes once more", async () => {
    const sqs = card("sqs")
    await button("Send message", sqs).click()
    await sqs.locator(".chip", { hasText: "visible" }).waitFor()
    await button("Receive message", sqs).click()
    await sqs.locator(".chip", { hasText: "try 1" }).getByText(/invisible for \d s/).waitFor()
    await told(sqs, "m1 was not deleted in time")
    await button("Receive message", sqs).click()
    await sqs.locator(".chip", { hasText: "try 2" }).waitFor()
    await button("Delete m1", sqs).click()
    await sqs.locator(".chip", { hasText: "deleted" }).waitFor()
    await button("Receive message", sqs).click()
    await told(sqs, "long polling")
    await button("Send message", sqs).click()
    await sqs.locator(".chip", { hasText: "m2" }).getByText("try 1").waitFor()
  })

  test("SQS FIFO: one id is one job, and a group keeps its order without holding up the other", async () => {
    const fifo = card("fifo")
    await button("Send 3 red, 3 blue", fifo).click()
    await fifo.locator(".chip", { hasText: "blue 3" }).waitFor()
    await button("Receive up to 10", fifo).click()
    const held = async () => (await fifo.locator('[data-kind="held"] .chip-text').allTextContents()).toSorted()
    await fifo.locator('[data-kind="held"]', { hasText: "red 1" }).waitFor()
    await fifo.locator('[data-kind="held"]', { hasText: "blue 1" }).waitFor()
    assert.deepEqual(await held(), ["blue 1", "red 1"], "ten were asked for, the others wait behind")
    await button("Delete red 1", fifo).click()
    await fifo.locator('[data-kind="held"]', { hasText: "red 2" }).waitFor()
    assert.deepEqual(await held(), ["blue 1", "red 2"])
    await button("Send one id twice", fifo).click()
    await told(fifo, "Two sends, one job: the second answer says repeated")
    assert.equal(await fifo.locator(".chip", { hasText: "order-1" }).count(), 1)
  })

  test("Kinesis: two consumers with their own places, and who is too late is told of the gap", async () => {
    const kinesis = card("kinesis")
    await button("Put 5", kinesis).click()
    await kinesis.locator(".records li", { hasText: "r5" }).waitFor()
    await button("Read next for A", kinesis).click()
    await told(kinesis, "Read r1 and committed it")
    await kinesis.locator("[data-consumer=A] output", { hasText: "at 1, unread 4" }).waitFor()
    assert.match(await kinesis.locator("[data-consumer=B] output").textContent(), /at 0, unread 5/)
    await button("Put record", kinesis).click()
    await kinesis.locator(".records li", { hasText: "r6" }).waitFor()
    await button("Put record", kinesis).click()
    await kinesis.locator('.records li[data-gone="true"]', { hasText: "r2" }).waitFor()
    await button("Read next for A", kinesis).click()
    await told(kinesis, "Gap: r2 to r2 are gone (why: retention). Then it read r3.")
    await button("Read next for B", kinesis).click()
    await told(kinesis, "Gap: r1 to r2 are gone")
  })

  test("Kafka: one group is dragged back and reads again, the other does not notice", async () => {
    const kafka = card("kafka")
    await button("Produce 5", kafka).click()
    await kafka.locator(".records li", { hasText: "r5" }).waitFor()
    await button("Produce", kafka).click()
    await kafka.locator(".records li", { hasText: "r6" }).waitFor()
    for (const n of [1, 2, 3]) {
      await button("Read next for A", kafka).click()
      await told(kafka, `Read r${n} and committed it`)
    }
    await button("Read next for B", kafka).click()
    await kafka.locator("[data-consumer=B] output", { hasText: "at 1, unread 5" }).waitFor()
    const offset = kafka.getByRole("slider", { name: "Offset of A" })
    await offset.focus()
    await page.keyboard.press("Home")
    await told(kafka, "Rewound to 0")
    await button("Read next for A", kafka).click()
    await told(kafka, "Read r1 and committed it")
    assert.match(await kafka.locator("[data-consumer=B] output").textContent(), /at 1, unread 5/)
    await offset.focus()
    await page.keyboard.press("End")
    await told(kafka, "Moved on to 6")
    await button("Read next for A", kafka).click()
    await told(kafka, "Nothing new")
  })

  test("10 of priority 7 or higher, or any 10: nothing before, then all, the highest first", async () => {
    const gate = card("gate")
    await button("Put 5 of priority 2", gate).click()
    await told(gate, "Closed: 5 wait")
    for (const n of [6, 7, 8, 9]) {
      await button("Put 1 of priority 9", gate).click()
      await told(gate, `Closed: ${n} wait`)
    }
    assert.deepEqual(await gate.locator(".meter output").allTextContents(), ["4 / 10", "9 / 10"])
    assert.deepEqual(await chips(gate), [], "nine are not enough")
    await button("Put 1 of priority 2", gate).click()
    await told(gate, "Opened 1 times; given out 10")
    assert.deepEqual(await chips(gate), [...Array(4).fill("P9"), ...Array(6).fill("P2")])
    await told(gate, "Closed: 0 wait")

    await gate.getByRole("spinbutton", { name: "Priority ≥ 7" }).fill("5")
    await button("Set", gate).click()
    await gate.locator(".meter output", { hasText: "0 / 5" }).waitFor()
    await button("Put 5 of priority 9", gate).click()
    await told(gate, "Opened 2 times; given out 15")
  })

  test("tells in the hub's own words what was not done", async () => {
    await card("gate").getByRole("spinbutton", { name: "Priority ≥ 7" }).fill("0")
    await button("Set", card("gate")).click()
    await card("gate").locator(".fault", { hasText: /^Not done: \S+: .*count/ }).waitFor()
    faults = faults.filter(fault => !/console: Failed to load resource.* 4\d\d/.test(fault)) // the browser's own word for it
  })
})

test("every word of the lab is there in each language", () => {
  for (const [key, words] of Object.entries(WORDS)) {
    assert.equal(words.length, LANGUAGES.length, key)
    assert.ok(words.every(text => text.trim()), key)
    const blanks = text => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).toSorted()
    assert.deepEqual(blanks(words[0]), blanks(words[1]), `${key} fills the same`)
  }
})

test("it fits small and large screens, light and dark, and axe finds no serious fault", async () => {
  // axe is brought in from outside, which the page's policy rightly forbids: only here is it passed over.
  await open({ bypassCSP: true })
  await page.selectOption("#work-time", "10")
  await listen(2).click()
  await send("안녕 · hello", { many: true })
  await page.waitForFunction(() => document.querySelectorAll('#workers [data-busy="true"]').length === 3)
  await page.waitForFunction(() => document.querySelectorAll("#waiting .chip").length === 2)
  await button("Send 3 red, 3 blue").click()
  await page.locator("#fifo .chip").nth(5).waitFor()
  await button("Put 5", card("kinesis")).click()
  await page.locator("#kinesis .records li").nth(4).waitFor()
  await page.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"))
  for (const [width, colorScheme, language] of [[1280, "light", "en"], [1280, "dark", "ko"], [390, "dark", "ko"], [390, "light", "en"]]) {
    await page.setViewportSize({ width, height: width === 390 ? 844 : 900 })
    await page.emulateMedia({ colorScheme })
    await page.click(`#languages [lang=${language}]`)
    const look = `lab-${width}-${colorScheme}`
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0, `${look}: nothing sticks out`)
    await page.evaluate(() => scrollTo(0, 0))
    await page.screenshot({ path: `${shots}/${look}.png` })
    await page.screenshot({ path: `${shots}/${look}-whole.png`, fullPage: true })
    const { violations } = await page.evaluate(() => window.axe.run())
    const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical")
    assert.deepEqual(serious.map(v => `${look}: ${v.id}: ${v.nodes.map(node => node.target).join(", ")}`), [])
  }
  await context.close()
})
