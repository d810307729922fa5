/**
 * Encodes the text that `--corpus` names into a folder inside the data folder. corpus.json there
 * records what the stores were made from, and they are reused as long as it matches.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { rmdir, stat } from 'node:fs/promises'
import { basename, extname, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { toCamelCase, toSnakeCase } from '../case'
import { STDIN, endsDocuments, findFiles, isPattern, type FoundFiles } from '../corpus-files'
import { KindlingError, cancelled } from '../errors'
import { fileOperation, makeFolder, readText, writeFileAtomic } from '../files'
import { shortHash } from '../short-hash'
import { TokenStore } from '../token-store'
import { Tokenizer } from '../tokenizer'
import { RunLock, lockOwner } from './run-lock'

/** Fraction of a corpus that is held out for validation. */
const VALID_FRACTION = 0.05
const RECORD = 'corpus.json'
/** Time between two checks of another process's lock. */
const WAIT_MS = 200

/** Reports how much of a corpus has been read, in bytes. */
export type CorpusProgress = (what: string, done: number, total: number) => void

/** A corpus and how to encode it. */
export interface CorpusEncoding {
  /** Files, patterns and folders. */
  names: readonly string[]
  /** The folder that holds the folders of all corpora. */
  dataDir: string
  /** A tokenizer, or the options for training one on this corpus. */
  tokenizer: Tokenizer | { vocabSize: number; specialTokens: readonly string[] }
  chunkSize: number
  /** The JSON Lines field or Parquet column that holds the text. */
  textField: string
  /** End documents with `<|endoftext|>`; undefined for the default of the files. */
  appendEot: boolean | undefined
}

/** A temporary place for the stores of a dry run. */
export interface Scratch {
  folder: string
  /** Receives the folder that the stores would otherwise be written to. */
  instead: (folder: string) => void
}

/** Callbacks while a corpus is encoded, and its cancellation. */
export interface CorpusReport {
  message: (text: string) => void
  progress: CorpusProgress
  scratch?: Scratch | undefined
  signal?: AbortSignal | undefined
}

/**
 * What the stores next to corpus.json were made from. The file also has the field `stores`, a hash
 * that distinguishes them from other stores at the same place.
 */
interface CorpusRecord {
  formatVersion: 2
  /** The files, patterns and folders given, as absolute paths. */
  names: string[]
  files: { path: string; size: number; modifiedMs: number }[]
  textField: string
  appendEot: boolean
  /** Hash of the tokenizer given, or vocabulary size and special tokens of the one trained here. */
  tokenizer: string
}

/**
 * Returns the folder with the stores and the tokenizer of a corpus. Encodes the corpus first if it
 * has not been encoded yet, or if its files, the tokenizer or the options have changed since.
 *
 * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_ARGUMENT`, and those of encoding.
 */
export async function encodeCorpus(
  encoding: CorpusEncoding,
  report: CorpusReport,
): Promise<string> {
  const found = await findCorpus(encoding.names)
  for (const note of found.notes) report.message(note)
  const record = await recordOf(encoding, found)
  const { scratch } = report
  for (;;) {
    const folder = corpusFolder(encoding, record)
    if (isCurrent(folder, record)) return folder
    if (scratch) {
      scratch.instead(folder)
      await encodeInto(scratch.folder, encoding, found, report)
      return scratch.folder
    }
    const isMade = await withLock(folder, report, async () => {
      // Another process may have written there while this one waited for the lock.
      if (isCurrent(folder, record) || corpusFolder(encoding, record) !== folder) return false
      await encodeInto(folder, encoding, found, report)
      const stores = hashOfStores(folder)
      const text = JSON.stringify(toSnakeCase({ ...record, stores }), null, 2)
      await writeFileAtomic(join(folder, RECORD), `${text}\n`)
      return true
    })
    if (isMade) return folder
  }
}

/**
 * Runs `work` while no other process writes to the folder, so that two processes do not encode the
 * same corpus and one does not replace stores that the other has opened. Leaves no empty folder
 * behind.
 */
async function withLock<T>(
  folder: string,
  report: CorpusReport,
  work: () => Promise<T>,
): Promise<T> {
  const made = await makeFolder(folder)
  let lock: RunLock | undefined
  try {
    lock = await lockWhenFree(folder, report)
    return await work()
  } finally {
    lock?.release()
    for (const path of made.toReversed()) await rmdir(path).catch(() => {})
  }
}

async function lockWhenFree(folder: string, { message, signal }: CorpusReport): Promise<RunLock> {
  for (let isTold = false; ; await sleep(WAIT_MS)) {
    if (signal?.aborted) throw cancelled(signal)
    const owner = lockOwner(folder)
    if (owner?.isAlive) {
      const { pid, host } = owner
      if (!isTold) message(`waiting for process ${pid} on ${host}, which writes to ${folder}`)
      isTold = true
      continue
    }
    try {
      return RunLock.take(folder)
    } catch (error) {
      // Another process was faster, unless the file is not a lock at all.
      if (existsSync(join(folder, 'lock')) && lockOwner(folder) === null) throw error
    }
  }
}

