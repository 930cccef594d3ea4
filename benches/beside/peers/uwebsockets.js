// uWebSockets: who connects to /sub hears what comes by /pub.
const { App } = require("uwebsockets")

const app = App()
app.ws("/sub", { idleTimeout: 0, maxBackpressure: 16 << 20, open: (socket) => socket.subscribe("bench") })
app.ws("/pub", { idleTimeout: 0, message: (_, message, isBinary) => app.publish("bench", message, isBinary) })
app.listen("127.0.0.1", Number(process.argv[2]), (listens) => listens || process.exit(1))
