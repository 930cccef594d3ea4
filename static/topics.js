// Any topic: subscribe, publish, and see messages as they come; the newest first, the last 200 kept.

import { announce, byId, clock, make, readable } from "./dom.js"

const KEPT = 200
const subscribed = new Map() // name → what takes the listener away
let unspoken = 0

export function openTopics(session) {
  byId("sub-form").addEventListener("submit", event => {
    event.preventDefault()
    subscribe(session, byId("topic").value.trim())
  })
  byId("pub-form").addEventListener("submit", event => {
    event.preventDefault()
    publish(session, byId("topic").value.trim())
  })
  setInterval(() => {
    if (unspoken) announce(`${unspoken} new ${unspoken === 1 ? "message" : "messages"} in Any topic`)
    unspoken = 0
  }, 5000)
}

function subscribe(session, name) {
  const fault = byId("sub-fault")
  fault.textContent = ""
  if (subscribed.has(name)) return
  const told = (kind, frame) => {
    if (kind === "subscribed") chip(name)
    if (kind === "gap") note(name, `gap: ${frame.why}; what lies between ${frame.after} and ${frame.to ?? "now"} did not come`)
    if (kind === "error" || kind === "ended") {
      unsubscribe(name)
      fault.textContent = `${frame.error}: ${frame.text ?? ""}`
      announce(`Not subscribed: ${frame.text ?? frame.error}`)
    }
    if (kind === "subscribed" && frame.resumed === false) note(name, `resumed: false; ${frame.why ?? "history no longer reaches back"}`)
  }
  const counted = { message, told }
  subscribed.set(name, null)
  subscribed.set(name, session.subscribe(name, counted, 10))
}

function unsubscribe(name) {
  subscribed.get(name)?.()
  subscribed.delete(name)
  byId(chipId(name))?.remove()
}

const chipId = name => `chip-${name}`

function chip(name) {
  if (byId(chipId(name))) return
  const away = make("button", { type: "button", "aria-label": `Unsubscribe from ${name}` }, "×")
  away.addEventListener("click", () => {
    unsubscribe(name)
    byId("topic").focus()
  })
  byId("chips").append(make("li", { id: chipId(name) }, make("code", {}, name), away))
  announce(`Subscribed to ${name}`)
}

async function publish(session, topic) {
  const answer = byId("pub-answer")
  const written = byId("body").value
  const kind = new FormData(byId("pub-form")).get("kind")
  answer.dataset.fault = "false"
  try {
    const body = kind === "text" ? { text: written } : { data: JSON.parse(written) }
    const reply = await session.publish(topic, body)
    answer.textContent = `stored at ${reply.stored}${reply.durability ? ` · ${reply.durability}` : ""}`
  } catch (error) {
    answer.dataset.fault = "true"
    answer.textContent = error instanceof SyntaxError
      ? `Not JSON yet: ${error.message}. Choose “text” to send it as it is.`
      : `${error.error}: ${error.text ?? ""}`
  }
  announce(answer.textContent)
}

function message(m, recovered) {
  unspoken++
  const head = make("p", { class: "log-head" }, make("code", {}, m.topic))
  if (recovered) head.append(make("span", { class: "recovered" }, "recovered"))
  if (m.name) head.append(make("span", { class: "tag" }, m.name))
  for (const [key, value] of Object.entries(m.tags ?? {})) head.append(make("span", { class: "tag" }, `${key}: ${value}`))
  head.append(make("span", { class: "log-at" }, `${m.time ? clock(m.time) : ""} · ${m.at}`))
  put(make("li", {}, head, make("p", { class: "log-body" }, readable(m.data))))
}

function note(topic, text) {
  put(make("li", { class: "told" }, make("p", { class: "log-head" }, make("code", {}, topic)), make("p", { class: "log-body" }, text)))
}

// Newest first, and the reader's place is kept: new rows grow above what is being read.
function put(row) {
  const list = byId("log-list")
  const log = byId("log")
  byId("log-empty").hidden = true
  const reading = log.scrollTop > 8
  const before = log.scrollHeight
  list.prepend(row)
  while (list.children.length > KEPT) list.lastChild.remove()
  if (reading) log.scrollTop += Math.max(0, log.scrollHeight - before)
}
