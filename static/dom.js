// Small words for building the page. Text from the network only ever passes through `textContent`.

export const byId = id => document.getElementById(id)

/** An element with a class, attributes and children; strings become text nodes. */
export function make(tag, { class: name, ...attributes } = {}, ...children) {
  const element = document.createElement(tag)
  if (name) element.className = name
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  element.append(...children)
  return element
}

/** A button that calls `act` and is deaf until the returned promise settles. It is not disabled: that would lose the focus. */
export function button(label, act, attributes = {}) {
  const element = make("button", { type: "button", ...attributes }, label)
  let busy = false
  element.addEventListener("click", async () => {
    if (busy) return
    busy = true
    try {
      await act(element)
    } finally {
      busy = false
    }
  })
  return element
}

const ANNOUNCE_EVERY = 2500
let spokenAt = 0
let timer = 0

/** Tells screen readers, at most one sentence in a few seconds: the newest wins. */
export function announce(sentence) {
  clearTimeout(timer)
  const speak = () => {
    spokenAt = Date.now()
    byId("announcer").textContent = sentence
  }
  timer = setTimeout(speak, Math.max(0, spokenAt + ANNOUNCE_EVERY - Date.now()))
}

/** A line to paste, with its copy button. `note` is said below it. */
export function line(text, { label, note } = {}) {
  const code = make("code", {}, text)
  const copy = button("Copy", async () => {
    const done = await copied(text, code)
    copy.textContent = done ? "Copied" : "Press Ctrl+C"
    announce(done ? "Copied" : "The line is selected: press Control C")
    setTimeout(() => (copy.textContent = "Copy"), 1600)
  }, { class: "copy", "aria-label": `Copy the ${label} line` })
  const box = make("div", { class: "line" }, make("pre", {}, code), copy)
  return note ? [box, make("p", { class: "note" }, note)] : [box]
}

// The clipboard needs a secure context; elsewhere the line is selected so that one key copies it.
async function copied(text, code) {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    getSelection().selectAllChildren(code)
    return false
  }
}

/** The time of day, to the millisecond. */
export function clock(ms) {
  const date = new Date(ms)
  const two = n => String(n).padStart(2, "0")
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`
}

/** A span of time in the unit that reads best. */
export function span(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 60) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`
}

/** What a person reads of a message's data. */
export function readable(data) {
  return typeof data === "string" ? data : JSON.stringify(data)
}
