// The theme switch in the header of every page; they share the choice.

import { byId } from "./dom.js"

export function openTheme() {
  const toggle = byId("theme")
  const system = matchMedia("(prefers-color-scheme: dark)")
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark"
  const show = () => toggle.setAttribute("aria-pressed", String(isDark()))
  toggle.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark"
    document.documentElement.dataset.theme = theme
    try {
      localStorage.setItem("fanfare-theme", theme)
    } catch {
      // Storage may be forbidden; the choice then lasts as long as the page.
    }
    show()
  })
  system.addEventListener("change", show)
  show()
}
