// The right side: a queue and three workers. Each job goes to one of them, who works on it for a while and acknowledges
// it. A worker that is killed before that closes its socket, and the hub gives its job to another.

import { byId, make } from "../dom.js"
import { actor, attempt, chip, prepend, toldLine } from "./parts.js"
import { label, say } from "./speech.js"

const WORKERS = 3
const LEASE = 30
const LOOK_EVERY = 1000
const SHOWN = 12 // waiting jobs
const isStill = matchMedia("(prefers-reduced-motion: reduce)")

export async function openQueue(hub) {
  const name = `${hub.name}.jobs`
  const fault = byId("queue-fault")
  byId("queue-name").textContent = name
  await attempt(fault, () => hub.keep(["queue-name"], name, { lease: LEASE }))
  for (const option of byId("work-time").options) say(option, "seconds", { n: option.value })
  const look = openLook(hub, name)
  const workers = Array.from({ length: WORKERS }, (_, i) => openWorker(hub, { name, fault, look }, i + 1))
  byId("workers").append(...workers.map(each => each.card))
  await Promise.all(workers.map(each => each.start()))
  look()
  return {
    async put(line, data, priority) {
      const answer = await line.send({ put: name, data, priority })
      look()
      return answer
    },
  }
}

/** Shows how the queue stands: soon after something happened, and once a second, since others may use it too. */
function openLook(hub, name) {
  const show = async () => {
    const stats = await hub.stats(name)
    const waiting = stats.waiting.reduce((sum, n) => sum + n, 0)
    const jobs = waiting > 0 ? (await hub.ask("GET", `/v1/queues/${name}/jobs?place=ready&limit=${SHOWN}`)).jobs : []
    byId("count-waiting").textContent = waiting
    byId("count-in-flight").textContent = stats.in_flight
    byId("count-done").textContent = stats.totals.acked
    byId("count-dead").textContent = stats.dead
    byId("waiting-about").hidden = jobs.length > 0
    byId("waiting").replaceChildren(...jobs.map(job => {
      const element = chip(`#${job.data?.n ?? "?"}`)
      element.append(make("span", { class: "badge" }, `P${job.priority ?? 4}`))
      return element
    }))
  }
  let isLooking = false
  let again = false
  const look = async () => {
    if (isLooking) return (again = true)
    isLooking = true
    do {
      again = false
      await attempt(byId("queue-fault-look"), show)
    } while (again)
    isLooking = false
  }
  const timer = setInterval(look, LOOK_EVERY)
  addEventListener("pagehide", () => clearInterval(timer))
  return look
}

function openWorker(hub, { name, fault, look }, n) {
  let job = null
  let timer = 0
  let done = 0
  let isAlive = true
  const state = say(toldLine(), "idle")
  const bar = make("i", { class: "bar", "aria-hidden": "true" })
  const count = say(make("span", { class: "done" }), "done", { n: 0 })
  const list = make("ol", { class: "chips-list" })
  const kill = actor("kill", () => (isAlive ? die() : start()), { fault, name: "kill-label", values: { n }, class: "small" })
  const card = make("article", { class: "actor", "data-on": "true" },
    make("header", {}, say(make("h3"), "worker", { n }), count, kill), state, make("div", { class: "track" }, bar), list)
  const line = hub.line(["worker", { n }], hear, isOpen => isOpen && isAlive && ask().catch(() => {}))
  const ask = () => line.send({ take: name, credit: 1, lease: LEASE })

  function hear(frame) {
    if (frame.lost && frame.lost === job?.tag) rest()
    if (frame.queue !== name || !("data" in frame)) return
    job = frame
    const takes = Number(byId("work-time").value)
    say(state, "works", { n: frame.data?.n ?? frame.job, try: frame.try })
    card.dataset.busy = "true"
    card.dataset.try = frame.try
    if (!isStill.matches) bar.animate([{ transform: "scaleX(0)" }, { transform: "scaleX(1)" }], { duration: takes * 1000, fill: "forwards" })
    timer = setTimeout(() => attempt(fault, finish), takes * 1000)
    look()
  }

  async function finish() {
    const finished = job
    await line.send({ ack: finished.tag }, name)
    say(count, "done", { n: ++done })
    prepend(list, chip(`#${finished.data?.n ?? finished.job}`, finished.try > 1 ? { kind: "again", badge: "try", values: { n: finished.try } } : {}), 8)
    if (job === finished) rest()
    look()
  }

  function rest() {
    clearTimeout(timer)
    job = null
    card.dataset.busy = "false"
    for (const running of bar.getAnimations()) running.cancel()
    if (isAlive) say(state, "idle")
  }

  function die() {
    isAlive = false
    line.close()
    rest()
    show()
    look()
  }

  async function start() {
    isAlive = true
    show()
    await line.open()
  }

  function show() {
    card.dataset.on = String(isAlive)
    say(state, isAlive ? "idle" : "gone")
    label(say(kill, isAlive ? "kill" : "start", { n }), isAlive ? "kill-label" : "start-label")
  }

  return { card, start }
}
