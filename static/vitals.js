// Live vitals: four tiles over the last minute, drawn from the messages on `vitals`. A second without a message is a
// hole in the line, never a guess.

import { byId, make, span } from "./dom.js"

const WINDOW = 60_000
const HOLE = 2500
const NAMESPACE = "http://www.w3.org/2000/svg"
const points = []
let heardAt = 0

export function openVitals(session, facts) {
  if (!facts.vitals) {
    byId("tiles").remove()
    byId("vitals-note").textContent =
      "“fanfare demo” publishes them, on Linux, with a small back end of its own. This hub runs without it, so nobody publishes its vitals."
    return
  }
  const charts = {
    cpu: chart("cpu", ["busy"]),
    memory: chart("memory", ["used"]),
    network: chart("network", ["received", "sent"]),
    load: chart("load", ["load"]),
  }
  const message = m => {
    if (!m.data || !Array.isArray(m.data.cpu)) return
    heardAt = Date.now()
    points.push({ time: m.time, ...m.data })
    while (points[0].time < m.time - WINDOW - HOLE) points.shift()
    requestDraw(charts)
  }
  session.subscribe("vitals", { message }, 60)
  setInterval(() => {
    byId("tiles").dataset.stale = String(heardAt > 0 && Date.now() - heardAt > 3000)
  }, 1000)
}

let asked = false
function requestDraw(charts) {
  if (asked) return
  asked = true
  requestAnimationFrame(() => {
    asked = false
    draw(charts)
  })
}

function draw(charts) {
  const now = points.at(-1)
  const busy = now.cpu.reduce((sum, core) => sum + core, 0) / now.cpu.length
  figure("cpu", Math.round(busy * 100), "%", about(now))
  charts.cpu.plot([p => p.cpu.reduce((sum, core) => sum + core, 0) / p.cpu.length], 1, "100 %")
  cores(now.cpu)

  const { total, used } = now.memory
  figure("memory", gib(used), "GiB", `of ${gib(total)} GiB · ${Math.round((used / total) * 100)} %`)
  charts.memory.plot([p => p.memory.used], total, `${gib(total)} GiB`)

  const { received, sent } = now.network
  const [amount, unit] = rate(received)
  figure("network", amount, unit)
  byId("network-sent").textContent = rate(sent).join(" ")
  const top = ceiling(Math.max(1000, ...points.map(p => Math.max(p.network.received, p.network.sent))))
  charts.network.plot([p => p.network.received, p => p.network.sent], top, rate(top).join(" "))

  const [one, five, fifteen] = now.load.map(n => n.toFixed(2))
  figure("load", one, "", `${five} · ${fifteen} over 5, 15 min`)
  const most = Math.max(now.cpu.length, Math.ceil(Math.max(...points.map(p => p.load[0]))))
  charts.load.plot([p => p.load[0]], most, `${most}`)
}

function about({ cpu, host, uptime }) {
  const words = [`${cpu.length} ${cpu.length === 1 ? "core" : "cores"}`]
  if (host) words.push(host)
  if (uptime) words.push(`up ${span(uptime * 1000)}`)
  return words.join(" · ")
}

function figure(name, value, unit, sub) {
  const tile = byId(`tile-${name}`)
  tile.querySelector("b").textContent = value
  tile.querySelector(".unit").textContent = unit
  if (sub) tile.querySelector(".sub").textContent = sub
}

// One small bar a core, beside the figure.
function cores(fractions) {
  const tile = byId("tile-cpu")
  let bars = tile.querySelector(".cores")
  if (!bars) {
    bars = make("span", { class: "cores", "aria-hidden": "true" })
    tile.querySelector(".figure").append(bars)
  }
  while (bars.children.length < Math.min(fractions.length, 32)) bars.append(make("i"))
  fractions.slice(0, 32).forEach((fraction, i) => bars.children[i].style.setProperty("--busy", fraction.toFixed(3)))
}

function chart(name, lines) {
  const box = byId(`tile-${name}`).querySelector(".chart")
  const svg = document.createElementNS(NAMESPACE, "svg")
  svg.setAttribute("viewBox", "0 0 300 80")
  svg.setAttribute("preserveAspectRatio", "none")
  svg.setAttribute("aria-hidden", "true")
  const path = kind => {
    const element = document.createElementNS(NAMESPACE, "path")
    element.setAttribute("class", kind)
    svg.append(element)
    return element
  }
  const area = path("area")
  const strokes = lines.map(kind => path(`stroke ${kind}`))
  const scale = make("span", { class: "scale" })
  box.append(svg, scale, make("span", { class: "ago", "aria-hidden": "true" }, "60 s"))
  const plot = (values, top, label) => {
    const last = points.at(-1).time
    const traces = values.map(value => trace(value, top, last))
    traces.forEach((d, i) => strokes[i].setAttribute("d", d.line))
    area.setAttribute("d", traces[0].area)
    scale.textContent = label
  }
  return { plot }
}

function trace(value, top, last) {
  let line = ""
  let area = ""
  let start = 0
  let previous = null
  points.forEach((point, i) => {
    const x = 300 - ((last - point.time) / WINDOW) * 300
    const y = 78 - Math.min(1, Math.max(0, value(point) / top)) * 76
    const spot = `${x.toFixed(1)} ${y.toFixed(1)}`
    const joined = previous !== null && point.time - previous.time <= HOLE
    if (!joined && previous !== null) area += `V80H${start}Z`
    if (!joined) start = x.toFixed(1)
    line += joined ? `L${spot}` : `M${spot}`
    area += joined ? `L${spot}` : `M${start} 80L${spot}`
    previous = point
    if (i === points.length - 1) area += `V80H${start}Z`
  })
  return { line, area }
}

const gib = bytes => (bytes / 2 ** 30).toFixed(1)

function rate(bytes) {
  if (bytes < 1000) return [String(Math.round(bytes)), "B/s"]
  if (bytes < 1e6) return [(bytes / 1e3).toFixed(bytes < 1e4 ? 1 : 0), "kB/s"]
  if (bytes < 1e9) return [(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0), "MB/s"]
  return [(bytes / 1e9).toFixed(1), "GB/s"]
}

// The next of 1, 2, 5 × a power of ten, so that the scale stands still most of the time.
function ceiling(n) {
  const power = 10 ** Math.floor(Math.log10(n))
  return [1, 2, 5, 10].find(step => step * power >= n) * power
}
