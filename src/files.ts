/** Atomic file writes, and errors of the file system as coded errors. */
import { existsSync } from 'node:fs'
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { KindlingError } from './errors'

/** Writes a file under a temporary name, syncs and renames it. */
export async function writeFileAtomic(path: string, text: string): Promise<void> {
  const temporary = `${path}.tmp`
  await fileOperation(path, async () => {
    try {
      const file = await open(temporary, 'w')
      try {
        await file.writeFile(text)
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(temporary, path)
    } catch (error) {
      await rm(temporary, { force: true })
      throw error
    }
  })
}

/** Creates a folder and its missing parents. */
export async function makeFolder(path: string): Promise<void> {
  const parent = dirname(path)
  // One level at a time: with `recursive`, Node reports a read-only file system as ENOENT.
  if (!existsSync(parent)) await makeFolder(parent)
  await fileOperation(path, () =>
    mkdir(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    }),
  )
}

/**
 * Runs a file operation of Node.
 *
 * @param path - the file that an error names.
 * @throws KindlingError `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`, `ERR_IO`.
 */
export async function fileOperation<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw systemError(path, error)
  }
}

function systemError(path: string, error: unknown): KindlingError {
  const options = { cause: error }
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new KindlingError(
        'ERR_DISK_FULL',
        `cannot write ${path}: the disk is full; free some space and run the command again`,
        options,
      )
    case 'EACCES':
    case 'EROFS':
    case 'EPERM':
      return new KindlingError(
        'ERR_NOT_WRITABLE',
        `cannot write ${path}: permission denied or read-only; choose another folder`,
        options,
      )
  }
  const reason = error instanceof Error ? error.message : String(error)
  return new KindlingError('ERR_IO', `${path}: ${reason}`, options)
}
