/**
 * The server of the dashboard: the page, its data, and a stream of changes (server-sent events), on
 * 127.0.0.1 alone.
 */
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join } from 'node:path'
import { KindlingError } from '../errors'
import { HEADERS, newToken, permittedPath } from './access'
import { answer, snapshot } from './api'
import { Catalog } from './catalog'

const HOST = '127.0.0.1'
/** Milliseconds between two polls of the metrics that are open. */
const POLL_MS = 500
/** Polls of the metrics between two scans of the folders. */
const POLLS_PER_REFRESH = 4
/**
 * Milliseconds after which a silent stream sends a comment, so that the connection is not dropped.
 */
const HEARTBEAT_MS = 15_000
const MAX_STREAMS = 64

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
}

/** A running dashboard. */
export interface Dashboard {
  url: string
  close(): Promise<void>
}

/**
 * Starts a dashboard.
 *
 * @param places - run folders, or folders of runs.
 * @param port - 0 for any free port.
 * @throws KindlingError `ERR_IO` if the port is taken, `ERR_INTERNAL` if the page was not built.
 */
export async function startDashboard(places: readonly string[], port = 0): Promise<Dashboard> {
  const files = readPage()
  const catalog = new Catalog(places)
  await catalog.refresh()
  const token = newToken()
  const streams = new Set<ServerResponse>()
  const server = createServer((request, response) => {
    const own = (server.address() as AddressInfo).port
    void respond({ catalog, files, streams, token, port: own }, request, response)
  })
  await listen(server, port)
  const stop = follow(catalog, streams)
  const url = `http://${HOST}:${(server.address() as AddressInfo).port}/${token}/`
  return {
    url,
    close: async () => {
      stop()
      for (const stream of streams) stream.end()
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(
        new KindlingError(
          'ERR_IO',
          `cannot listen on ${HOST}:${port}: ${error.message}; omit --port`,
        ),
      ),
    )
    server.listen(port, HOST, resolve)
  })
}

interface Site {
  catalog: Catalog
  files: ReadonlyMap<string, Buffer>
  streams: Set<ServerResponse>
  token: string
  port: number
}

async function respond(
  { catalog, files, streams, token, port }: Site,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = permittedPath(request, token, port)
  if (url === null) return send(response, 403, 'text/plain', 'forbidden: open the printed URL\n')
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return send(response, 405, 'text/plain', 'only GET\n')
  }
  if (url.pathname === '/api/events') return openStream(catalog, streams, response)
  const name = url.pathname === '/' ? '/index.html' : url.pathname
  const file = files.get(name)
  if (file) return send(response, 200, TYPES[extname(name)] ?? 'text/plain', file)
  try {
    const value = await answer(catalog, url)
    if (value === undefined) return send(response, 404, 'text/plain', 'not found\n')
    send(response, 200, 'application/json', JSON.stringify(value))
  } catch (error) {
    send(response, 500, 'text/plain', `${error instanceof Error ? error.message : error}\n`)
  }
}

function send(response: ServerResponse, status: number, type: string, body: string | Buffer): void {
  response.writeHead(status, { ...HEADERS, 'Content-Type': type })
  response.end(body)
}

function openStream(
  catalog: Catalog,
  streams: Set<ServerResponse>,
  response: ServerResponse,
): void {
  if (streams.size >= MAX_STREAMS) return send(response, 503, 'text/plain', 'too many pages\n')
  response.writeHead(200, { ...HEADERS, 'Content-Type': 'text/event-stream' })
  response.write(`data: ${JSON.stringify(snapshot(catalog))}\n\n`)
  streams.add(response)
  response.on('close', () => streams.delete(response))
}

/** Sends every change to all streams; returns a function that stops it. */
function follow(catalog: Catalog, streams: ReadonlySet<ServerResponse>): () => void {
  let sent = ''
  let sentAt = 0
  let polls = 0
  let isOpen = true
  let timer: NodeJS.Timeout
  const look = async (): Promise<void> => {
    catalog.isFollowed = streams.size > 0
    if (catalog.isFollowed) {
      void catalog.poll()
      if (polls++ % POLLS_PER_REFRESH === 0) await catalog.refresh().catch(() => {})
      const text = JSON.stringify(snapshot(catalog))
      const now = performance.now()
      if (text !== sent || now - sentAt > HEARTBEAT_MS) {
        for (const stream of streams) stream.write(text === sent ? ':\n\n' : `data: ${text}\n\n`)
        sent = text
        sentAt = now
      }
    }
    if (isOpen) timer = setTimeout(() => void look(), POLL_MS)
  }
  timer = setTimeout(() => void look(), POLL_MS)
  return () => {
    isOpen = false
    clearTimeout(timer)
  }
}

/** Reads the files of the page; returns them by URL path. */
function readPage(): Map<string, Buffer> {
  const folder = join(__dirname, 'page')
  if (!existsSync(join(folder, 'main.js'))) {
    throw new KindlingError('ERR_INTERNAL', `${folder} has no page; run npm run build`)
  }
  const files = new Map<string, Buffer>()
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (extname(name) in TYPES) {
      files.set(`/${name.replaceAll('\\', '/')}`, readFileSync(join(folder, name)))
    }
  }
  return files
}
