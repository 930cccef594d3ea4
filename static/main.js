// Opens the page: learns where the hub is, connects once, and hands the session to the panels.

import { openConnection } from "./connection.js"
import { byId } from "./dom.js"
import { openRejected } from "./rejected.js"
import { openSend } from "./send.js"
import { Session } from "./socket.js"
import { openTheme } from "./themes.js"
import { openTopics } from "./topics.js"
import { openUnplug } from "./unplug.js"
import { openVitals } from "./vitals.js"

// The page was reached at this address, so it is the one that surely leads to the hub.
const ws = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`

async function learn() {
  const unknown = { redis: null, prefix: "fanfare", stream: "fanfare:in", list: "fanfare:list", vitals: false, version: "" }
  const told = await fetch("demo.json").then(response => (response.ok ? response.json() : {}), () => ({}))
  return { ...unknown, ...told, http: location.origin, ws }
}

openTheme()
const facts = await learn()
const session = new Session(ws)
byId("version").textContent = facts.version
byId("foot").textContent = `Everything on this page comes from the hub itself, fanfare ${facts.version}${facts.store ? `, store: ${facts.store}` : ""}.`
openConnection(session)
openSend(session, facts)
openVitals(session, facts)
openTopics(session)
openUnplug(session)
openRejected(session, facts)
session.connect()
