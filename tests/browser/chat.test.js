// The chat of `examples/` in a real browser: two people, one of whom loses the line while the other goes on.

import assert from "node:assert/strict"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import { resolve } from "node:path"
import { after, before, test } from "node:test"
import { root, startBrowser, startHub, startWire } from "./hub.js"

let hub, wire, browser, site

before(async () => {
  hub = await startHub()
  wire = await startWire(hub.port)
  browser = await startBrowser()
  const html = readFileSync(resolve(root, "examples/chat/index.html"))
  site = createServer((_, response) => response.setHeader("content-type", "text/html; charset=utf-8").end(html)).listen(0, "127.0.0.1")
  await once(site, "listening")
})
after(async () => {
  await browser?.close()
  await wire?.stop()
  site?.close()
  await hub?.stop()
})

async function join(name, port) {
  const page = await browser.newPage()
  page.setDefaultTimeout(15_000)
  await page.goto(`http://127.0.0.1:${site.address().port}/?name=${name}&hub=ws://127.0.0.1:${port}/ws`)
  await page.getByText("connected").waitFor()
  return page
}
const say = async (page, text) => {
  await page.fill("#text", text)
  await page.keyboard.press("Enter")
}
const hears = (page, text) => page.locator("#said li", { hasText: text }).waitFor()
const said = page => page.locator("#said li").allTextContents()

test("a chat goes on where it was, for who lost the line and for who comes later", async () => {
  const ann = await join("ann", hub.port)
  const bob = await join("bob", wire.port)
  await say(ann, "hello")
  await hears(bob, "ann: hello")
  wire.cut()
  await bob.getByText("away").waitFor()
  await say(ann, "are you there?")
  await hears(ann, "are you there?")
  await say(bob, "said while away")
  wire.mend()
  await hears(ann, "bob: said while away")
  await hears(bob, "bob: said while away")
  const all = ["ann: hello", "ann: are you there?", "bob: said while away"]
  assert.deepEqual(await said(bob), all)
  assert.deepEqual(await said(ann), all)
  const eve = await join("eve", hub.port)
  await hears(eve, "said while away")
  assert.deepEqual(await said(eve), all)
})
