// The lines to paste, made from the hub's real addresses. Each is one line, safe in a POSIX shell (and in zsh and fish):
// whatever a shell could read is inside single quotes.

export const SAMPLE = { title: "첫 메시지가 도착했습니다", text: "Your first message has arrived" }

/** A word as a shell takes it. */
export function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

/** How redis-cli reaches the door, or null when it is shut. */
export function redisCli(facts) {
  if (!facts.redis) return null
  const { hostname, port } = new URL(facts.redis.replace(/^redis/, "http"))
  const host = hostname.replace(/^\[|\]$/g, "")
  const where = host === "0.0.0.0" || host === "::" ? location.hostname : host
  return ["redis-cli", ...(where === "127.0.0.1" ? [] : ["-h", where]), "-p", port || "6379"].map(quote).join(" ")
}

const sample = via => JSON.stringify({ ...SAMPLE, via })
const messages = facts => `${facts.http}/v1/topics/hello/messages`

export function redisLine(facts) {
  return `${redisCli(facts)} XADD ${quote(facts.stream)} '*' topic hello data ${quote(sample("redis-cli"))}`
}

export function curlLine(facts) {
  return `curl --json ${quote(sample("curl"))} ${quote(messages(facts))}`
}

export function pythonLine(facts) {
  return `python3 -c ${quote(
    `import json,time,urllib.request as u; u.urlopen(u.Request(${JSON.stringify(messages(facts))}, ` +
      `json.dumps(${timed("python")}).encode(), {"content-type":"application/json"}))`,
  )}`
}

export function redisPyLine(facts) {
  return `python3 -c ${quote(
    `import json,redis,time; redis.from_url(${JSON.stringify(facts.redis)}).xadd(${JSON.stringify(facts.stream)}, ` +
      `{"topic":"hello","data":json.dumps(${timed("redis-py")})})`,
  )}`
}

// The sample as Python writes it, with the publisher's own clock.
const timed = via => `${sample(via).slice(0, -1)},"sent":time.time()*1000}`

export function consoleLine(facts) {
  return (
    `ws = new WebSocket(${JSON.stringify(facts.ws)}); ws.onmessage = e => console.log(e.data); ` +
    `ws.onopen = () => ws.send(JSON.stringify({ pub: "hello", data: { ...${sample("console")}, sent: Date.now() } }))`
  )
}

/** An entry that no hub can place: it names no topic. */
export function deadLine(facts) {
  return `${redisCli(facts)} XADD ${quote(facts.stream)} '*' data '{"title":"주소 없는 편지"}'`
}
