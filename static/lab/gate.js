// "10 of priority 7 or higher, or any 10": a queue that gives out nothing until one of two counts is reached.

import { byId, make } from "../dom.js"
import { actor, chip, faultLine, toldLine } from "./parts.js"
import { label, say } from "./speech.js"

const URGENT = 7
const COUNT = 10
const MOST = 50 // jobs shown
const PUT = { urgent: 9, any: 2 }

export async function openGate(hub) {
  const name = `${hub.name}.gate`
  const who = ["gate"]
  const fault = faultLine()
  const state = toldLine()
  const told = say(toldLine(), "gate-never")
  const meters = { urgent: openMeter("gate-urgent"), any: openMeter("gate-any") }
  const list = make("ol", { class: "chips-list tall" })
  label(list, "given")
  const inputs = { urgent: openCount("gate-urgent"), any: openCount("gate-any") }
  let given = 0
  let isMade = false
  const line = hub.line(who, hear, isOpen => isOpen && isMade && take().catch(() => {}))

  function hear(frame) {
    if (frame.queue !== name || !("data" in frame)) return
    given++
    const element = chip(frame.data)
    element.dataset.kind = frame.priority >= URGENT ? "urgent" : "plain"
    list.append(element)
    while (list.children.length > MOST) list.firstElementChild.remove()
    line.send({ ack: frame.tag }, name).then(look, () => {})
  }

  async function look() {
    const { waiting, firings } = await hub.stats(name)
    const sum = from => waiting.slice(from).reduce((a, b) => a + b, 0)
    meters.urgent.show(sum(URGENT), Number(inputs.urgent.value))
    meters.any.show(sum(0), Number(inputs.any.value))
    say(state, "gate-closed", { n: sum(0) })
    if (firings > 0) say(told, "gate-opened", { n: firings, jobs: given })
  }

  const take = () => line.send({ take: name, credit: 100, lease: 30 })

  async function set() {
    const any = [{ count: Number(inputs.urgent.value), min_priority: URGENT }, { count: Number(inputs.any.value) }]
    await hub.keep(who, name, { start_when: { any, mode: "gate" } })
    if (!isMade) await take()
    isMade = true
    await look()
  }

  async function put(kind, count) {
    if (!isMade) await set()
    for (let i = 0; i < count; i++) await line.send({ put: name, data: `P${PUT[kind]}`, priority: PUT[kind] })
    await look()
  }

  const button = (key, kind, count) => actor(key, () => put(kind, count), { fault })
  byId("gate").append(
    make("div", { class: "row wrap-row arms" }, say(make("span"), "gate-arms"), ...Object.values(inputs).map(input => input.box), actor("gate-set", set, { fault, class: "small" })),
    make("div", { class: "meters" }, meters.urgent.box, meters.any.box),
    make("div", { class: "row wrap-row" }, button("put-urgent", "urgent", 1), button("put-urgent-5", "urgent", 5), button("put-any", "any", 1), button("put-any-5", "any", 5)),
    state, told, say(make("h4"), "given"), list, fault,
  )
  for (const meter of Object.values(meters)) meter.show(0, COUNT)
  say(state, "gate-closed", { n: 0 })
  await line.open()
}

function openMeter(key) {
  const figure = make("output", {})
  const meter = label(make("meter", { min: "0", max: String(COUNT), value: "0" }), key)
  return {
    box: make("div", { class: "meter" }, say(make("span"), key), figure, meter),
    show: (count, most) => {
      figure.textContent = `${count} / ${most}`
      meter.max = most
      meter.value = count
    },
  }
}

function openCount(key) {
  const input = make("input", { type: "number", min: "1", max: "1000", value: String(COUNT), inputmode: "numeric" })
  return {
    box: make("label", {}, say(make("span"), key), input),
    get value() {
      return input.value
    },
  }
}
