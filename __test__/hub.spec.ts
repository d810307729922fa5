/**
 * `hf:org/name` with the package @huggingface/hub, against a server on this machine that answers as
 * the hub does; and without the package.
 */
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { load, type KindlingError } from '../src'
import { failed, kindling } from './command-line'
import { rejectsWith, temporaryFolder } from './helpers'

const LLAMA = join(__dirname, '../crates/kindling-core/tests/fixtures/exchange/models/llama')
const REVISION = 'a'.repeat(40)

/** The files of a repository; a model does not need the last two. */
const FILES = new Map<string, Buffer>([
  ['config.json', readFileSync(join(LLAMA, 'config.json'))],
  ['model.safetensors', readFileSync(join(LLAMA, 'model.safetensors'))],
  ['onnx/model.onnx', Buffer.from('large')],
  ['pytorch_model.bin', Buffer.from('large')],
])

/** The requests that a server received. */
interface Hub {
  url: string
  downloads: string[]
  tokens: Set<string | undefined>
  /** Weights are sent up to the middle, and then no more. */
  stalls: boolean
}

function entryOf(path: string): object {
  const bytes = FILES.get(path)!
  const oid = createHash('sha1').update(bytes).digest('hex')
  return { type: 'file', path, size: bytes.length, oid, lastCommit: { id: REVISION, title: '' } }
}

/** Answers as huggingface.co does for org/name, and with 404 for everything else. */
function answer(request: IncomingMessage, response: ServerResponse, hub: Hub): void {
  const { pathname, searchParams } = new URL(request.url!, hub.url)
  hub.tokens.add(request.headers.authorization)
  const json = (value: unknown): void => {
    response.setHeader('content-type', 'application/json').end(JSON.stringify(value))
  }
  const download = pathname.match(`^/org/name/resolve/${REVISION}/(.*)$`)
  const bytes = download && FILES.get(download[1]!)
  if (['main', 'v1'].some((name) => pathname === `/api/models/org/name/revision/${name}`)) {
    json({ _id: '1', id: 'org/name', sha: REVISION, private: false })
  } else if (pathname === `/api/models/org/name/tree/${REVISION}`) {
    const isDeep = searchParams.get('recursive') === 'true'
    json([...FILES.keys()].filter((path) => isDeep || !path.includes('/')).map(entryOf))
  } else if (pathname === `/api/models/org/name/paths-info/${REVISION}`) {
    let body = ''
    request.on('data', (text) => (body += text))
    request.on('end', () => json((JSON.parse(body) as { paths: string[] }).paths.map(entryOf)))
  } else if (bytes) {
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')
    const part = range ? bytes.subarray(Number(range[1]), Number(range[2]) + 1) : bytes
    if (!range) hub.downloads.push(download[1]!)
    response.setHeader('etag', '"1"')
    if (range) response.setHeader('content-range', `bytes ${range[1]}-${range[2]}/${bytes.length}`)
    response.writeHead(range ? 206 : 200)
    if (hub.stalls && !range && pathname.endsWith('.safetensors')) {
      response.write(part.subarray(0, part.length / 2))
    } else {
      response.end(part)
    }
  } else {
    response.writeHead(404, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ error: 'Repository not found' }))
  }
}

async function serve(t: ExecutionContext): Promise<Hub> {
  const hub: Hub = { url: '', downloads: [], tokens: new Set(), stalls: false }
  const server = createServer((request, response) => answer(request, response, hub))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  hub.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return hub
}

/** Sets variables of this process until the test ends. */
function setEnvironment(t: ExecutionContext, values: Record<string, string>): void {
  for (const [name, value] of Object.entries(values)) {
    const before = process.env[name]
    process.env[name] = value
    t.teardown(() => {
      if (before === undefined) delete process.env[name]
      else process.env[name] = before
    })
  }
}

test.serial('a model of the hub is downloaded once, without unneeded files', async (t) => {
  const cache = temporaryFolder(t)
  const hub = await serve(t)
  setEnvironment(t, { HF_ENDPOINT: hub.url, HF_HUB_CACHE: cache, HF_TOKEN: 'hf_abc' })
  const { model, tokenizer } = await load('hf:org/name')
  const { ids, logits } = JSON.parse(readFileSync(join(LLAMA, 'expected.json'), 'utf8')) as {
    ids: number[]
    logits: number[]
  }
  const found = await model.logits(Uint32Array.from(ids))
  t.true(found.every((value, i) => Math.abs(value - logits[i]!) < 1e-4))
  t.is(tokenizer, null)
  t.deepEqual([...hub.downloads].sort(), ['config.json', 'model.safetensors'])
  t.deepEqual([...hub.tokens], ['Bearer hf_abc'])
  // The layout that Hugging Face's own programs use.
  const snapshot = join(cache, 'models--org--name', 'snapshots', REVISION)
  t.deepEqual(readdirSync(snapshot).sort(), ['config.json', 'model.safetensors'])

  await load('hf:org/name@v1')
  t.is(hub.downloads.length, 2)
  const message = await rejectsWith(t, 'ERR_NOT_FOUND', () => load('hf:org/other'))
  t.regex(message, /hf:org\/other.*Repository not found/)
})

