// The left side: a topic and three subscribers, each with a copy of its own. In mode `live` who is off misses what
// comes; with history it comes back with the position that it kept, and gets that first.

import { byId, make } from "../dom.js"
import { attempt, chip, faultLine, offsetOf, prepend, toldLine } from "./parts.js"
import { label, say } from "./speech.js"

const SUBSCRIBERS = 3

export async function openTopic(hub) {
  // The producer's own ear: it knows how far the topic has come, whoever listens.
  const head = new Map() // topic → offset of its newest message
  const topics = { live: `${hub.name}.live`, history: `${hub.name}.log` }
  const hear = frame => frame.at && head.set(frame.topic, offsetOf(frame.at))
  const ear = hub.line(["producer"], hear, isOpen => isOpen && head.size > 0 && follow().catch(() => {}))
  const fault = byId("topic-fault")
  let mode = "live"

  async function follow() {
    for (const name of Object.values(topics)) {
      const answer = await ear.look({ sub: name })
      head.set(name, offsetOf(answer.at))
      if (name === topics.live && answer.mode !== "live") say(byId("topic-warning"), "not-live")
    }
  }
  await ear.open()
  await follow()
  const place = { topics, head, fault, mode: () => mode }
  const subscribers = Array.from({ length: SUBSCRIBERS }, (_, i) => openSubscriber(hub, place, i + 1))
  byId("subscribers").append(...subscribers.map(each => each.card))
  await Promise.all(subscribers.map(each => each.start()))

  const show = () => {
    byId("topic-name").textContent = topics[mode]
    say(byId("keeps-about"), `${mode}-about`)
  }
  show()
  for (const choice of document.querySelectorAll("[name=keeps]")) {
    choice.addEventListener("change", () => {
      const before = topics[mode]
      mode = choice.value
      show()
      for (const each of subscribers) each.move(before)
    })
  }
  return { current: () => topics[mode] }
}

function openSubscriber(hub, { topics, head, fault, mode }, n) {
  let isOn = true
  let at = null // the last position that it was given: every `at` is a safe `after`
  let missed = 0
  let recovering = { until: 0, from: 0, count: 0 }
  const toggle = label(make("button", { type: "button", role: "switch", "aria-checked": "true", class: "switch" }, make("i", { "aria-hidden": "true" })), "switch", { n })
  const state = say(make("span", { class: "switch-state" }), "on")
  const told = say(toldLine(), "listens")
  const list = make("ol", { class: "chips-list" })
  const none = say(make("p", { class: "none" }), "nothing-yet")
  const card = make("article", { class: "actor", "data-on": "true" },
    make("header", {}, say(make("h3"), "subscriber", { n }), state, toggle), told, none, list)
  const topic = () => topics[mode()]
  const line = hub.line(["subscriber", { n }], hear, isOpen => isOpen && at && isOn && listen().catch(() => {}))

  function hear(frame) {
    if (frame.topic !== topic() || !("data" in frame)) return
    at = frame.at
    const isOld = offsetOf(frame.at) <= recovering.until
    if (isOld) say(told, "whole", { n: ++recovering.count })
    none.hidden = true
    prepend(list, chip(`#${frame.data?.n ?? "?"} ${frame.data?.text ?? ""}`, isOld ? { kind: "recovered", badge: "recovered" } : {}))
  }

  // What is stored by now was missed, and is told apart from what is new.
  async function listen() {
    const until = head.get(topic())
    const wasAt = at
    if (wasAt) recovering = { until, count: 0 }
    const answer = await line.send({ sub: topic(), ...(wasAt ? { after: wasAt } : {}) })
    missed = wasAt ? until - offsetOf(wasAt) : 0
    at ??= answer.at
    if (!wasAt) say(told, "listens")
    else if (answer.resumed === false) {
      at = answer.at
      recovering = { until: 0, count: 0 }
      say(told, "missed-live", { n: missed, why: answer.why })
    } else if (recovering.count === 0) say(told, missed > 0 ? "whole" : "nothing-missed", { n: 0 })
  }

  function show() {
    card.dataset.on = String(isOn)
    toggle.setAttribute("aria-checked", String(isOn))
    say(state, isOn ? "on" : "off")
    if (!isOn) say(told, "misses", { n: head.get(topic()) - offsetOf(at) })
  }

  toggle.addEventListener("click", () =>
    attempt(fault, async () => {
      isOn = !isOn
      show()
      await (isOn ? listen() : line.send({ unsub: topic() }))
    }),
  )
  // While it is off, what passes by is counted.
  const count = setInterval(() => !isOn && show(), 300)
  addEventListener("pagehide", () => clearInterval(count))

  return {
    card,
    start: async () => {
      await line.open()
      await attempt(fault, listen)
    },
    /** Goes over to the other topic, as newly come. */
    move: before =>
      attempt(fault, async () => {
        list.replaceChildren()
        none.hidden = false
        at = null
        recovering = { until: 0, count: 0 }
        if (isOn) await line.send({ unsub: before })
        isOn = true
        await listen()
        show()
      }),
  }
}
