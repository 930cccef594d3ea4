// Says the words of the lab in the chosen language, and says them again when another one is chosen.

import { LANGUAGES, WORDS } from "./words.js"

const KEPT_AS = "fanfare-lab-language"
const values = new WeakMap()
let chosen = LANGUAGES[0]

export function words(key, filled = {}) {
  if (!WORDS[key]) throw new Error(`the lab has no word ${key}`)
  return WORDS[key][LANGUAGES.indexOf(chosen)].replace(/\{(\w+)\}/g, (whole, name) => filled[name] ?? whole)
}

/** Lets an element say this, now and in every language that is chosen later. */
export function say(element, key, filled) {
  element.dataset.say = key
  values.set(element, filled)
  const text = words(key, filled)
  // A sentence that is the same is not announced again.
  if (element.textContent !== text) element.textContent = text
  return element
}

/** The same for what is only heard: its accessible name. */
export function label(element, key, filled) {
  element.dataset.label = key
  const all = { ...values.get(element), ...filled }
  values.set(element, all)
  element.setAttribute("aria-label", words(key, all))
  return element
}

/** An element leaves its word for text that is nobody's language. */
export function unsay(element, text = "") {
  delete element.dataset.say
  element.textContent = text
}

export function openSpeech(choice) {
  const show = language => {
    chosen = language
    document.documentElement.lang = language
    document.title = `${words("title")} · Fanfare`
    for (const element of document.querySelectorAll("[data-say]")) say(element, element.dataset.say, values.get(element))
    for (const element of document.querySelectorAll("[data-label]")) label(element, element.dataset.label, values.get(element))
    for (const each of choice) each.setAttribute("aria-pressed", String(each.lang === language))
  }
  for (const each of choice) {
    each.addEventListener("click", () => {
      keep(each.lang)
      show(each.lang)
    })
  }
  show(kept() ?? (navigator.language.startsWith("ko") ? "ko" : "en"))
}

// Storage may be forbidden; the choice then lasts as long as the page.
function keep(language) {
  try {
    localStorage.setItem(KEPT_AS, language)
  } catch {}
}
function kept() {
  try {
    return LANGUAGES.find(language => language === localStorage.getItem(KEPT_AS))
  } catch {}
}
