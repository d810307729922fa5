/**
 * Output of a command: results on stdout, as text or JSON lines; notes, progress and errors on
 * stderr.
 */
import { Command } from 'commander'
import { toSnakeCase } from '../case'
import { KindlingError, fromNative } from '../errors'
import { EXIT } from './exit'
import { write } from './streams'

/** Codes of errors in the user's request; they exit with `EXIT.usage`. */
const USAGE_CODES: ReadonlySet<string> = new Set([
  'ERR_USAGE',
  'ERR_INVALID_CONFIG',
  'ERR_INVALID_ARGUMENT',
])

/** Columns of a live line on a terminal that does not report its width. */
const DEFAULT_COLUMNS = 100

export class Output {
  /** @param json - print only JSON to stdout, one object per line. */
  constructor(readonly json: boolean) {}

  /** Prints an object as a line of JSON with snake_case keys, with `--json` only. */
  line(value: object): void {
    if (this.json) write(process.stdout, `${JSON.stringify(toSnakeCase(value))}\n`)
  }

  /** Prints a line of text, without `--json` only. */
  text(text: string): void {
    if (!this.json) write(process.stdout, `${text}\n`)
  }

  /** Prints text without a line break, without `--json` only. */
  write(text: string): void {
    if (!this.json) write(process.stdout, text)
  }

  /** Prints a line on stderr. */
  note(text: string): void {
    write(process.stderr, `${text}\n`)
  }

  /** Replaces the live line. Does nothing if stderr is not a terminal. */
  progress(text: string): void {
    if (!process.stderr.isTTY) return
    // A terminal of unknown width reports 0 columns.
    const columns = process.stderr.columns || DEFAULT_COLUMNS
    write(process.stderr, `\r${text.slice(0, columns - 1)}\x1b[K`)
  }

  /** Clears the live line. */
  clear(): void {
    if (process.stderr.isTTY) write(process.stderr, '\r\x1b[K')
  }
}

/** Flag values by their snake_case names. */
export type Flags = Record<string, unknown>

/** Runs a command, given its flags (`--json` excepted), its output and its arguments. */
export type Handler = (flags: Flags, output: Output, args: string[]) => Promise<void>

/** Returns a commander action that runs `handler` and reports its error, if any. */
export function run(handler: Handler): (...values: unknown[]) => Promise<void> {
  return async (...values) => {
    const command = values.at(-1)
    if (!(command instanceof Command)) throw new TypeError('an action must be called by commander')
    const { json, ...flags } = toSnakeCase(command.opts())
    const output = new Output(json === true)
    try {
      await handler(flags, output, command.args)
    } catch (error) {
      reportError(error, output)
    }
  }
}

/** Prints an error on one line and sets the exit code. */
export function reportError(error: unknown, output: Output): void {
  const { code, message } = fromNative(error)
  output.clear()
  if (output.json) output.line({ error: { code, message } })
  else output.note(`${code}: ${message.replaceAll('\n', ' ')}`)
  if (code === 'ERR_INTERNAL' && error instanceof Error && process.env['KINDLING_DEBUG']) {
    output.note(error.stack ?? '')
  }
  // Only a signal cancels a command.
  const failed = code === 'ERR_CANCELLED' ? EXIT.interrupted : EXIT.failed
  process.exitCode = USAGE_CODES.has(code) ? EXIT.usage : failed
}

/** Makes a usage error. */
export function usage(message: string): KindlingError {
  return new KindlingError('ERR_USAGE', message)
}
