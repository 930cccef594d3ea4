// One WebSocket for the whole page, in `fanfare.v1`: it connects, subscribes, comes back after a cut and asks for what
// was missed by the last `at` of each topic. What is shown of it belongs to the panels.

const PING_EVERY = 20_000
const PONG_WITHIN = 10_000
const KEPT_PER_TOPIC = 60
const DELAYS = 60
const REPLAY_OVER = 250

/** Whether page and hub read the same clock. */
export const oneClock = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname)

export class Session {
  state = "connecting" // connecting, live, away, held, ended
  hello = null
  backAt = 0
  topics = new Map() // name → { name, last, at, listeners, recent, resume }
  #url
  #socket = null
  #waiting = new Map() // id → { resolve, reject }
  #nextId = 1
  #ears = []
  #timer = 0
  #pulse = 0
  #heardAt = 0
  #delays = []

  constructor(url) {
    this.#url = url
  }

  /**
   * Calls `ear(kind, detail)` for what happens on the line: state, subscribed, gap, message, notice. With a message comes
   * whether it was recovered: it was stored while the page was away.
   */
  listen(ear) {
    this.#ears.push(ear)
  }

  connect() {
    clearTimeout(this.#timer)
    this.#drop()
    this.#become("connecting")
    const socket = new WebSocket(this.#url, "fanfare.v1")
    this.#socket = socket
    socket.onopen = () => {
      for (const topic of this.topics.values()) this.#ask(topic)
    }
    socket.onmessage = event => this.#read(event.data)
    socket.onclose = event => this.#onClose(event.code, event.reason)
    this.#pulse = setInterval(() => this.#beat(), PING_EVERY)
  }

  /** Closes the socket as a broken line would, and comes back by itself. */
  cut() {
    this.#leave("cut from this page")
  }

  /** Stays away until `connect` is called. */
  hold() {
    clearTimeout(this.#timer)
    this.#drop()
    this.#become("held")
  }

  /** Adds a listener `{ message(m, recovered), told?(kind, frame) }`; returns what takes it away again. */
  subscribe(name, listener, last) {
    let topic = this.topics.get(name)
    if (topic) {
      topic.recent.slice(-(last ?? 0) || Infinity).forEach(m => listener.message(m))
      topic.listeners.add(listener)
      if (topic.reply) listener.told?.("subscribed", topic.reply)
    } else {
      topic = { name, last, at: undefined, listeners: new Set([listener]), recent: [], resume: null, reply: null }
      this.topics.set(name, topic)
      if (this.#isOpen()) this.#ask(topic)
    }
    return () => this.#forget(topic, listener)
  }

  /** Publishes `{ data }` or `{ text }`; resolves with the hub's reply, rejects with its error frame. */
  publish(topic, body) {
    return this.#send({ pub: topic, ...body })
  }

  /** The hub's clock now, as its live messages told; undefined before any came. */
  hubNow() {
    if (oneClock) return Date.now()
    return this.#delays.length ? Date.now() - Math.min(...this.#delays) : undefined
  }

  #ask(topic) {
    const frame = { sub: topic.name }
    if (topic.at) frame.after = topic.at
    else if (topic.last) frame.last = topic.last
    this.#send(frame).catch(error => {
      if (error.error === "unconfirmed") return // the line broke; it is asked again
      this.topics.delete(topic.name)
      for (const listener of topic.listeners) listener.told?.("error", error)
    })
  }

  #forget(topic, listener) {
    topic.listeners.delete(listener)
    if (topic.listeners.size || this.topics.get(topic.name) !== topic) return
    this.topics.delete(topic.name)
    if (this.#isOpen()) this.#send({ unsub: topic.name }).catch(() => {})
    this.#tell("subscribed", topic)
  }

  #send(frame) {
    if (!this.#isOpen()) {
      return Promise.reject({ error: "unavailable", text: "the line is down; it comes back by itself" })
    }
    const id = this.#nextId++
    this.#socket.send(JSON.stringify({ id, ...frame }))
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }))
  }

  #isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN
  }

  #read(text) {
    this.#heardAt = Date.now()
    const frames = JSON.parse(text)
    for (const frame of Array.isArray(frames) ? frames : [frames]) this.#take(frame)
  }

  #take(frame) {
    const topic = this.topics.get(frame.topic ?? frame.gap ?? frame.ended)
    if (topic && frame.at) topic.at = frame.at // every `at` is a safe `after`
    if (frame.hello) {
      this.hello = frame
      this.#become("live")
    }
    if (frame.topic && "data" in frame) this.#deliver(topic, frame)
    if (frame.ok === "sub") this.#onSubscribed(topic, frame)
    if (frame.gap) this.#inform(topic, "gap", frame)
    if (frame.ended) {
      this.topics.delete(frame.ended)
      this.#inform(topic, "ended", frame)
    }
    if (frame.drain) this.#leave("the hub drains this node", (frame.back_in ?? 1) * 1000)
    const waiting = this.#waiting.get(frame.id)
    if (waiting) {
      this.#waiting.delete(frame.id)
      if (frame.error) waiting.reject(frame)
      else waiting.resolve(frame)
    } else if (frame.error && !frame.ended) {
      this.#tell("notice", { text: `${frame.error}: ${frame.text ?? ""}` })
    }
  }

  #deliver(topic, message) {
    if (message.time && Date.now() - topic?.answeredAt > REPLAY_OVER) {
      this.#delays.push(Date.now() - message.time)
      if (this.#delays.length > DELAYS) this.#delays.shift()
    }
    const recovered = Boolean(topic?.resume?.resumed) && message.time <= topic.resume.until
    if (topic) {
      topic.recent.push(message)
      if (topic.recent.length > KEPT_PER_TOPIC) topic.recent.shift()
      if (recovered) {
        topic.resume.missed++
        topic.resume.show?.()
      }
      for (const listener of topic.listeners) listener.message(message, recovered)
    }
    this.#tell("message", message, recovered)
  }

  // What was stored before the reply came is what was missed; the hub's clock is known from its own messages.
  #onSubscribed(topic, reply) {
    if (!topic) return
    topic.reply = reply
    topic.answeredAt = Date.now()
    if ("resumed" in reply) topic.resume = { ...reply, until: this.hubNow(), missed: 0, show: null }
    this.#inform(topic, "subscribed", reply)
  }

  #inform(topic, kind, frame) {
    for (const listener of topic?.listeners ?? []) listener.told?.(kind, frame)
    this.#tell(kind, kind === "subscribed" ? topic : frame)
  }

  #beat() {
    if (!this.#isOpen()) return
    const asked = Date.now()
    this.#socket.send(JSON.stringify({ ping: asked }))
    const socket = this.#socket
    setTimeout(() => {
      if (socket === this.#socket && this.#heardAt < asked) this.#leave("no answer on the line")
    }, PONG_WITHIN)
  }

  #onClose(code, reason) {
    const why = reason ? `${code} ${reason}` : String(code)
    if (code >= 4500) {
      this.#drop()
      this.#become("ended", `closed for good: ${why}`)
    } else this.#leave(`closed: ${why}`)
  }

  #leave(why, wait = 500 + Math.random() * 4000) {
    this.#drop()
    clearTimeout(this.#timer)
    this.backAt = Date.now() + wait
    this.#timer = setTimeout(() => this.connect(), wait)
    this.#become("away", why)
  }

  // The old socket must not speak after it was left: a dead line would report its end minutes later.
  #drop() {
    clearInterval(this.#pulse)
    const socket = this.#socket
    this.#socket = null
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null
      socket.close(1000)
    }
    for (const { reject } of this.#waiting.values()) {
      reject({ error: "unconfirmed", text: "the line broke before the answer came: it may or may not be stored" })
    }
    this.#waiting.clear()
  }

  #become(state, why) {
    this.state = state
    this.#tell("state", { state, why })
  }

  #tell(kind, detail, recovered = false) {
    for (const ear of this.#ears) ear(kind, detail, recovered)
  }
}
