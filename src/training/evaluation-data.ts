/** The tokens to evaluate a model on: a store in any of its forms, or text, encoded on the fly. */
import { existsSync, readdirSync, statSync } from 'node:fs'
import { extname, join } from 'node:path'
import { findFiles, isPattern, type FoundFiles } from '../corpus-files'
import { KindlingError, fromNative } from '../errors'
import { withTemporaryFolder } from '../files'
import type { LongCallOptions } from '../long-call'
import { evaluationStore } from '../store-paths'
import { TokenStore } from '../token-store'
import type { Tokenizer } from '../tokenizer'

const ACCEPTED =
  'the output folder of `kindling encode`, a _chunks folder, a .npy, a .bin of uint16 ids, or text ' +
  '(files, a pattern or a folder)'

/** Options of `withEvaluationData`. */
export interface EvaluationDataOptions extends LongCallOptions {
  /** The model's tokenizer, which text needs. */
  tokenizer: Tokenizer | null
  /** The JSON Lines field or Parquet column that holds the text. */
  textField?: string
  /** Receives sentences for people. */
  message: (text: string) => void
}

/**
 * Opens the store at `path` and passes it to `work`. Text is first encoded into a temporary folder,
 * which is removed afterwards.
 *
 * @throws KindlingError `ERR_NOT_FOUND` naming what is accepted, `ERR_INVALID_TOKENIZER` for a store
 * of another tokenizer, and those of stores and encoding.
 */
export async function withEvaluationData<T>(
  path: string,
  options: EvaluationDataOptions,
  work: (store: TokenStore) => Promise<T>,
): Promise<T> {
  const { tokenizer, message, ...encoding } = options
  if (isStore(path)) {
    const store = await TokenStore.open(evaluationStore(path))
    const { tokenizerHash } = store.metadata
    if (tokenizer === null || tokenizerHash === null || tokenizerHash === tokenizer.hash) {
      return work(store)
    }
    throw new KindlingError(
      'ERR_INVALID_TOKENIZER',
      `${store.path} was not encoded with the model's tokenizer; give the text ` +
        "itself, or encode it with the model's tokenizer",
    )
  }
  const { files, notes } = await findText(path)
  for (const note of notes) message(note)
  if (tokenizer === null) {
    throw new KindlingError(
      'ERR_NOT_FOUND',
      `${path} is text, but the model has no tokenizer to encode it with; give a store of token ids`,
    )
  }
  return withTemporaryFolder('eval', async (folder) => {
    const out = join(folder, 'text_chunks')
    return work(await TokenStore.encode(files, tokenizer, out, encoding))
  })
}

/** Returns whether a path is a token store, judging by file names alone. */
function isStore(path: string): boolean {
  if (['.npy', '.bin'].includes(extname(path).toLowerCase())) return true
  if (!existsSync(path) || !statSync(path).isDirectory()) return false
  if (evaluationStore(path) !== path || path.replace(/\/+$/, '').endsWith('_chunks')) return true
  return readdirSync(path).some((name) => name === 'store.json' || name.endsWith('.dat'))
}

async function findText(path: string): Promise<FoundFiles> {
  if (!existsSync(path) && !isPattern(path)) throw notFound(path, 'no such file or folder')
  return findFiles([path]).catch((error: unknown) => {
    const { code, message } = fromNative(error)
    throw code === 'ERR_NOT_FOUND' ? notFound(path, message) : error
  })
}

function notFound(path: string, reason: string): KindlingError {
  return new KindlingError(
    'ERR_NOT_FOUND',
    `cannot evaluate on ${path} (${reason}); --data takes ${ACCEPTED}`,
  )
}
