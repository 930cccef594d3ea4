// The hub that served this page: where it is, the names of this visit, and questions by HTTP.

import { curlOf, requestLine } from "./curl.js"
import { Line } from "./line.js"

const LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"

/** `print` gets what is sent: { who, frame, curl, closes }. */
export class Hub {
  http = location.origin
  ws = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`
  // Names of its own, so that several visitors of one hub do not meet.
  name = `lab.${Array.from(crypto.getRandomValues(new Uint8Array(8)), byte => LETTERS[byte % LETTERS.length]).join("")}`
  #print
  #kept = new Set()

  constructor(print) {
    this.#print = print
  }

  /** A line whose frames are printed under the name of `who`, a word of the lab with its values. */
  line(who, hear, state) {
    const line = new Line(this.ws, hear, state)
    return {
      open: () => line.open(),
      isOpen: () => line.isOpen(),
      /** Sends a frame and prints it; `queue` is the one that a tag is of. */
      send: (frame, queue) => {
        const { sent, answer } = line.send(frame)
        this.#print({ who, frame: sent, curl: curlOf(this.http, frame, queue) })
        return answer
      },
      /** Sends a frame that nobody asked for, to look at something. */
      look: frame => line.send(frame).answer,
      close: () => {
        line.close()
        this.#print({ who, closes: true, curl: "# Ctrl-C" })
      },
    }
  }

  /** Begins a queue with these settings, or gives it others. */
  async keep(who, name, settings) {
    const path = `/v1/queues/${name}`
    this.#print({ who, curl: requestLine(this.http, "PUT", path, settings) })
    await this.ask("PUT", path, settings)
    this.#kept.add(path)
  }

  /** Lets go of all queues of this visit, while the page closes; topics go by their own age. */
  leave() {
    for (const path of this.#kept) fetch(path, { method: "DELETE", keepalive: true }).catch(() => {})
  }

  /** A request; rejects with what the hub says is wrong. */
  async ask(method, path, body) {
    const headers = body === undefined ? {} : { "content-type": "application/json" }
    const response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) }).catch(() => {
      throw { error: "unavailable", text: "" }
    })
    const answer = response.status === 204 ? {} : await response.json().catch(() => ({}))
    if (response.ok) return answer
    throw { error: answer.reason ?? String(response.status), text: answer.detail ?? response.statusText }
  }

  /** How a queue stands. */
  async stats(name) {
    return (await this.ask("GET", `/v1/queues/${name}`)).stats
  }
}
