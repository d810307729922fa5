/** Atomic file writes, and errors of the file system as coded errors. */
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { KindlingError, settle } from './errors'
import { native } from './native'

/**
 * Replaces a text file completely or not at all, and makes it durable.
 *
 * @throws KindlingError `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`, `ERR_IO`; the file is then unchanged.
 */
export async function writeFileAtomic(path: string, text: string): Promise<void> {
  await settle(() => native.writeFileAtomic(path, Buffer.from(text)))
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
