// SQS standard: what is received is invisible for a while; deleted in that time it is gone, else it is visible again.

import { byId, make } from "../dom.js"
import { actor, faultLine, toldLine } from "./parts.js"
import { label, say, unsay } from "./speech.js"

const VISIBILITY = 4 // seconds

export async function openStandard(hub) {
  const name = `${hub.name}.standard`
  const who = ["sqs"]
  const box = byId("sqs")
  const fault = faultLine()
  const told = toldLine()
  const list = make("ol", { class: "chips-list tall" })
  const rows = new Map() // job → what is shown of it
  let sent = 0
  let isMade = false
  const line = hub.line(who, hear)

  function hear(frame) {
    if (frame.lost) {
      const row = [...rows.values()].find(row => row.tag === frame.lost)
      if (row) becomesVisible(row)
      return
    }
    if (frame.queue !== name || !("data" in frame)) return
    unsay(told)
    const row = rows.get(frame.job) ?? add(frame.job, frame.data)
    Object.assign(row, { tag: frame.tag, until: Date.now() + frame.lease * 1000 })
    row.element.dataset.kind = "held"
    say(row.tries, "try", { n: frame.try })
    row.remove.hidden = false
    count(row)
    // One was asked for: no more until somebody asks again.
    line.send({ take: name, credit: 0, lease: VISIBILITY }).catch(() => {})
  }

  function add(job, text) {
    const row = { text, element: make("li", { class: "chip" }), state: make("span", { class: "state-word" }), tries: make("span", { class: "badge" }) }
    row.remove = actor("delete", () => remove(job, row), { fault, name: "delete-label", values: { n: text }, class: "small" })
    row.remove.hidden = true
    row.element.append(make("span", { class: "chip-text" }, text), row.tries, row.state, row.remove)
    say(row.state, "visible")
    rows.set(job, row)
    list.append(row.element)
    return row
  }

  // The hub says when it is over; this only tells how long it will be.
  function count(row) {
    clearInterval(row.timer)
    const tell = () => say(row.state, "invisible", { s: Math.max(0, Math.ceil((row.until - Date.now()) / 1000)) })
    tell()
    row.timer = setInterval(tell, 500)
  }

  function becomesVisible(row) {
    clearInterval(row.timer)
    row.tag = null
    row.element.dataset.kind = "back"
    row.remove.hidden = true
    say(row.state, "visible")
    say(told, "visible-again", { n: row.text })
  }

  async function remove(job, row) {
    await line.send({ ack: row.tag }, name)
    clearInterval(row.timer)
    row.element.dataset.kind = "done"
    row.remove.remove()
    say(row.state, "deleted")
    rows.delete(job)
    unsay(told)
  }

  async function send() {
    if (!isMade) await hub.keep(who, name, { like: "sqs-standard" })
    isMade = true
    const text = `m${++sent}`
    const { job } = await line.send({ put: name, data: text })
    if (!rows.has(job)) add(job, text)
  }

  async function receive() {
    const held = [...rows.values()].filter(row => row.tag).length
    say(told, "sqs-polls")
    await line.send({ take: name, credit: held + 1, lease: VISIBILITY })
  }

  box.append(
    make("div", { class: "row wrap-row" }, actor("sqs-send", send, { fault }), actor("sqs-receive", receive, { fault, class: "primary" })),
    told, list, fault,
  )
  say(byId("sqs-about"), "sqs-about", { n: VISIBILITY })
  await line.open()
}
