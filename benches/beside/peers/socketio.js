// Socket.IO: what one says goes to all others.
const { Server } = require("socket.io")

const io = new Server({ transports: ["websocket"], pingInterval: 600_000, serveClient: false })
io.on("connection", (socket) => socket.on("bench", (data) => socket.broadcast.emit("bench", data)))
const http = require("node:http").createServer()
io.attach(http)
http.listen(Number(process.argv[2]), "127.0.0.1")
