// The drawing in the stage: five staff lines that open into a bell. Each message that reaches the page runs once along
// all five, since what goes in at one end is heard at every other. Only decoration: nothing is told here alone.

import { byId } from "./dom.js"

const NAMESPACE = "http://www.w3.org/2000/svg"
const LINES = [-2, -1, 0, 1, 2]
const still = matchMedia("(prefers-reduced-motion: reduce)")
let pulses = []

export function drawFlare() {
  const bell = document.createElementNS(NAMESPACE, "g")
  bell.setAttribute("class", "bell")
  byId("flare").append(bell)
  const draw = (i, name) => {
    const path = document.createElementNS(NAMESPACE, "path")
    const from = 150 + i * 9
    path.setAttribute("d", `M-4 ${from}H250C430 ${from} 560 ${from + i * 12} 604 ${150 + i * 71}`)
    path.setAttribute("pathLength", "100")
    path.setAttribute("class", name)
    bell.append(path)
    return path
  }
  LINES.forEach(i => draw(i, "brass"))
  pulses = LINES.map(i => draw(i, "pulse"))
}

/** One message runs through. */
export function sound(loud) {
  if (still.matches || document.hidden) return
  pulses.forEach((path, i) => {
    path.animate(
      [
        { strokeDashoffset: 14, opacity: loud ? 1 : 0.55 },
        { strokeDashoffset: -100, opacity: loud ? 1 : 0.2 },
      ],
      { duration: loud ? 900 : 1600, delay: Math.abs(i - 2) * 35, easing: "cubic-bezier(.45,.05,.4,1)" },
    )
  })
}
