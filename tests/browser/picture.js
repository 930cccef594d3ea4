// Takes the picture of the README, `docs/demo.png`, of a running hub: one minute of vitals, then one message by its own
// redis-cli line and one from Python. `node tests/browser/picture.js`; not a test.

import { execFileSync } from "node:child_process"
import { mkdirSync } from "node:fs"
import { resolve } from "node:path"
import { root, startBrowser, startHub } from "./hub.js"

const hub = await startHub()
const browser = await startBrowser()
const page = await browser.newPage({ viewport: { width: 1440, height: 1130 }, colorScheme: "light" })
await page.goto(`${hub.url}/`)
await page.waitForSelector('#state[data-state="live"]')
await page.waitForFunction(() => document.querySelector("#tile-load .stroke")?.getAttribute("d")?.match(/[ML]/g)?.length >= 60, null, { timeout: 90_000 })
for (const way of ["curl", "python", "redis"]) {
  const line = await page.locator(`#way-${way} pre`).first().textContent()
  execFileSync("bash", ["-c", line], { stdio: "ignore" })
  await page.locator("#slip-via", { hasText: way }).waitFor()
}
await page.click("#send-here")
await page.locator("#slip-via", { hasText: "this page" }).waitFor()
await page.waitForSelector('[data-stop="screen"][data-known="true"]')
await page.mouse.move(0, 0)
await page.evaluate(() => Promise.all(document.getAnimations().filter(a => a.effect.getTiming().iterations !== Infinity).map(a => a.finished.catch(() => {}))))
mkdirSync(resolve(root, "docs"), { recursive: true })
await page.screenshot({ path: resolve(root, "docs/demo.png") })
await browser.close()
await hub.stop()
