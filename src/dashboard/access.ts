/**
 * Decides who may read the dashboard: a browser on this machine that was given its URL. The token
 * is the first part of the path, so every file and request of the page carries it. Checks of host
 * and origin keep out other sites, and foreign names that resolve to this machine (DNS rebinding).
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'

/** Headers of every response. The page may load its own files only. */
export const HEADERS: Readonly<Record<string, string>> = {
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'Cache-Control': 'no-store',
}

/** Makes a token that cannot be guessed. */
export function newToken(): string {
  return randomBytes(18).toString('base64url')
}

/**
 * Returns the URL without the token, with a path such as `/api/runs`; null if the request must be
 * refused.
 *
 * @param port - the server's port.
 */
export function permittedPath(request: IncomingMessage, token: string, port: number): URL | null {
  const { host, origin } = request.headers
  const hosts = [`127.0.0.1:${port}`, `localhost:${port}`]
  if (host === undefined || !hosts.includes(host)) return null
  if (origin !== undefined && origin !== `http://${host}`) return null
  const site = request.headers['sec-fetch-site']
  if (site === 'cross-site' || site === 'same-site') return null
  let url: URL
  try {
    url = new URL(request.url ?? '/', `http://${host}`)
  } catch {
    return null
  }
  const [, given = '', ...rest] = url.pathname.split('/')
  if (!isEqual(given, token)) return null
  return new URL(`/${rest.join('/')}${url.search}`, `http://${host}`)
}

function isEqual(given: string, token: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(token)]
  return a.length === b.length && timingSafeEqual(a, b)
}
