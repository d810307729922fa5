/**
 * Downloads models from the Hugging Face Hub, `hf:org/name`, with the optional package
 * @huggingface/hub.
 */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { KindlingError, cancelled } from '../errors'
import type { LongCallOptions } from '../long-call'

const PREFIX = 'hf:'

/**
 * Files of a repository that a model is read from. Many repositories hold the weights in other
 * formats too.
 */
const NEEDED =
  /^(model[\w.-]*\.safetensors|model\.safetensors\.index\.json|config\.json|tokenizer\.json|vocab\.json|merges\.txt|tokenizer_config\.json|generation_config\.json|special_tokens_map\.json|chat_template\.jinja)$/

/** The hub to ask, and the token that grants access to private repositories. */
interface Access {
  hubUrl?: string
  accessToken?: string
}

/** A commit of a repository. */
interface Version extends Access {
  repo: string
  revision: string
}

/** The part of @huggingface/hub that is used here. */
interface Hub {
  modelInfo: (
    options: Access & { name: string; revision: string; additionalFields: ['sha']; fetch: Fetch },
  ) => Promise<{ sha: string }>
  listFiles: (
    options: Version & { fetch: Fetch },
  ) => AsyncIterable<{ type: string; path: string; size: number }>
  downloadFileToCacheDir: (options: Version & { path: string; fetch: Fetch }) => Promise<string>
  getHFHubCachePath: () => string
  getRepoFolderName: (repo: { name: string; type: 'model' }) => string
}

type Fetch = typeof fetch

/** A file of a model on the hub. */
export interface HubFile {
  path: string
  bytes: number
  /** The file is in the cache already. */
  isCached: boolean
}

/** A model on the hub: its commit, and those of its files that are needed. */
interface HubModel {
  hub: Hub
  version: Version
  files: HubFile[]
}

/** Returns whether a source is of the form `hf:...`. */
export function isHubSource(source: string): boolean {
  return source.startsWith(PREFIX)
}

/**
 * Returns the path of a model on this machine. A model on the hub, `hf:org/name` or
 * `hf:org/name@revision`, is downloaded to the cache that other Hugging Face tools share. Any other
 * source is returned as it is. HF_ENDPOINT names another hub, HF_TOKEN grants access.
 *
 * @throws KindlingError `ERR_UNSUPPORTED` if the package is not installed, `ERR_NOT_FOUND` if the
 * hub has no such model or cannot be reached, `ERR_CANCELLED`.
 */
export async function localPath(source: string, options: LongCallOptions = {}): Promise<string> {
  if (!isHubSource(source)) return source
  const { signal, onProgress } = options
  let thrown: { error: unknown } | undefined
  const report = (done: number, total: number): void => {
    try {
      onProgress?.(done, total)
    } catch (error) {
      thrown = { error }
      throw error
    }
  }
  try {
    return await withHub(source, options, (find) =>
      quietly(async () => download(await find(), signal, report)),
    )
  } catch (error) {
    throw thrown ? thrown.error : error
  }
}

/**
 * Lists the files of `hf:org/name` that `localPath` downloads, without downloading them.
 *
 * @throws KindlingError as `localPath`.
 */
export async function listModelFiles(
  source: string,
  options: LongCallOptions = {},
): Promise<HubFile[]> {
  return withHub(source, options, async (find) => (await find()).files)
}

/** Runs `work` with a function that asks the hub for a model. Its failures name the source. */
async function withHub<T>(
  source: string,
  { signal }: LongCallOptions,
  work: (find: () => Promise<HubModel>) => Promise<T>,
): Promise<T> {
  const [repo = '', revision = 'main'] = source.slice(PREFIX.length).split('@')
  if (!/^[\w.-]+\/[\w.-]+$/.test(repo)) {
    throw new KindlingError('ERR_INVALID_ARGUMENT', `${source} is not of the form hf:org/name`)
  }
  const hub = loadHub()
  try {
    return await work(() => findModel(hub, repo, revision, signal))
  } catch (error) {
    if (signal?.aborted) throw cancelled(signal)
    const reason = error instanceof Error ? error.message : String(error)
    throw new KindlingError(
      'ERR_NOT_FOUND',
      `cannot download ${source}: ${reason}; check the name and the network`,
      { cause: error },
    )
  }
}

