// SQS FIFO: one id is one job, however often it is sent; and in a group each waits until the one before it is deleted.

import { byId, make } from "../dom.js"
import { actor, faultLine, toldLine } from "./parts.js"
import { label, say } from "./speech.js"

const GROUPS = ["red", "blue"]
const LEASE = 60

export async function openFifo(hub) {
  const name = `${hub.name}.fifo`
  const who = ["fifo"]
  const box = byId("fifo")
  const fault = faultLine()
  const told = toldLine()
  const rows = new Map()
  const lanes = Object.fromEntries(GROUPS.map(group => [group, make("ol", { class: "chips-list", "data-group": group })]))
  const count = { red: 0, blue: 0, twice: 0 }
  let isMade = false
  const line = hub.line(who, hear)

  function hear(frame) {
    if (frame.lost) {
      const row = [...rows.values()].find(row => row.tag === frame.lost)
      if (row) wait(row)
      return
    }
    if (frame.queue !== name || !("data" in frame)) return
    const row = rows.get(frame.job) ?? add(frame.job, frame.data, frame.group)
    row.tag = frame.tag
    row.element.dataset.kind = "held"
    row.remove.hidden = false
    say(row.state, "held")
  }

  function add(job, text, group) {
    const row = { text, element: make("li", { class: "chip" }), state: make("span", { class: "state-word" }) }
    row.remove = actor("delete", () => remove(row), { fault, name: "delete-label", values: { n: text }, class: "small" })
    row.element.append(make("span", { class: "chip-text" }, text), row.state, row.remove)
    rows.set(job, row)
    lanes[group].append(row.element)
    wait(row)
    return row
  }

  function wait(row) {
    row.tag = null
    row.element.dataset.kind = "waits"
    row.remove.hidden = true
    say(row.state, row.element.previousElementSibling?.dataset.kind in { waits: 1, held: 1 } ? "parked" : "waiting")
  }

  async function remove(row) {
    await line.send({ ack: row.tag }, name)
    row.element.dataset.kind = "done"
    row.remove.remove()
    say(row.state, "deleted")
    const next = row.element.nextElementSibling
    const behind = [...rows.values()].find(other => other.element === next)
    if (behind && !behind.tag) wait(behind)
  }

  async function put(text, group, dedupe) {
    if (!isMade) await hub.keep(who, name, { like: "sqs-fifo" })
    isMade = true
    const answer = await line.send({ put: name, data: text, group, ...(dedupe ? { dedupe } : {}) })
    if (!rows.has(answer.job)) add(answer.job, text, group)
    return answer
  }

  async function twice() {
    const id = `order-${++count.twice}`
    const first = await put(id, "red", id)
    const second = await put(id, "red", id)
    if (second.repeated && second.job === first.job) say(told, "fifo-once", { job: first.job })
    else say(told, "fifo-not", { a: first.job, b: second.job })
  }

  async function fill() {
    for (let i = 0; i < 3; i++) {
      for (const group of GROUPS) await put(`${group} ${++count[group]}`, group)
    }
  }

  const receive = () => line.send({ take: name, credit: 10, lease: LEASE })

  box.append(
    make("div", { class: "row wrap-row" }, actor("fifo-twice", twice, { fault }), actor("fifo-fill", fill, { fault }),
      actor("fifo-receive", receive, { fault, class: "primary" })),
    told,
    make("div", { class: "lanes" }, ...GROUPS.map(group => make("section", {}, say(make("h4"), group), lanes[group]))),
    fault,
  )
  await line.open()
}
