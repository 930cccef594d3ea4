// The tabs pattern: arrow keys, Home and End move and choose; only the chosen tab is in the tab order.

export function tabs(list) {
  const all = [...list.querySelectorAll("[role=tab]")]
  const choose = (chosen, focus) => {
    for (const tab of all) {
      const on = tab === chosen
      tab.setAttribute("aria-selected", String(on))
      tab.tabIndex = on ? 0 : -1
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !on
    }
    if (focus) chosen.focus()
  }
  for (const tab of all) tab.addEventListener("click", () => choose(tab))
  list.addEventListener("keydown", event => {
    const here = all.indexOf(document.activeElement)
    const next = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1 }[event.key]
    if (here < 0 || next === undefined) return
    event.preventDefault()
    choose(all[(next + all.length) % all.length], true)
  })
}