async function findModel(
  hub: Hub,
  repo: string,
  revision: string,
  signal: AbortSignal | undefined,
): Promise<HubModel> {
  const { HF_ENDPOINT: hubUrl, HF_TOKEN: accessToken } = process.env
  const access: Access = { ...(hubUrl && { hubUrl }), ...(accessToken && { accessToken }) }
  const fetch = fetchWith({ signal })
  const query = { ...access, name: repo, revision, additionalFields: ['sha'] as ['sha'], fetch }
  const { sha } = await hub.modelInfo(query)
  const version = { ...access, repo, revision: sha }
  const cache = join(hub.getHFHubCachePath(), hub.getRepoFolderName({ name: repo, type: 'model' }))
  const files: HubFile[] = []
  for await (const { type, path, size } of hub.listFiles({ ...version, fetch })) {
    if (type !== 'file' || !NEEDED.test(path)) continue
    files.push({ path, bytes: size, isCached: existsSync(join(cache, 'snapshots', sha, path)) })
  }
  if (files.some(({ path }) => path === 'config.json')) return { hub, version, files }
  throw new Error('it has no config.json; download a GGUF file yourself, and give its path')
}

/** Downloads the files that are not in the cache. Returns their folder. */
async function download(
  model: HubModel,
  signal: AbortSignal | undefined,
  report: (done: number, total: number) => void,
): Promise<string> {
  const { hub, version, files } = model
  const total = files.reduce((sum, { bytes, isCached }) => sum + (isCached ? 0 : bytes), 0)
  let folder = ''
  let finished = 0
  for (const { path, bytes, isCached } of files) {
    let received = 0
    const fetch = fetchWith({
      signal,
      onBytes: (count) => {
        received += count
        // A compressed transfer and a repeated request count other bytes than the file has.
        report(finished + Math.min(received, bytes), total)
      },
    })
    folder = dirname(await hub.downloadFileToCacheDir({ ...version, path, fetch }))
    if (isCached) continue
    finished += bytes
    report(finished, total)
  }
  return folder
}

/** Returns a `fetch` that `signal` cancels and that reports the bytes of the bodies it receives. */
function fetchWith(options: {
  signal: AbortSignal | undefined
  onBytes?: (count: number) => void
}): Fetch {
  const { signal, onBytes } = options
  return async (input, init) => {
    const signals = [init?.signal, signal].filter((given) => given instanceof AbortSignal)
    const response = await fetch(input, { ...init, signal: AbortSignal.any(signals) })
    if (!onBytes || !response.body) return response
    const counting = new TransformStream<Uint8Array, Uint8Array>({
      transform: (chunk, controller) => {
        onBytes(chunk.length)
        controller.enqueue(chunk)
      },
    })
    return new Response(response.body.pipeThrough(counting), response)
  }
}

/** What the package logs with console.debug for each file that it downloads. */
const DOWNLOAD_MESSAGE = /^Downloading .+ to /

const { console: messages } = globalThis

/** Number of downloads in progress, and the original console.debug while there are any. */
const quiet = { running: 0, debug: messages.debug }

/**
 * Keeps the package's messages off standard output, which is for the result of a command. The
 * package has no setting for that. Other messages are passed on.
 */
async function quietly<T>(work: () => Promise<T>): Promise<T> {
  if (quiet.running++ === 0) {
    const { debug } = messages
    quiet.debug = debug
    messages.debug = (...message: unknown[]) => {
      const [first] = message
      if (typeof first !== 'string' || !DOWNLOAD_MESSAGE.test(first)) debug(...message)
    }
  }
  try {
    return await work()
  } finally {
    if (--quiet.running === 0) messages.debug = quiet.debug
  }
}

function loadHub(): Hub {
  try {
    // eslint-disable-next-line @typescript-eslint/no-require-imports
    return require('@huggingface/hub') as Hub
  } catch (error) {
    throw new KindlingError(
      'ERR_UNSUPPORTED',
      'hf: sources need the package @huggingface/hub; run npm install @huggingface/hub, or ' +
        'download the model and give its folder',
      { cause: error },
    )
  }
}
