/**
 * Identifies the contents of token stores. A run records the identity of its stores, so that it is
 * not resumed on other data.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { KindlingError } from '../errors'
import { readText } from '../files'
import type { TokenStore } from '../token-store'
import type { DataSource } from './data-source'
import type { RunConfig, StoreIdentity } from './run-config'

/** Number of places in a store whose tokens are hashed, and tokens at each of them. */
const PLACES = 64
const TOKENS = 256

const checksumsSchema = z.looseObject({ checksums: z.array(z.string()).default([]) })

/** Returns the identity of a store: its length, and hashes of its tokens. */
export function identityOf(store: TokenStore): StoreIdentity {
  const { length, dtype, chunkSize, tokenizerHash } = store.metadata
  const chunks = chunksHash(store.path)
  return { length, dtype, chunkSize, tokenizerHash, sample: sampleHash(store), chunks }
}

/** Returns the identities of a run's stores. */
export function identitiesOf({ train, valid }: DataSource): NonNullable<RunConfig['identity']> {
  return {
    train: train.map(({ store }) => identityOf(store)),
    valid: valid === null ? null : identityOf(valid),
  }
}

/**
 * Checks that the stores of a resumed run are those that it started with.
 *
 * @throws KindlingError `ERR_RESUME_MISMATCH` naming each store and what differs.
 */
export function checkIdentities(config: RunConfig, data: DataSource): void {
  const { identity } = config
  if (identity === undefined) return
  const saved = [...identity.train, ...(identity.valid ? [identity.valid] : [])]
  const stores = data.train.map(({ store }) => store)
  if (data.valid && identity.valid) stores.push(data.valid)
  const problems: string[] = []
  for (const [i, store] of stores.entries()) {
    const differences = differencesOf(saved[i]!, identityOf(store))
    if (differences.length > 0) problems.push(`${store.path}: ${differences.join(', ')}`)
  }
  if (problems.length > 0) throw otherData(problems, 'start a new run')
}

/**
 * Checks that the validation store of a run is the one that it started with.
 *
 * @throws KindlingError `ERR_RESUME_MISMATCH` naming what differs.
 */
export function checkValidation({ identity }: RunConfig, store: TokenStore): void {
  if (!identity?.valid) return
  const differences = differencesOf(identity.valid, identityOf(store))
  if (differences.length === 0) return
  throw otherData([`${store.path}: ${differences.join(', ')}`], 'give other data (--data)')
}

function otherData(problems: string[], instead: string): KindlingError {
  return new KindlingError(
    'ERR_RESUME_MISMATCH',
    `the data is not the data that the run was trained on (${problems.join('; ')}); ` +
      `restore the data, or ${instead}`,
  )
}

function differencesOf(saved: StoreIdentity, now: StoreIdentity): string[] {
  const differences: string[] = []
  const differs = (what: string, a: unknown, b: unknown): void => {
    if (a !== b) differences.push(`${what} ${String(a)} is now ${String(b)}`)
  }
  differs('length', saved.length, now.length)
  differs('dtype', saved.dtype, now.dtype)
  differs('tokenizer', saved.tokenizerHash, now.tokenizerHash)
  if (differences.length > 0) return differences
  // With another chunk size the checksums differ even if the tokens are the same.
  const comparable =
    saved.chunks !== null && now.chunks !== null && saved.chunkSize === now.chunkSize
  const chunksDiffer = comparable && saved.chunks !== now.chunks
  return saved.sample !== now.sample || chunksDiffer ? ['other tokens'] : []
}

/** Hashes tokens at places spread over a store. */
function sampleHash(store: TokenStore): string {
  const hash = createHash('sha256')
  const last = Math.max(0, store.length - TOKENS)
  const starts = Array.from({ length: PLACES }, (_, i) => Math.floor((i * last) / (PLACES - 1)))
  for (const start of new Set(starts)) {
    hash.update(store.loadByRange(start, Math.min(store.length, start + TOKENS)))
  }
  return hash.digest('hex')
}

/** Hashes the checksums of the chunks in store.json; null without them. */
function chunksHash(path: string): string | null {
  const file = join(path, 'store.json')
  if (!existsSync(file)) return null
  try {
    const { checksums } = checksumsSchema.parse(JSON.parse(readText(file, 'ERR_INVALID_STORE')))
    if (checksums.length === 0) return null
    return createHash('sha256').update(JSON.stringify(checksums)).digest('hex')
  } catch {
    // TokenStore.open has read the file already, and reports damage.
    return null
  }
}
