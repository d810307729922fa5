/**
 * The stores of a corpus that `--corpus` names: encoded once into a folder of the data folder,
 * with corpus.json saying what from, and reused while that agrees.
 */
import { existsSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { basename, dirname, extname, join, resolve } from 'node:path'
import { toSnakeCase } from '../case'
import { STDIN, endsDocuments, findFiles, isPattern, type FoundFiles } from '../corpus-files'
import { KindlingError } from '../errors'
import { fileOperation, writeFileAtomic } from '../files'
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

/** Contents of corpus.json: what the stores next to it were made from. */
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
  const folder = await corpusFolder(encoding)
  const recordPath = join(folder, RECORD)
  const recordText = JSON.stringify(toSnakeCase(await recordOf(encoding, found)), null, 2)
  if (await isCurrent(recordPath, recordText)) return folder
  const { scratch } = report
  if (scratch) {
    scratch.instead(folder)
    await encodeInto(scratch.folder, encoding, found, report)
    return scratch.folder
  }
  await encodeInto(folder, encoding, found, report)
  await writeFileAtomic(recordPath, `${recordText}\n`)
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
async function corpusFolder({ dataDir, names }: CorpusEncoding): Promise<string> {
  const more = names.length > 1 ? `-and-${names.length - 1}-more` : ''
  const folder = join(dataDir, `${stemOf(names[0]!)}${more}`)
  const paths = names.map((name) => resolve(name))
  const owner = await ownerOf(folder)
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
async function ownerOf(folder: string): Promise<string[] | null> {
  if (!existsSync(join(folder, 'train_chunks'))) return null
  try {
    const text = await readFile(join(folder, RECORD), 'utf8')
    // Version 1 has the one file of the corpus.
    const { names, file } = JSON.parse(text) as { names?: unknown; file?: unknown }
    return [names ?? file ?? []].flat().map(String)
  } catch {
    return []
  }
}

/** Returns true if the stores next to `recordPath` were made from what `recordText` says. */
async function isCurrent(recordPath: string, recordText: string): Promise<boolean> {
  if (!existsSync(recordPath) || !existsSync(join(dirname(recordPath), 'train_chunks')))
    return false
  try {
    return (await readFile(recordPath, 'utf8')).trim() === recordText
  } catch {
    return false
  }
}
