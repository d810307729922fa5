/**
 * Handles failures of standard output and standard error: a closed pipe, a terminal that is gone, a
 * full disk. A command whose product is its output ends then. A command that makes files goes on
 * without the stream.
 */
import { isatty } from 'node:tty'
import { EXIT } from './exit'

/** The descriptors that were terminals when the process began. */
export const terminals = [0, 1, 2].filter((descriptor) => isatty(descriptor))

let makesFiles = false
const failed = new Set<NodeJS.WriteStream>()

/** Keeps this process running if its output fails, because its product is a file. */
export function outliveOutput(): void {
  makesFiles = true
}

/** Writes to a stream unless it has failed. */
export function write(stream: NodeJS.WriteStream, text: string): void {
  if (failed.has(stream)) return
  try {
    stream.write(text)
  } catch (error) {
    onFailure(stream, error)
  }
}

/** Listens for failures of both streams. Without a listener, a failure would end the process. */
export function watchStreams(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error) => onFailure(stream, error))
  }
}

function onFailure(stream: NodeJS.WriteStream, error: unknown): void {
  if (failed.has(stream)) return
  failed.add(stream)
  const { code, message } = error as NodeJS.ErrnoException
  if (stream === process.stderr) return
  // A reader that stops early, such as head, is not an error.
  const isReaderGone = code === 'EPIPE'
  if (!isReaderGone) {
    const disk = code === 'ENOSPC' || code === 'EDQUOT'
    const rest = makesFiles ? 'going on without it' : 'write it elsewhere'
    const name = disk ? 'ERR_DISK_FULL' : 'ERR_IO'
    write(process.stderr, `${name}: cannot write standard output: ${message}; ${rest}\n`)
  }
  if (!makesFiles) process.exit(isReaderGone ? EXIT.done : EXIT.failed)
}
