// Kinesis and Kafka: one topic, two consumers, each with a cursor of its own that the hub keeps. Reading takes nothing
// away; a cursor is dragged back and reads again; what retention took is told.

import { byId, make } from "../dom.js"
import { actor, attempt, faultLine, offsetOf, toldLine } from "./parts.js"
import { label, say } from "./speech.js"

const SHOWN = 24 // records

/** `kind` is `kinesis` or `kafka`: the card, the topic and the words. */
export async function openOffsets(hub, kind) {
  const topic = `${hub.name}.${kind}`
  const who = [kind]
  const fault = faultLine()
  const told = toldLine()
  const list = make("ol", { class: "records", tabindex: "0" })
  label(list, "log")
  const records = new Map() // offset → its element
  let epoch = ""
  let head = 0
  let sent = 0
  const line = hub.line(who, hear, isOpen => isOpen && epoch && follow().catch(() => {}))

  function hear(frame) {
    if (frame.topic !== topic || !("data" in frame)) return
    head = Math.max(head, offsetOf(frame.at))
    if (!records.has(head)) {
      records.set(head, make("li", {}, frame.data))
      list.append(records.get(head))
      while (list.children.length > SHOWN) list.firstElementChild.remove()
      list.scrollLeft = list.scrollWidth
    }
    for (const each of consumers) each.show()
  }

  async function follow() {
    const answer = await line.look({ sub: topic, ...(epoch ? { after: `${epoch}.${head}` } : {}) })
    const [life, offset] = answer.at.split(".")
    epoch = life
    head = Math.max(head, Number(offset))
  }

  // What the hub still keeps; the rest is crossed out.
  async function lookBack() {
    const { items } = await line.look({ history: topic, limit: 1000 })
    const oldest = items.length ? offsetOf(items[0].at) : head + 1
    for (const [offset, element] of records) element.dataset.gone = String(offset < oldest)
  }

  async function publish(count) {
    for (let i = 0; i < count; i++) await line.send({ pub: topic, data: `r${++sent}` })
    await lookBack()
  }

  function openConsumer(n) {
    const cursor = `lab-${n.toLowerCase()}`
    const word = kind === "kafka" ? "group" : "consumer"
    let at = 0
    const range = label(make("input", { type: "range", min: "0", max: "0", step: "1", value: "0" }), "offset-of", { n })
    const state = make("output", {})
    const read = actor("read", next, { fault, name: "read-label", values: { n }, class: "small" })
    const box = make("div", { class: "consumer", "data-consumer": n }, say(make("h4"), word, { n }), state, read, range)

    function show() {
      range.max = String(head)
      range.value = String(at)
      say(state, "stands", { at, n: head - at })
      for (const element of records.values()) element.classList.remove(`at-${n}`)
      records.get(at)?.classList.add(`at-${n}`)
    }

    async function commit(offset) {
      const frame = { commit: topic, cursor, at: `${epoch}.${offset}` }
      if (offset < at) frame.rewind = true
      await line.send(frame)
      at = offset
      show()
    }

    async function next() {
      const after = at
      const answer = await line.send({ history: topic, after: `${epoch}.${after}`, limit: 1 })
      const item = answer.items[0]
      if (!item) return say(told, "at-end")
      const offset = offsetOf(item.at)
      await commit(offset)
      if (answer.why) say(told, "gap", { from: `r${after + 1}`, to: `r${offset - 1}`, why: answer.why, n: item.data })
      else say(told, "read-record", { n: item.data })
    }

    range.addEventListener("change", () =>
      attempt(fault, async () => {
        const [from, to] = [at, Number(range.value)]
        await commit(to)
        say(told, to < from ? "rewound" : "moved", { at: to })
      }),
    )
    return { box, show, start: () => commit(0) }
  }

  const consumers = ["A", "B"].map(openConsumer)
  byId(kind).append(
    make("div", { class: "row wrap-row" }, actor(`${kind}-put`, () => publish(1), { fault }), actor(`${kind}-put-5`, () => publish(5), { fault })),
    list, ...consumers.map(each => each.box), told, fault,
  )
  await line.open()
  await follow()
  for (const each of consumers) await attempt(fault, each.start)
}
