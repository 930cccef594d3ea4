// One WebSocket for one actor of the lab: each subscriber, each worker and the producer has its own, as they would on
// machines of their own. It comes back by itself after a cut, not after `close`.

export class Line {
  #url
  #hear
  #socket = null
  #waiting = new Map() // id → { resolve, reject }
  #nextId = 1
  #timer = 0
  #opened = null
  #state

  /** `hear(frame)` gets what is no answer; `state(isOpen)` is told when the line comes and goes. */
  constructor(url, hear, state = () => {}) {
    this.#url = url
    this.#hear = hear
    this.#state = state
  }

  /** Resolves when the hub has said hello. */
  open() {
    this.#opened ??= new Promise(resolve => this.#connect(resolve))
    return this.#opened
  }

  /** Closes the socket at once, as a process that is killed would. */
  close() {
    clearTimeout(this.#timer)
    this.#opened = null
    this.#drop()
  }

  isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN
  }

  /** Sends a frame; resolves with the hub's reply, rejects with its error. Returns the frame as it was sent beside it. */
  send(frame) {
    const sent = { id: this.#nextId++, ...frame }
    if (!this.isOpen()) return { sent, answer: Promise.reject({ error: "unavailable", text: "" }) }
    this.#socket.send(JSON.stringify(sent))
    return { sent, answer: new Promise((resolve, reject) => this.#waiting.set(sent.id, { resolve, reject })) }
  }

  #connect(isReady) {
    const socket = new WebSocket(this.#url, "fanfare.v1")
    this.#socket = socket
    socket.onmessage = event => {
      const frame = JSON.parse(event.data)
      if (frame.hello) {
        isReady?.()
        this.#state(true)
        return
      }
      const waiting = this.#waiting.get(frame.id)
      this.#waiting.delete(frame.id)
      if (!waiting) this.#hear(frame)
      else if (frame.error) waiting.reject(frame)
      else waiting.resolve(frame)
    }
    socket.onclose = () => {
      this.#drop()
      this.#state(false)
      this.#timer = setTimeout(() => this.#connect(isReady), 500 + Math.random() * 2000)
    }
  }

  // The old socket must not speak after it was left.
  #drop() {
    const socket = this.#socket
    this.#socket = null
    if (!socket) return
    socket.onmessage = socket.onclose = null
    socket.close()
    for (const { reject } of this.#waiting.values()) reject({ error: "unconfirmed", text: "the line broke before the answer came" })
    this.#waiting.clear()
  }
}