async function findCorpus(names: readonly string[]): Promise<FoundFiles> {
  if (names.includes(STDIN)) {
    throw new KindlingError(
      'ERR_INVALID_ARGUMENT',
      'standard input (-) cannot be a corpus, because a corpus is read more than once; ' +
        'encode it first (kindling encode -), then train on the result (--data)',
    )
  }
  return findFiles(names)
}

async function recordOf(
  { names, tokenizer, textField, appendEot }: CorpusEncoding,
  { files, format }: FoundFiles,
): Promise<CorpusRecord> {
  return {
    formatVersion: 2,
    names: names.map((name) => resolve(name)),
    files: await Promise.all(files.map(recordOfFile)),
    textField,
    appendEot: appendEot ?? endsDocuments(files, format),
    tokenizer:
      tokenizer instanceof Tokenizer
        ? tokenizer.hash
        : JSON.stringify([tokenizer.vocabSize, tokenizer.specialTokens]),
  }
}

async function recordOfFile(file: string): Promise<CorpusRecord['files'][number]> {
  if (!existsSync(file)) {
    throw new KindlingError('ERR_NOT_FOUND', `corpus ${file} does not exist; check the path`)
  }
  const { size, mtimeMs } = await fileOperation('read', file, () => stat(file))
  return { path: resolve(file), size, modifiedMs: mtimeMs }
}

async function encodeInto(
  folder: string,
  { tokenizer: given, chunkSize, textField, appendEot }: CorpusEncoding,
  { files, format }: FoundFiles,
  { progress, signal }: CorpusReport,
): Promise<void> {
  const reading = { textField, ...(format && { format }), ...(signal && { signal }) }
  const tokenizer =
    given instanceof Tokenizer
      ? given
      : await Tokenizer.train(files, {
          ...{ ...given, ...reading },
          onProgress: (done, total) => progress('training the tokenizer', done, total),
        })
  await TokenStore.encodeFiles(files, tokenizer, folder, {
    ...{ chunkSize, validFraction: VALID_FRACTION, ...reading },
    ...(appendEot !== undefined && { appendEot }),
    // The next run continues where an interrupted one stopped.
    keepWhenAborted: true,
    onProgress: (done, total) => progress('encoding the corpus', done, total),
  })
}

/**
 * Returns the folder for a corpus's stores, named after the first of the names given. A hash is
 * appended if that folder holds stores of another corpus, of the same corpus encoded differently,
 * or of unknown origin. So a run can be resumed even after another run encoded the same text with
 * another tokenizer.
 */
function corpusFolder({ dataDir, names }: CorpusEncoding, record: CorpusRecord): string {
  const more = names.length > 1 ? `-and-${names.length - 1}-more` : ''
  const folder = join(dataDir, `${stemOf(names[0]!)}${more}`)
  const key = keyOf(record)
  if (!existsSync(join(folder, 'train_chunks'))) return folder
  const owner = readRecord(folder)
  return owner !== null && keyOf(owner) === key ? folder : `${folder}-${shortHash(key)}`
}

/** Returns what identifies a corpus and its encoding, regardless of the contents of its files. */
function keyOf({ names, textField, appendEot, tokenizer }: Partial<CorpusRecord>): string {
  return JSON.stringify([names, textField, appendEot, tokenizer])
}

/**
 * Returns `book` for `a/book.txt` and `a/book.jsonl.gz`, `web` for the folder `web` and for
 * `web/*.txt`.
 */
function stemOf(name: string): string {
  if (isPattern(name) && !existsSync(name)) {
    const start = name.split('/').findIndex(isPattern)
    return basename(resolve(name.split('/').slice(0, start).join('/') || '.')) || 'corpus'
  }
  const base = basename(resolve(name))
  const plain = /\.(gz|zst)$/i.test(base) ? base.slice(0, base.lastIndexOf('.')) : base
  return basename(plain, extname(plain)) || 'corpus'
}

/** Returns true if the stores in a folder were made from what `record` describes. */
function isCurrent(folder: string, record: CorpusRecord): boolean {
  if (!existsSync(join(folder, 'train_chunks'))) return false
  return JSON.stringify(readRecord(folder)) === JSON.stringify(record)
}

/**
 * Reads the corpus.json of a folder, without the hash of the stores. Returns null if it is missing
 * or damaged, or if the hash shows that it describes other stores: `kindling encode` replaced them,
 * or a process was killed before it wrote the record.
 */
function readRecord(folder: string): Partial<CorpusRecord> | null {
  try {
    const text = readText(join(folder, RECORD), 'ERR_INVALID_STORE')
    const json = toCamelCase(JSON.parse(text) as object)
    const { stores, ...record } = json as Partial<CorpusRecord> & { stores?: unknown }
    // Older records have no hash.
    return stores === undefined || stores === hashOfStores(folder) ? record : null
  } catch {
    return null
  }
}

/** Hashes the metadata of the stores in a folder, which includes the checksums of their tokens. */
function hashOfStores(folder: string): string {
  const files = ['train_chunks', 'valid_chunks'].map((name) => join(folder, name, 'store.json'))
  const hash = createHash('sha256')
  for (const file of files.filter(existsSync)) hash.update(readText(file, 'ERR_INVALID_STORE'))
  return hash.digest('hex')
}
