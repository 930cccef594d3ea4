// The switch that unplugs this page: its socket is really closed, and stays so, while the hub and its publishers go on.
// Plugged in again, it tells how long the page was away, what was recovered, and what was not.

import { byId, span } from "./dom.js"

const SETTLED = 900
let away = null // { since, until, topics: name → { recovered, fault } }
let timer = 0

export function openUnplug(session) {
  byId("unplug").addEventListener("click", () => (session.state === "held" ? session.connect() : session.hold()))
  session.listen((kind, detail, recovered) => on[kind]?.(detail, recovered))
  setInterval(() => away && !away.until && show(), 1000)
}

const on = {
  state({ state }) {
    const isOut = state === "held"
    // What a later cut of the line brings back is another story.
    if (away?.until && state !== "live" && !isOut) away.isOver = true
    byId("unplug").setAttribute("aria-checked", String(isOut))
    byId("unplug-state").textContent = isOut ? "unplugged" : "plugged in"
    if (isOut && (!away || away.until)) {
      away = { since: Date.now(), until: 0, topics: new Map() }
      byId("unplug-said").textContent = "Unplugged. The hub goes on without this page."
      show()
    }
    if (state === "live" && away && !away.until) {
      away.until = Date.now()
      show()
    }
  },
  subscribed({ name, resume }) {
    if (!away?.until || away.isOver || !resume || away.topics.has(name)) return
    const fault = resume.resumed ? "" : `${name} is not whole: ${words(resume.why)}`
    away.topics.set(name, { recovered: 0, fault })
    settle()
  },
  message({ topic }, recovered) {
    const heard = away?.topics.get(topic)
    if (!heard || !recovered || away.isOver) return
    heard.recovered++
    settle()
  },
  gap({ gap, why }) {
    const heard = away?.topics.get(gap)
    if (!heard || away.isOver) return
    heard.fault = `a gap on ${gap}: ${words(why)}`
    settle()
  },
}

const REASONS = {
  retention: "history no longer reaches back so far",
  expired: "the time of some messages ended",
  failover: "the store began anew",
  epoch: "the store began anew",
  slow: "this page read too slowly",
  live: "the topic keeps no history",
}
const words = why => REASONS[why] ?? why ?? "why is not known"

// What was missed is still arriving: it is shown as it counts, and said once it has settled; in a place of its own, since
// elsewhere a newer sentence takes the place of one that was not spoken yet.
function settle() {
  show()
  clearTimeout(timer)
  timer = setTimeout(() => (byId("unplug-said").textContent = byId("unplug-told").textContent), SETTLED)
}

function show() {
  const told = byId("unplug-told")
  const { since, until, topics } = away
  if (!until) {
    told.dataset.kind = "out"
    told.textContent = `Unplugged for ${whole(Date.now() - since)}. The hub goes on without this page.`
    return
  }
  const heard = [...topics].filter(([, { recovered }]) => recovered > 0)
  const total = heard.reduce((sum, [, { recovered }]) => sum + recovered, 0)
  const faults = [...topics.values()].map(({ fault }) => fault).filter(Boolean)
  const each = heard.map(([name, { recovered }]) => `${recovered} on ${name}`).join(", ")
  const many = total > 0 ? `${total} recovered, in order: ${each}.` : faults.length ? "" : "Nothing was missed."
  told.dataset.kind = faults.length ? "gap" : "whole"
  told.textContent = [`Back after ${whole(until - since)}.`, many, ...faults.map(capital)].filter(Boolean).join(" ")
}

const whole = ms => (ms < 60_000 ? `${Math.max(1, Math.round(ms / 1000))} s` : span(ms))
const capital = text => `${text[0].toUpperCase()}${text.slice(1)}.`
