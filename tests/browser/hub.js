// Starts the built binary as a person would and reads its addresses from what it prints; starts the browser; and a wire
// between the two that can be cut. Ends only what it started.

import { spawn } from "node:child_process"
import { once } from "node:events"
import { createServer, connect } from "node:net"
import { dirname, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { chromium } from "playwright-core"

export const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..")
const binary = process.env.FANFARE_BIN ?? resolve(root, "target/debug/fanfare")
const browserPath = process.env.CHROMIUM ?? "/usr/bin/chromium"
const START_WITHIN = 20_000

/** A running `fanfare demo` on free ports: { url, facts, stop }. */
export async function startHub() {
  const args = ["demo", "--listen", "127.0.0.1:0", "--redis-listen", "127.0.0.1:0"]
  // Its settings are these and no others; a variable of the tests is none of its settings.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("FANFARE_")))
  const child = spawn(binary, args, { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] })
  const kill = () => child.kill("SIGKILL")
  process.on("exit", kill)
  let said = ""
  const url = await new Promise((done, fail) => {
    const timer = setTimeout(() => (kill(), fail(new Error(`no address within ${START_WITHIN} ms; it said:\n${said}`))), START_WITHIN)
    const hear = chunk => {
      said += chunk
      const found = said.match(/http:\/\/[\w.[\]:]+:\d+/)
      if (found) (clearTimeout(timer), done(found[0]))
    }
    child.stdout.on("data", hear)
    child.stderr.on("data", chunk => (said += chunk))
    child.on("error", fail)
    child.on("exit", code => fail(new Error(`${binary} ended with ${code} before it told its address; it said:\n${said}`)))
  })
  const facts = await (await fetch(`${url}/demo.json`)).json()
  const stop = async () => {
    process.off("exit", kill)
    if (child.exitCode !== null) return
    child.kill("SIGTERM")
    const timer = setTimeout(kill, 10_000)
    await once(child, "exit")
    clearTimeout(timer)
  }
  return { url, port: Number(new URL(url).port), facts, stop }
}

export function startBrowser(...more) {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", ...more]
  return chromium.launch({ executablePath: browserPath, args })
}

/** Publishes documents by HTTP; answers the hub's results. */
export async function publish(hub, documents) {
  const response = await fetch(`${hub.url}/v1/messages`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(documents),
  })
  const answer = await response.json()
  if (!response.ok || answer.failed) throw new Error(`${response.status} ${JSON.stringify(answer)}`)
  return answer
}

/**
 * A wire to the hub: `cut` breaks every connection and refuses new ones until `mend`; `cutAfter` breaks each connection,
 * also those to come, once so many bytes of the hub have passed, in the middle of whatever they were.
 */
export async function startWire(port) {
  const ends = new Set()
  let whole = true
  let most = Infinity
  let breaks = 0
  const server = createServer(near => {
    near.on("error", () => near.destroy())
    if (!whole) return near.destroy()
    const far = connect(port, "127.0.0.1")
    far.on("error", () => near.destroy())
    ends.add(near).add(far)
    near.on("close", () => (ends.delete(near), far.destroy()))
    // What was written before the end is still to be read.
    far.on("close", () => (ends.delete(far), near.end()))
    near.pipe(far)
    let passed = 0
    far.on("data", chunk => {
      const part = chunk.subarray(0, most - passed)
      passed += part.length
      near.write(part)
      if (passed < most) return
      breaks++
      far.destroy()
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const cut = () => {
    whole = false
    for (const end of ends) end.destroy()
  }
  const stop = () => (cut(), new Promise(done => server.close(done)))
  const cutAfter = bytes => (most = bytes)
  return { port: server.address().port, cut, cutAfter, mend: () => (whole = true), breaks: () => breaks, stop }
}
