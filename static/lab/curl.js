// The curl line that does what a frame does: one line each, safe in a POSIX shell.

import { quote } from "../snippets.js"

const PUBLISH = ["name", "key", "ttl", "durability"]
const PUT = ["priority", "delay", "deliver_at", "group", "dedupe", "dedupe_window", "ttl", "durability"]
const WAIT = 20 // seconds that a take by HTTP waits for jobs
/** Stands in curl lines for what the answer to a take by HTTP gives: tags of a socket are that socket's own. */
export const TAG = "TAG"

/** `queue` is where a tag belongs: its frame does not say. */
export function curlOf(http, frame, queue) {
  const post = (path, body) => `curl --json ${quote(JSON.stringify(body))} ${quote(http + path)}`
  const get = path => `curl ${quote(http + path)}`
  const topic = name => `/v1/topics/${name}`
  if (frame.pub) return post(`${topic(frame.pub)}/messages${query(pick(frame, PUBLISH))}`, frame.data)
  if (frame.put) return post(`/v1/queues/${frame.put}/messages${query(pick(frame, PUT))}`, frame.data)
  if (frame.sub) return `curl -N ${quote(`${http}/v1/sse${query({ topic: frame.sub, ...pick(frame, ["after"]) })}`)}`
  if (frame.unsub) return "# Ctrl-C"
  if (frame.history) return get(`${topic(frame.history)}/messages${query(pick(frame, ["after", "limit"]))}`)
  if (frame.commit) {
    const body = JSON.stringify(pick(frame, ["at", "rewind"]))
    return `curl -X PUT --json ${quote(body)} ${quote(`${http}${topic(frame.commit)}/cursors/${frame.cursor}`)}`
  }
  if (frame.take && frame.credit === 0) return null // each take by HTTP asks anew
  if (frame.take) return post(`/v1/queues/${frame.take}/take`, { max: frame.credit ?? 1, wait: WAIT, ...pick(frame, ["lease"]) })
  for (const verb of ["ack", "nack", "extend", "term"]) {
    if (frame[verb]) return post(`/v1/queues/${queue}/${verb}`, { tag: TAG, ...pick(frame, ["delay", "text", "by"]) })
  }
  throw new Error(`no curl line for ${JSON.stringify(frame)}`)
}

/** A request by HTTP that has no frame. */
export function requestLine(http, method, path, body) {
  const way = method === "GET" ? "" : `-X ${method} `
  return `curl ${way}${body === undefined ? "" : `--json ${quote(JSON.stringify(body))} `}${quote(http + path)}`
}

const pick = (from, names) => Object.fromEntries(names.filter(name => name in from).map(name => [name, from[name]]))

function query(fields) {
  const text = new URLSearchParams(fields).toString()
  return text && `?${text}`
}
