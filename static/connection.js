// The state of the line: shown in the header and in its panel, with the positions held and what happened when it broke.

import { announce, byId, clock, make } from "./dom.js"

const KEPT = 50
const words = { connecting: "connecting", live: "live", away: "away", held: "away, staying", ended: "closed for good" }
const rows = new Map() // topic → the row's cells
let spoken = "connecting" // so that a hub that stays away is not told at every try

export function openConnection(session) {
  for (const [id, act] of [["cut", () => session.cut()], ["back", () => session.connect()], ["hold", () => session.hold()]]) {
    byId(id).addEventListener("click", () => byId(id).ariaDisabled !== "true" && act())
  }
  session.listen((kind, detail) => on[kind]?.(session, detail))
  setInterval(() => session.state === "away" && showState(session), 200)
  showState(session)
}

const on = {
  state(session, { state, why }) {
    showState(session)
    if (state === "live") {
      happened("live", `live as ${session.hello.conn ?? "?"}`)
      showHello(session.hello)
    } else if (state !== "connecting") happened(state, why ? `away: ${why}` : words[state])
    if (state === "connecting" || state === spoken) return
    spoken = state
    announce(`Connection ${words[state]}`)
  },
  subscribed(session, topic) {
    for (const [name, { row }] of rows) if (!session.topics.has(name)) (row.remove(), rows.delete(name))
    if (!session.topics.has(topic.name)) return
    showPosition(topic)
    if (topic.resume) showResume(topic)
  },
  message(session, { topic }) {
    if (session.topics.has(topic)) showPosition(session.topics.get(topic))
  },
  gap(_, frame) {
    happened("gap", `${frame.gap}: gap (${frame.why}) from ${frame.after} to ${frame.to ?? "an unknown end"}${frame.kept === false ? ", no longer in history" : ""}`)
  },
  ended(_, frame) {
    happened("gap", `${frame.ended}: subscription ended, ${frame.text ?? frame.error}`)
  },
  notice(_, { text }) {
    happened("gap", text)
  },
}

function showState(session) {
  const { state } = session
  const left = Math.max(0, (session.backAt - Date.now()) / 1000)
  const text = state === "away" ? `away, back in ${left.toFixed(1)} s` : words[state]
  for (const id of ["pill", "state"]) {
    byId(id).dataset.state = state
    byId(`${id}-text`).textContent = id === "pill" && state === "away" ? "away" : text
  }
  // Not `disabled`: the button that was just pressed would lose the focus.
  byId("cut").ariaDisabled = String(state !== "live")
  byId("back").ariaDisabled = String(state === "live" || state === "connecting")
  byId("hold").ariaDisabled = String(state !== "away")
}

function showHello(hello) {
  byId("hello-fields").replaceChildren(
    ...Object.entries(hello).map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, typeof value === "string" ? value : JSON.stringify(value)))),
  )
}

function showPosition(topic) {
  let cells = rows.get(topic.name)
  if (!cells) {
    const at = make("td", { class: "position" })
    const back = make("td")
    const row = make("tr", {}, make("th", { scope: "row" }, topic.name), at, back)
    byId("positions").append(row)
    cells = { row, at, back }
    rows.set(topic.name, cells)
  }
  cells.at.textContent = topic.at ?? ""
}

// One line for each topic that came back; it counts while what was missed is still arriving.
function showResume(topic) {
  const { resume } = topic
  const entry = happened(resume.resumed ? "resumed" : "gap", "")
  resume.show = () => {
    const many = resume.until === undefined ? "" : `, ${count(resume.missed)}`
    const told = resume.resumed ? `resumed: true${many}` : `resumed: false${resume.why ? ` (${resume.why})` : ""}`
    entry.textContent = `${topic.name}: ${told}`
    rows.get(topic.name)?.back.replaceChildren(told.replace("resumed: ", ""))
  }
  resume.show()
}

function count(missed) {
  if (missed === 0) return "nothing missed"
  return `${missed} missed ${missed === 1 ? "message" : "messages"}`
}

function happened(kind, text) {
  const list = byId("happened")
  const newest = list.firstChild
  if (text && newest?.dataset.text === text) {
    newest.dataset.times = Number(newest.dataset.times ?? 1) + 1
    newest.firstChild.textContent = clock(Date.now())
    newest.lastChild.textContent = `${text} (${newest.dataset.times} times)`
    return newest.lastChild
  }
  const what = make("span", {}, text)
  list.prepend(make("li", { "data-kind": kind, "data-text": text }, make("time", {}, clock(Date.now())), what))
  while (list.children.length > KEPT) list.lastChild.remove()
  return what
}
