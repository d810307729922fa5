/** Finds run folders. */
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { KindlingError } from '../errors'
import { fileOperationSync } from '../files'

/** Levels of folders to search below the given one. */
const MAX_DEPTH = 3
/** Maximum number of folders to look into. */
const MAX_FOLDERS = 20_000

/** Files of which a run folder has at least one, whatever else is missing. */
const MARKS = ['metrics.jsonl', 'checkpoints', 'latest', 'lock', 'system.json']

/** Returns whether a folder is a run, complete or not. */
export function isRunFolder(path: string): boolean {
  return marksRun(namesIn(path).map(({ name }) => name))
}

/**
 * Returns the runs in a folder, or the folder itself if it is one, in the order of their names.
 *
 * @throws KindlingError `ERR_NOT_FOUND` if there is no such folder, `ERR_IO`.
 */
export function findRuns(dir: string): string[] {
  const isFolder = fileOperationSync('read', dir, () => statSync(dir)).isDirectory()
  if (!isFolder) {
    throw new KindlingError('ERR_NOT_FOUND', `${dir} is not a folder; name a folder of runs`)
  }
  const found: string[] = []
  let looked = 0
  const visit = (path: string, depth: number): void => {
    if (++looked > MAX_FOLDERS) return
    const entries = namesIn(path)
    if (marksRun(entries.map(({ name }) => name))) {
      found.push(path)
      return
    }
    if (depth === MAX_DEPTH) return
    for (const { name, isFolder } of entries) {
      if (isFolder && !name.startsWith('.')) visit(join(path, name), depth + 1)
    }
  }
  visit(dir, 0)
  return found
}

function marksRun(names: readonly string[]): boolean {
  return MARKS.some((mark) => names.includes(mark))
}

/** Returns the entries of a folder, sorted; none if it cannot be read. */
function namesIn(path: string): { name: string; isFolder: boolean }[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .map((entry) => ({ name: entry.name, isFolder: entry.isDirectory() }))
      .sort((a, b) => (a.name < b.name ? -1 : 1))
  } catch {
    return []
  }
}
