// What goes over the wire: each frame as it was sent, with the curl line beside it; both to be copied.

import { byId, make } from "../dom.js"
import { label, say } from "./speech.js"
import { TAG } from "./curl.js"

const KEPT = 60

export function openWire() {
  const box = byId("wire")
  const more = byId("wire-more")
  more.addEventListener("click", () => {
    const isWhole = box.dataset.whole !== "true"
    box.dataset.whole = String(isWhole)
    more.setAttribute("aria-expanded", String(isWhole))
    say(more, isWhole ? "wire-less" : "wire-more")
  })
  say(more, "wire-more")
}

export function print({ who, frame, curl, closes }) {
  const list = byId("wire-list")
  const row = make("li", { class: "sent" })
  row.append(say(make("p", { class: "who" }), ...who))
  row.append(frame ? text("frame", JSON.stringify(frame)) : instead("frame", closes ? "closes" : "no-frame"))
  const line = curl ? text("curl", curl) : instead("curl", "no-curl")
  if (curl?.includes(`"${TAG}"`)) line.append(say(make("p", { class: "note tag-note" }), "tag-note"))
  row.append(line)
  list.prepend(row)
  while (list.children.length > KEPT) list.lastElementChild.remove()
}

const instead = (part, key) => make("div", { class: "words", "data-part": part }, say(make("p", { class: "note" }), key))

function text(part, words) {
  const code = make("code", {}, words)
  const copy = label(say(make("button", { type: "button", class: "copy" }), "copy"), `copy-${part}`)
  let timer = 0
  copy.addEventListener("click", async () => {
    say(copy, (await copied(words, code)) ? "copied" : "select")
    clearTimeout(timer)
    timer = setTimeout(() => say(copy, "copy"), 1600)
  })
  return make("div", { class: "words", "data-part": part }, make("pre", {}, code), copy)
}

// The clipboard needs a secure context; elsewhere the text is selected so that one key copies it.
async function copied(words, code) {
  try {
    await navigator.clipboard.writeText(words)
    return true
  } catch {
    getSelection().selectAllChildren(code)
    return false
  }
}
