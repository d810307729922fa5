/** Bounded reads, atomic writes, and file system errors as errors with a code. */
import { closeSync, constants, existsSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
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

/** Flags for reading a file of unknown kind: a FIFO is opened without waiting for its writer. */
export const READ_ANY_KIND = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)

/** The largest file that is read as a whole. */
const LARGEST_BYTES = 256 * 2 ** 20

/**
 * Reads an untrusted text file. Only regular files of a bounded size are read: a link to
 * /dev/zero would never end, and a FIFO waits for a writer.
 *
 * @param invalid - the error code if it is not such a file.
 * @throws KindlingError `ERR_NOT_FOUND`, `ERR_IO`.
 */
export function readText(path: string, invalid: string): string {
  const descriptor = fileOperationSync('read', path, () => openSync(path, READ_ANY_KIND))
  try {
    const status = fileOperationSync('read', path, () => fstatSync(descriptor))
    if (!status.isFile()) {
      const what = status.isDirectory() ? 'a folder' : 'a device or a pipe'
      throw new KindlingError(invalid, `${path} is ${what}, not a file; remove or replace it`)
    }
    if (status.size > LARGEST_BYTES) {
      const mib = LARGEST_BYTES / 2 ** 20
      throw new KindlingError(invalid, `${path} is larger than ${mib} MiB; remove or replace it`)
    }
    return fileOperationSync('read', path, () => readFileSync(descriptor, 'utf8'))
  } finally {
    closeSync(descriptor)
  }
}

/**
 * Creates a folder and its missing parents.
 *
 * @returns the folders that did not exist, outermost first.
 */
export async function makeFolder(path: string): Promise<string[]> {
  const parent = dirname(path)
  // One level at a time: with `recursive`, Node reports a read-only file system as ENOENT.
  const made = existsSync(parent) ? [] : await makeFolder(parent)
  return (await makeOneFolder(path)) ? [...made, path] : made
}

/**
 * Creates a folder whose parent exists.
 *
 * @returns false if something has this name already.
 */
export async function makeOneFolder(path: string): Promise<boolean> {
  return fileOperation('write', path, () =>
    mkdir(path).then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'EEXIST') return false
        throw error
      },
    ),
  )
}

/** Runs `work` with a temporary folder, named after `purpose`, which is removed at the end. */
export async function withTemporaryFolder<T>(
  purpose: string,
  work: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), `kindling-${purpose}-`))
  try {
    return await work(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** Makes the names in a folder durable, where the file system can do that. */
export async function syncFolder(path: string): Promise<void> {
  await fileOperation('write', path, async () => {
    try {
      const folder = await open(path, 'r')
      await folder.sync().finally(() => folder.close())
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (!['EACCES', 'EINVAL', 'EISDIR', 'ENOTSUP', 'EPERM'].includes(code ?? '')) throw error
    }
  })
}

/**
 * Runs a file operation of Node.
 *
 * @param action - what the operation does with `path`, for the code and the message of an error.
 * @throws KindlingError `ERR_DISK_FULL` or `ERR_NOT_WRITABLE` if it cannot write, `ERR_NOT_FOUND`
 * if there is nothing to read, `ERR_IO`.
 */
export async function fileOperation<T>(
  action: 'read' | 'write',
  path: string,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw systemError(action, path, error)
  }
}

/**
 * Runs a synchronous file operation of Node.
 *
 * @throws KindlingError like `fileOperation`.
 */
export function fileOperationSync<T>(action: 'read' | 'write', path: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw systemError(action, path, error)
  }
}

function systemError(action: 'read' | 'write', path: string, error: unknown): KindlingError {
  const [code, reason] = describe(action, error)
  return new KindlingError(code, `cannot ${action} ${path}: ${reason}`, { cause: error })
}

function describe(action: 'read' | 'write', error: unknown): [code: string, reason: string] {
  const { code } = error as NodeJS.ErrnoException
  if (action === 'read' && (code === 'ENOENT' || code === 'ENOTDIR'))
    return ['ERR_NOT_FOUND', 'no such file; check the path']
  if (action === 'write') {
    switch (code) {
      case 'ENOSPC':
      case 'EDQUOT':
        return ['ERR_DISK_FULL', 'the disk is full; free some space and run the command again']
      case 'EACCES':
      case 'EROFS':
      case 'EPERM':
        return ['ERR_NOT_WRITABLE', 'permission denied or read-only; choose another folder']
    }
  }
  return ['ERR_IO', error instanceof Error ? error.message : String(error)]
}