test.serial('concurrent downloads print nothing, and other messages pass', async (t) => {
  const hub = await serve(t)
  setEnvironment(t, { HF_ENDPOINT: hub.url, HF_HUB_CACHE: temporaryFolder(t) })
  const { console: messages } = globalThis
  const { debug } = messages
  const said: unknown[] = []
  const record = (text: unknown): unknown => said.push(text)
  messages.debug = record
  try {
    const failing = load('hf:org/other').catch((error: KindlingError) => error.code)
    const loading = load('hf:org/name')
    messages.debug('mine')
    t.is(await failing, 'ERR_NOT_FOUND')
    t.not(messages.debug, record)
    await loading
    t.is(messages.debug, record)
  } finally {
    messages.debug = debug
  }
  t.deepEqual(said, ['mine'])
  t.is(hub.downloads.length, 2)
})

const size = (path: string): number => FILES.get(path)!.length

test.serial('a download reports its bytes, and each file once it is there', async (t) => {
  const hub = await serve(t)
  setEnvironment(t, { HF_ENDPOINT: hub.url, HF_HUB_CACHE: temporaryFolder(t) })
  const total = size('config.json') + size('model.safetensors')
  const reports: [number, number][] = []
  await load('hf:org/name', { onProgress: (...report) => reports.push(report) })
  const downloaded = reports.filter(([, of]) => of === total)
  t.true(downloaded.some(([done]) => done === size('config.json')))
  t.deepEqual(downloaded.at(-1), [total, total])
  t.true(downloaded.every(([done], i) => i === 0 || done >= downloaded[i - 1]![0]))

  // The model is in the cache now: its reading alone is reported.
  reports.length = 0
  await load('hf:org/name', { onProgress: (...report) => reports.push(report) })
  t.false(reports.some(([, of]) => of === total))
})

test.serial('a download that stalls can be cancelled, and done anew', async (t) => {
  const cache = temporaryFolder(t)
  const hub = await serve(t)
  hub.stalls = true
  setEnvironment(t, { HF_ENDPOINT: hub.url, HF_HUB_CACHE: cache })
  const controller = new AbortController()
  const onProgress = (done: number): void => {
    if (done > size('config.json')) controller.abort()
  }
  const { signal } = controller
  await rejectsWith(t, 'ERR_CANCELLED', () => load('hf:org/name', { signal, onProgress }))

  const problem = new Error('mine')
  const failing = load('hf:org/name', {
    onProgress: () => {
      throw problem
    },
  })
  t.is(await t.throwsAsync(failing), problem)

  hub.stalls = false
  await load('hf:org/name')
  const snapshot = join(cache, 'models--org--name', 'snapshots', REVISION)
  t.deepEqual(readFileSync(join(snapshot, 'model.safetensors')), FILES.get('model.safetensors'))
})

test.serial('a dry run lists what it would download, and downloads nothing', async (t) => {
  const cache = temporaryFolder(t)
  const hub = await serve(t)
  setEnvironment(t, { HF_ENDPOINT: hub.url, HF_HUB_CACHE: cache })
  const out = join(temporaryFolder(t), 'run')
  const dryRun = ['import', 'hf:org/name', '--out', out, '--dry-run', '--json']
  t.deepEqual(JSON.parse((await kindling(dryRun)).stdout), {
    dry_run: true,
    downloads: ['config.json', 'model.safetensors'],
    download_bytes: size('config.json') + size('model.safetensors'),
    writes: [out],
  })
  t.deepEqual(hub.downloads, [])
  t.deepEqual(readdirSync(cache), [])

  await load('hf:org/name')
  const planned = JSON.parse((await kindling(dryRun)).stdout) as { params: number }
  t.true(planned.params > 0)
})

test.serial('a hub that cannot be reached is an error that names the model', async (t) => {
  setEnvironment(t, { HF_ENDPOINT: 'http://127.0.0.1:9', HF_HUB_CACHE: temporaryFolder(t) })
  t.regex(await rejectsWith(t, 'ERR_NOT_FOUND', () => load('hf:org/name')), /hf:org\/name/)
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => load('hf:name'))
})

/** A module that Node.js loads before anything else, which hides the package. */
const WITHOUT_PACKAGE = `
const Module = require('node:module')
const resolve = Module._resolveFilename
Module._resolveFilename = function (name, ...rest) {
  if (name === '@huggingface/hub') throw new Error('Cannot find module ' + name)
  return resolve.call(this, name, ...rest)
}
`

test.serial('without the package the error says what to install', async (t) => {
  const folder = temporaryFolder(t)
  const hook = join(folder, 'without-package.js')
  writeFileSync(hook, WITHOUT_PACKAGE)
  setEnvironment(t, { NODE_OPTIONS: `--require ${hook}` })
  const finished = await kindling(['import', 'hf:org/name', '--out', join(folder, 'run')])
  const message = /npm install @huggingface\/hub/
  failed(t, finished, { exit: 1, code: 'ERR_UNSUPPORTED', message })
  t.deepEqual(readdirSync(folder), ['without-package.js'])
})
