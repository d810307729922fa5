/**
 * The stores of a corpus that `--corpus` names: encoded once into a folder of the data folder,
 * with corpus.json saying what from, and reused while that agrees.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename, extname, join, resolve } from 'node:path'
import { toSnakeCase } from '../case'
import { STDIN, endsDocuments, findFiles, isPattern, type FoundFiles } from '../corpus-files'
import { KindlingError } from '../errors'
import { fileOperation, readText, writeFileAtomic } from '../files'
import { shortHash } from '../short-hash'
import { TokenStore } from '../token-store'
import { Tokenizer } from '../tokenizer'

/** Fraction of a corpus that is held out for validation. */
const VALID_FRACTION = 0.05
const RECORD = 'corpus.json'

/** Reports how much of a corpus has been read, in bytes. */
export type CorpusProgress = (what: string, done: number, total: number) => void

/** What a corpus is, and how it is encoded. */
export interface CorpusEncoding {
  /** Files, patterns and folders. */
  names: readonly string[]
  /** The folder that holds the folders of all corpora. */
  dataDir: string
  /** A tokenizer, or what to train one with on this corpus. */
  tokenizer: Tokenizer | { vocabSize: number; specialTokens: readonly string[] }
  chunkSize: number
  /** The JSON Lines field or Parquet column that holds the text. */
  textField: string
  /** End documents with `<|endoftext|>`; undefined for the default of the files. */
  appendEot: boolean | undefined
}

/** A place for stores that are only looked at. */
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
 * Contents of corpus.json: what the stores next to it were made from. The file has `stores` as well,
 * a hash that tells these stores from others at the same place.
 */
interface CorpusRecord {
  formatVersion: 2
  /** Absolute names as given: files, patterns, folders. */
  names: string[]
  files: { path: string; size: number; modifiedMs: number }[]
  textField: string
  appendEot: boolean
  /** Hash of the tokenizer given, or vocabulary size and special tokens of the one trained here. */
  tokenizer: string
}

/**
 * Returns the folder with the stores and the tokenizer of a corpus; they are made if there are none
 * or if the files, the tokenizer or the options are others than those they were made from.
 *
 * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_ARGUMENT`, and those of encoding.
 */
export async function encodeCorpus(
  encoding: CorpusEncoding,
  report: CorpusReport,
): Promise<string> {
  const found = await findCorpus(encoding.names)
  for (const note of found.notes) report.message(note)
  const folder = corpusFolder(encoding)
  const record = toSnakeCase(await recordOf(encoding, found))
  if (isCurrent(folder, record)) return folder
  const { scratch } = report
  if (scratch) {
    scratch.instead(folder)
    await encodeInto(scratch.folder, encoding, found, report)
    return scratch.folder
  }
  await encodeInto(folder, encoding, found, report)
  const text = JSON.stringify({ ...record, stores: hashOfStores(folder) }, null, 2)
  await writeFileAtomic(join(folder, RECORD), `${text}\n`)
  return folder
}

async function findCorpus(names: readonly string[]): Promise<FoundFiles> {
  if (names.includes(STDIN)) {
    throw new KindlingError(
      'ERR_INVALID_ARGUMENT',
      'standard input (-) cannot be a corpus, which is read more than once; ' +
        'encode it first (kindling encode -), and train on that (--data)',
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
 * The folder of a corpus's stores: named after what was given first, and with a hash of all names
 * if that folder belongs to another corpus or to stores that were made otherwise.
 */
function corpusFolder({ dataDir, names }: CorpusEncoding): string {
  const more = names.length > 1 ? `-and-${names.length - 1}-more` : ''
  const folder = join(dataDir, `${stemOf(names[0]!)}${more}`)
  const paths = names.map((name) => resolve(name))
  const owner = ownerOf(folder)
  if (owner === null || JSON.stringify(owner) === JSON.stringify(paths)) return folder
  return `${folder}-${shortHash(paths.join('\0'))}`
}

/** `book` of `a/book.txt` and `a/book.jsonl.gz`, `web` of the folder `web` and of `web/*.txt`. */
function stemOf(name: string): string {
  if (isPattern(name) && !existsSync(name)) {
    const start = name.split('/').findIndex(isPattern)
    return basename(resolve(name.split('/').slice(0, start).join('/') || '.')) || 'corpus'
  }
  const base = basename(resolve(name))
  const plain = /\.(gz|zst)$/i.test(base) ? base.slice(0, base.lastIndexOf('.')) : base
  return basename(plain, extname(plain)) || 'corpus'
}

/** The names that the stores in a folder were made from; null without stores, [] if unknown. */
function ownerOf(folder: string): string[] | null {
  if (!existsSync(join(folder, 'train_chunks'))) return null
  // Version 1 has the one file of the corpus.
  const { names, file } = readRecord(folder) ?? {}
  return [names ?? file ?? []].flat().map(String)
}

/** Returns true if the stores in a folder were made from what `record` says. */
function isCurrent(folder: string, record: object): boolean {
  if (!existsSync(join(folder, 'train_chunks'))) return false
  return JSON.stringify(readRecord(folder)) === JSON.stringify(record)
}

/**
 * Reads the corpus.json of a folder without its hash; null if it is missing, damaged, or of other
 * stores: `kindling encode` has replaced them, or a process was killed before it wrote the record.
 */
function readRecord(folder: string): Record<string, unknown> | null {
  try {
    const text = readText(join(folder, RECORD), 'ERR_INVALID_STORE')
    const { stores, ...record } = JSON.parse(text) as Record<string, unknown>
    // Older records have no hash.
    return stores === undefined || stores === hashOfStores(folder) ? record : null
  } catch {
    return null
  }
}

/** Hashes the metadata of the stores in a folder, which has the checksums of their tokens. */
function hashOfStores(folder: string): string {
  const files = ['train_chunks', 'valid_chunks'].map((name) => join(folder, name, 'store.json'))
  const hash = createHash('sha256')
  for (const file of files.filter(existsSync)) hash.update(readText(file, 'ERR_INVALID_STORE'))
  return hash.digest('hex')
}
