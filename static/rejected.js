// Rejected entries: what the ingest queue could not use, with its reason, to be put back or dropped.

import { announce, byId, button, clock, line, make } from "./dom.js"
import { deadLine } from "./snippets.js"

const EVERY = 5000
const SHOWN = 50
const rows = new Map() // id → element
let inView = false
let reading = null
let none = false // this hub takes nothing in that could be rejected

export function openRejected(session, facts) {
  if (facts.redis) byId("dead-line").append(...line(deadLine(facts), { label: "rejected entry" }))
  else byId("dead-line").append(make("p", { class: "note" }, "The Redis door of this hub is shut, so no entry can be written from here."))
  new IntersectionObserver(([entry]) => {
    inView = entry.isIntersecting
    if (inView) refresh()
  }).observe(byId("rejected"))
  setInterval(() => inView && !document.hidden && refresh(), EVERY)
  session.subscribe("$ingest.dead", { message: refresh })
  refresh()
}

async function ask(path, options) {
  const response = await fetch(path, options).catch(() => {
    throw new Error("The hub does not answer just now.")
  })
  if (response.ok) return response.status === 204 ? null : response.json().catch(() => null)
  const problem = await response.json().catch(() => ({}))
  const error = new Error(problem.detail ?? problem.title ?? `the hub answered ${response.status}`)
  throw Object.assign(error, { status: response.status })
}

async function refresh() {
  if (none) return
  reading ??= ask(`/v1/ingest/dead?limit=${SHOWN}`)
    .then(show, error => {
      none = error.status === 404
      byId("dead-fault").textContent = error.message
    })
    .finally(() => (reading = null))
  return reading
}

function show({ items, total, notices = [] }) {
  byId("dead-fault").textContent = ""
  byId("dead-count").textContent = total > 0 ? String(total) : ""
  byId("dead-rest").textContent = items.length === 0 ? "None now." : total > items.length ? `The oldest ${items.length} of ${total}.` : ""
  byId("dead-notices").replaceChildren(...notices.map(notice => make("p", { class: "note" }, `${notice.source}: ${notice.text}`)))
  const ids = new Set(items.map(item => item.id))
  for (const [id, row] of rows) {
    if (ids.has(id)) continue
    row.remove()
    rows.delete(id)
  }
  // Rows that stay are left alone, so that a focused button keeps its focus.
  for (const item of items) {
    if (rows.has(item.id)) continue
    const row = letter(item)
    rows.set(item.id, row)
    byId("dead").prepend(row)
  }
}

function letter(item) {
  const fields = make("dl", { class: "fields" })
  for (const [name, value] of Object.entries(item.fields ?? {})) {
    fields.append(make("div", {}, make("dt", {}, name), make("dd", {}, typeof value === "string" ? value : JSON.stringify(value))))
  }
  const act = (label, done, path, method) =>
    button(label, async element => {
      try {
        await ask(`/v1/ingest/dead/${encodeURIComponent(item.id)}${path}`, { method })
        announce(done)
      } catch (error) {
        byId("dead-fault").textContent = error.message
      }
      await reading
      await refresh()
      if (!element.isConnected) (byId("dead").querySelector("button") ?? byId("rejected-title")).focus()
    }, { "aria-label": `${label} entry ${item.entry}` })
  return make("li", { "data-id": item.id },
    make("p", { class: "dead-head" }, make("span", { class: "reason" }, item.reason), make("code", {}, `${item.source} ${item.entry}`), make("time", {}, clock(item.time))),
    make("p", { class: "dead-text" }, item.text),
    fields,
    make("p", { class: "row" }, act("Retry", "Put back in its queue", "/retry", "POST"), act("Drop", "Dropped", "", "DELETE")))
}
