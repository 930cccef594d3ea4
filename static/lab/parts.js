// What several parts of the lab are made of.

import { make } from "../dom.js"
import { say, label, unsay, words } from "./speech.js"

/** A button that says a word, and is deaf until what it does is done; what fails is told in `fault`. */
export function actor(key, act, { fault, name, values, class: kind } = {}) {
  const element = say(make("button", { type: "button", ...(kind ? { class: kind } : {}) }), key, values)
  if (name) label(element, name, values)
  let isBusy = false
  element.addEventListener("click", async () => {
    if (isBusy) return
    isBusy = true
    await attempt(fault, () => act(element))
    isBusy = false
  })
  return element
}

/** Does something; what fails is told where `fault` is, in the hub's own words. */
export async function attempt(fault, act) {
  try {
    await act()
    if (fault) unsay(fault)
    return true
  } catch (error) {
    if (!error.error) throw error // a fault of the page itself belongs in the console
    fault.textContent = error.text ? `${words("refused")} ${error.error}: ${error.text}` : words("away")
    return false
  }
}

/** Where faults of one part are told. */
export const faultLine = () => make("p", { class: "fault", role: "alert" })

/** A sentence that changes, and is read out when it does. */
export const toldLine = () => make("p", { class: "told-line", role: "status" })

/** A small mark with a text: a message, a job, a record. */
export function chip(text, { kind, badge, values } = {}) {
  const element = make("li", { class: "chip" }, make("span", { class: "chip-text" }, text))
  if (kind) element.dataset.kind = kind
  if (badge) element.append(say(make("span", { class: "badge" }), badge, values))
  return element
}

/** Puts newest first and keeps the last few. */
export function prepend(list, element, most = 6) {
  list.prepend(element)
  while (list.children.length > most) list.lastElementChild.remove()
}

export const offsetOf = at => Number(at.split(".")[1])
