// "Send yourself one": the lines to paste, and the stage on which the message on `hello` appears with its way and times.

import { announce, byId, clock, line, make, readable, span } from "./dom.js"
import { drawFlare, sound } from "./flare.js"
import { SAMPLE, consoleLine, curlLine, pythonLine, redisLine, redisPyLine } from "./snippets.js"
import { oneClock } from "./socket.js"
import { tabs } from "./tabs.js"

const EARLIER = 5
const earlier = []
let shown = null
let unspoken = 0

export function openSend(session, facts) {
  drawFlare()
  tabs(byId("ways"))
  fillWays(facts)
  session.listen((kind, message) => kind === "message" && sound(message.topic === "hello"))
  session.listen(kind => kind === "state" && showLine(session.state))
  session.subscribe("hello", { message: appear })
  byId("send-here").addEventListener("click", () => sendHere(session, facts))
  setInterval(() => unspoken && speak(), 3000)
}

function showLine(state) {
  byId("stage").dataset.line = state
  const words = { connecting: "calling the hub, for ", live: "listening on " }
  byId("waiting-words").textContent = words[state] ?? "the line is down; later again on "
}

function fillWays(facts) {
  if (facts.redis) {
    byId("way-redis").append(...line(redisLine(facts), { label: "redis-cli", note: "Any Redis client will do: the hub speaks its protocol." }))
  } else {
    byId("way-redis").append(make("p", { class: "note" },
      "This hub was started without its Redis door. Start it with ", make("code", {}, "--redis-listen 127.0.0.1:6380"), " and this tab has the line."))
  }
  byId("way-curl").append(...line(curlLine(facts), { label: "curl", note: "curl 7.82 or newer, for --json." }))
  byId("way-python").append(...line(pythonLine(facts), { label: "Python", note: "Standard library only. It puts its own clock in, so the whole way is timed." }))
  if (facts.redis) byId("way-python").append(...line(redisPyLine(facts), { label: "redis-py", note: "The same with redis-py." }))
  byId("way-console").append(...line(consoleLine(facts), { label: "browser console", note: "Open the console of this page (F12) and paste." }))
}

async function sendHere(session, facts) {
  const fault = byId("send-fault")
  fault.textContent = ""
  const data = { ...SAMPLE, via: "this page", sent: Date.now() }
  try {
    await (session.state === "live" ? session.publish("hello", { data }) : post(facts, data))
  } catch (error) {
    fault.textContent = ` ${error.text ?? error.error}`
  }
}

// Publishing needs no line of one's own: a page that is unplugged can still post.
async function post(facts, data) {
  const response = await fetch(`${facts.http}/v1/topics/hello/messages`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(data),
  }).catch(() => {
    throw { text: "The hub does not answer just now." }
  })
  if (!response.ok) throw { text: (await response.json().catch(() => ({}))).detail ?? `the hub answered ${response.status}` }
}

function appear(message, recovered) {
  if (shown) remember(shown)
  const data = message.data ?? {}
  const entry = {
    title: typeof data.title === "string" ? data.title : "",
    text: typeof data.text === "string" ? data.text : "",
    via: String(data.via ?? message.tags?.via ?? message.name ?? ""),
    sent: Number.isFinite(data.sent) ? data.sent : null,
    stored: message.time ?? null,
    screen: null,
    at: message.at,
    recovered,
  }
  if (!entry.title) [entry.title, entry.text] = [entry.text || readable(message.data), ""]
  shown = entry
  byId("slip-title").textContent = entry.title
  byId("slip-text").textContent = entry.text
  byId("slip-via").textContent = entry.via ? `by ${entry.via}` : ""
  byId("slip-at").textContent = message.at
  byId("slip-recovered").hidden = !recovered
  const stage = byId("stage")
  stage.dataset.state = "arrived"
  showWay(entry)
  byId("slip").getAnimations().forEach(animation => (animation.cancel(), animation.play()))
  unspoken++
  // The second frame begins when the first, with the message in it, was handed to the screen.
  requestAnimationFrame(() => requestAnimationFrame(() => {
    entry.screen = Date.now()
    if (entry === shown) showWay(entry)
    else showEarlier()
  }))
}

function speak() {
  announce(unspoken === 1 ? `Message on hello: ${shown.title}. ${shown.text}` : `${unspoken} messages on hello, the last: ${shown.title}`)
  unspoken = 0
}

// A figure is shown only where both its clocks were read. Where a later stop reads earlier, the clocks differ and that is said.
function showWay({ sent, stored, screen }) {
  const times = { published: sent, stored, screen }
  let before = null
  let differ = 0
  for (const stop of byId("journey").children) {
    const time = times[stop.dataset.stop]
    const told = stop.querySelector("dd")
    stop.dataset.known = String(time !== null)
    told.replaceChildren(time === null ? "–" : clock(time))
    if (time !== null && before !== null) {
      const took = Math.floor(time) - Math.floor(before) // the hub tells whole milliseconds
      if (took < 0) differ = Math.max(differ, -took)
      told.append(make("span", { class: "took" }, took < 0 ? "clocks differ" : took === 0 ? "<1 ms" : `+${span(took)}`))
    }
    if (time !== null) before = time
  }
  byId("clocks").textContent = clocks(sent, differ)
}

function clocks(sent, differ) {
  if (differ > 0) return `The clocks differ by at least ${span(differ)}: not every span can be told.`
  const told = sent === null ? "No clock came with it, so its way begins at the hub. " : ""
  return told + (oneClock ? "One machine, one clock." : "Read on different machines: clocks may differ.")
}

function remember(entry) {
  earlier.unshift(entry)
  earlier.length = Math.min(earlier.length, EARLIER)
  showEarlier()
}

function showEarlier() {
  const rows = byId("staff").children
  earlier.forEach((entry, i) => {
    const late = entry.screen && entry.stored && entry.screen >= entry.stored ? span(entry.screen - entry.stored) : ""
    const took = entry.recovered ? make("span", { class: "recovered" }, "recovered") : late
    rows[i].replaceChildren(
      make("span", { class: "when" }, clock(entry.stored ?? entry.screen ?? 0).slice(0, 8)),
      make("span", { class: "what" }, entry.title),
      make("span", { class: "by" }, entry.via),
      make("span", { class: "took" }, took),
    )
  })
}
