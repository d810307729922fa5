/** Models of Hugging Face's hub, `hf:org/name`, through the optional package @huggingface/hub. */
import { dirname } from 'node:path'
import { KindlingError } from '../errors'

const PREFIX = 'hf:'

/** Files of a repository that a model is read from. Many hold other formats of the weights too. */
const NEEDED =
  /^(model[\w.-]*\.safetensors|model\.safetensors\.index\.json|config\.json|tokenizer\.json|vocab\.json|merges\.txt|tokenizer_config\.json|generation_config\.json|special_tokens_map\.json|chat_template\.jinja)$/

/** The address of the hub and the right to read from it, as its other programs take them. */
interface Access {
  hubUrl?: string
  accessToken?: string
}

/** The part of @huggingface/hub that is used here. */
interface Hub {
  modelInfo: (
    options: Access & { name: string; revision: string; additionalFields: ['sha'] },
  ) => Promise<{ sha: string }>
  listFiles: (
    options: Access & { repo: string; revision: string },
  ) => AsyncIterable<{ type: string; path: string }>
  downloadFileToCacheDir: (
    options: Access & { repo: string; revision: string; path: string },
  ) => Promise<string>
}

/**
 * Returns the path of a model on this machine: of `hf:org/name` or `hf:org/name@revision`, the
 * folder in the cache of Hugging Face's programs that its files are downloaded to; of any other
 * source, the source itself. HF_ENDPOINT names another hub, HF_TOKEN gives access.
 *
 * @throws KindlingError `ERR_UNSUPPORTED` if the package is not installed, `ERR_NOT_FOUND` if the
 * hub has no such model or cannot be reached.
 */
export async function localPath(source: string): Promise<string> {
  if (!source.startsWith(PREFIX)) return source
  const [repo = '', revision = 'main'] = source.slice(PREFIX.length).split('@')
  if (!/^[\w.-]+\/[\w.-]+$/.test(repo)) {
    throw new KindlingError('ERR_INVALID_ARGUMENT', `${source} is not of the form hf:org/name`)
  }
  const hub = loadHub()
  try {
    return await quietly(() => download(hub, repo, revision))
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new KindlingError(
      'ERR_NOT_FOUND',
      `cannot download ${source}: ${reason}; check the name and the network`,
      { cause: error },
    )
  }
}

/** Downloads what is not in the cache yet. Returns the folder. */
async function download(hub: Hub, repo: string, revision: string): Promise<string> {
  const { HF_ENDPOINT: hubUrl, HF_TOKEN: accessToken } = process.env
  const access: Access = { ...(hubUrl && { hubUrl }), ...(accessToken && { accessToken }) }
  const info = await hub.modelInfo({ ...access, name: repo, revision, additionalFields: ['sha'] })
  const version = { ...access, repo, revision: info.sha }
  let config: string | undefined
  for await (const { type, path } of hub.listFiles(version)) {
    if (type !== 'file' || !NEEDED.test(path)) continue
    const file = await hub.downloadFileToCacheDir({ ...version, path })
    if (path === 'config.json') config = file
  }
  if (config !== undefined) return dirname(config)
  throw new Error('it has no config.json; download a GGUF file yourself, and give its path')
}

/** What the package says of each file that it downloads, by console.debug. */
const DOWNLOAD_MESSAGE = /^Downloading .+ to /

const { console: messages } = globalThis

/** Downloads that run now, and the console's function while they do. */
const quiet = { running: 0, debug: messages.debug }

/**
 * Keeps the package's messages off standard output, which belongs to the result of a command. It
 * has no setting for that. Messages of others are passed on.
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
