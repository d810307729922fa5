/**
 * The files of a corpus, as commands and the library name them: files, patterns (`web/*.jsonl`),
 * folders, or `-` for standard input.
 */
import { readdir, stat } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { KindlingError, settle } from './errors'
import { fileOperation } from './files'
import { native } from './native'

/** Standard input, as a file name. */
export const STDIN = '-'

/** Format of the files, once decompressed. */
export type CorpusFormat = 'text' | 'jsonl' | 'parquet'

/** Ends of the names of text files, and of JSON Lines; each may be compressed. */
const TEXT_ENDINGS = ['.txt', '.text', '.md', '.markdown', '.rst', '.adoc', '.org', '.tex']
const LINE_ENDINGS = ['.jsonl', '.ndjson']
const COMPRESSED = ['.gz', '.zst']
/** In large corpora, compressed .json files are JSON Lines; uncompressed ones are usually not. */
const COMPRESSED_LINES = '.json'
/**
 * Files that mark folders written by Kindling (stores, tokenizers and runs), which hold no text.
 */
const OWN_FILES = ['store.json', 'train_chunks', 'vocab.json', 'metrics.jsonl']

/** The files that names refer to. */
export interface FoundFiles {
  /** In the order of the names; those of a pattern or a folder are sorted. */
  files: string[]
  /** The format of all files; undefined if each file's name decides. */
  format: CorpusFormat | undefined
  /** A sentence for each folder: how many files were taken from it, and how many were not. */
  notes: string[]
}

/**
 * Finds the files that names refer to. A folder means all text files in it and its subfolders:
 * text, Markdown, JSON Lines and Parquet, plain or compressed. Hidden files, links to folders and
 * the folders that Kindling writes are left out.
 *
 * @param format - the format of all files. Default: by their names.
 * @throws KindlingError `ERR_NOT_FOUND` if a pattern matches nothing or a folder has no text file,
 * `ERR_INVALID_ARGUMENT` if a pattern is malformed, or if the names do not determine the format.
 */
export async function findFiles(
  names: readonly string[],
  format?: CorpusFormat,
): Promise<FoundFiles> {
  const files: string[] = []
  const notes: string[] = []
  for (const name of names) {
    if (await isFolder(name)) {
      const found = await filesBelow(name)
      files.push(...found.taken)
      notes.push(folderNote(name, found))
    } else {
      files.push(...(await settle(async () => native.expandFiles([name]))))
    }
  }
  return { files, format: format ?? commonFormat(files), notes }
}

/** Returns only the files that `findFiles` finds. */
export async function expandFiles(names: readonly string[]): Promise<string[]> {
  return (await findFiles(names)).files
}

/** Returns the format of a file by its name: `book.jsonl.gz` is `jsonl`, and so is `c4.json.gz`. */
export function formatOfName(name: string): CorpusFormat {
  const { ending, isCompressed } = endingOf(name)
  if (ending === '.parquet' && !isCompressed) return 'parquet'
  const isLines = LINE_ENDINGS.includes(ending) || (isCompressed && ending === COMPRESSED_LINES)
  return isLines ? 'jsonl' : 'text'
}

/**
 * Returns the one format of the files, if they have one.
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT` if compressed JSON is mixed with other files,
 * because the engine recognizes JSON Lines by other names only.
 */
function commonFormat(files: readonly string[]): CorpusFormat | undefined {
  const formats = new Set(files.map(formatOfName))
  if (formats.size <= 1) return [...formats][0]
  const json = files.find((file) => endingOf(file).ending === COMPRESSED_LINES)
  if (json === undefined) return undefined
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `${json} and files of another format cannot be read together; rename it to .jsonl.gz if it ` +
      'holds JSON Lines, or give files of one format only',
  )
}

/**
 * Returns whether `<|endoftext|>` is added after each document by default: true for JSON Lines,
 * Parquet and several files. A single text file is left as it is, as in the course.
 */
export function endsDocuments(files: readonly string[], format?: CorpusFormat): boolean {
  return files.length > 1 || files.some((file) => (format ?? formatOfName(file)) !== 'text')
}

/** Returns whether a name is a pattern, such as `*.txt`, rather than an existing file. */
export function isPattern(name: string): boolean {
  return /[*?[]/.test(name)
}

/** Returns the extension of a name, in lower case, without that of the compression. */
function endingOf(name: string): { ending: string; isCompressed: boolean } {
  const lower = name.toLowerCase()
  const last = extname(lower)
  const isCompressed = COMPRESSED.includes(last)
  return { ending: isCompressed ? extname(lower.slice(0, -last.length)) : last, isCompressed }
}

async function isFolder(name: string): Promise<boolean> {
  return stat(name).then(
    (status) => status.isDirectory(),
    () => false,
  )
}

async function isFile(name: string): Promise<boolean> {
  return stat(name).then(
    (status) => status.isFile(),
    () => true,
  )
}

interface FolderFiles {
  taken: string[]
  others: string[]
}

async function filesBelow(folder: string): Promise<FolderFiles> {
  const taken: string[] = []
  const others: string[] = []
  const waiting = [folder]
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const path = next
    const entries = await fileOperation('read', path, () => readdir(path, { withFileTypes: true }))
    if (path !== folder && entries.some(({ name }) => OWN_FILES.includes(name))) continue
    for (const entry of entries) {
      const file = join(path, entry.name)
      if (entry.name.startsWith('.')) continue
      if (entry.isDirectory()) waiting.push(file)
      else if (entry.isSymbolicLink() && (await isFolder(file))) continue
      // A pipe or a device would never end.
      else (isTaken(entry.name) && (await isFile(file)) ? taken : others).push(file)
    }
  }
  if (taken.length === 0) {
    throw new KindlingError(
      'ERR_NOT_FOUND',
      `${folder} has no text file (${[...TEXT_ENDINGS, ...LINE_ENDINGS].join(' ')} .parquet, or ` +
        `.gz and .zst of these); name the files, or a pattern such as '${join(folder, '**/*.py')}'`,
    )
  }
  return { taken: taken.sort(), others }
}

function isTaken(name: string): boolean {
  return formatOfName(name) !== 'text' || TEXT_ENDINGS.includes(endingOf(name).ending)
}

function folderNote(folder: string, { taken, others }: FolderFiles): string {
  const kinds = (files: readonly string[]): string => {
    const endings = files.map((file) => extname(file).toLowerCase() || 'no ending')
    const names = [...new Set(endings)].sort()
    return names.length > 6 ? `${names.slice(0, 6).join(' ')} ...` : names.join(' ')
  }
  const left = others.length === 0 ? '' : `; left out ${others.length} others (${kinds(others)})`
  return `${folder}: ${taken.length} text file${taken.length === 1 ? '' : 's'} (${kinds(taken)})${left}`
}
