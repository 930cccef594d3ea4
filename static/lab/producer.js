// The producer: one message, into the topic and into the queue.

import { byId } from "../dom.js"
import { attempt } from "./parts.js"
import { say } from "./speech.js"

export async function openProducer(hub, topic, queue) {
  const line = hub.line(["producer"], () => {})
  let sent = 0

  async function send() {
    const data = { n: ++sent, text: byId("message").value }
    const priority = Number(byId("priority").value)
    const published = line.send({ pub: topic.current(), data })
    const put = queue.put(line, data, priority)
    await Promise.all([published, put])
    say(byId("producer-told"), "sent", { n: sent })
  }

  byId("producer").addEventListener("submit", event => {
    event.preventDefault()
    const count = Number(event.submitter?.value || 1)
    attempt(byId("producer-fault"), async () => {
      for (let i = 0; i < count; i++) await send()
    })
  })
  await line.open()
}
