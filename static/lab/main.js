// Opens the lab: chooses the language and the theme, draws names for this visit, and lets each part begin.

import { byId } from "../dom.js"
import { openTheme } from "../themes.js"
import { openFifo } from "./fifo.js"
import { openGate } from "./gate.js"
import { Hub } from "./hub.js"
import { openOffsets } from "./offsets.js"
import { openProducer } from "./producer.js"
import { attempt } from "./parts.js"
import { openQueue } from "./queue.js"
import { openSpeech, say } from "./speech.js"
import { openStandard } from "./standard.js"
import { openTopic } from "./topic.js"
import { openWire, print } from "./wire.js"

const KINESIS_KEEPS = 5 // as the demo's rule says

const hub = new Hub(print)
openSpeech(document.querySelectorAll("#languages button"))
openTheme()
openWire()
say(byId("own"), "own", { name: hub.name })
say(byId("kinesis-about"), "kinesis-about", { n: KINESIS_KEEPS })
byId("anew").addEventListener("click", () => location.reload())

addEventListener("pagehide", event => event.persisted || hub.leave())

const fault = byId("producer-fault")
await attempt(fault, async () => {
  const [topic, queue] = await Promise.all([openTopic(hub), openQueue(hub)])
  await openProducer(hub, topic, queue)
})
await Promise.all([openStandard(hub), openFifo(hub), openOffsets(hub, "kinesis"), openOffsets(hub, "kafka"), openGate(hub)].map(each => attempt(fault, () => each)))
document.body.dataset.ready = "true"
