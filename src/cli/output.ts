/** What a command prints: JSON lines or text on stdout, notes on stderr, and one line for an error. */
import { Command } from 'commander'
import { toSnakeCase } from '../case'
import { KindlingError, fromNative } from '../errors'

/** Exit codes. */
export const EXIT = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const

/** Codes of errors in what the user asked for, rather than in the work. */
const USAGE_CODES: ReadonlySet<string> = new Set([
  'ERR_USAGE',
  'ERR_INVALID_CONFIG',
  'ERR_INVALID_ARGUMENT',
])

/** Where a command prints. */
export class Output {
  /** @param json - stdout is JSON only, one object a line. */
  constructor(readonly json: boolean) {}

  /** One JSON object, in JSON mode. */
  line(value: object): void {
    if (this.json) process.stdout.write(`${JSON.stringify(value)}\n`)
  }

  /** A line of text for people; nothing in JSON mode. */
  text(text: string): void {
    if (!this.json) process.stdout.write(`${text}\n`)
  }

  /** Text as it comes, without a line break; nothing in JSON mode. */
  write(text: string): void {
    if (!this.json) process.stdout.write(text)
  }

  /** A line on stderr. */
  note(text: string): void {
    process.stderr.write(`${text}\n`)
  }

  /** A progress line that replaces itself, on a terminal only, one of unknown width (0 columns) included. */
  progress(text: string): void {
    if (process.stderr.isTTY)
      process.stderr.write(`\r${text.slice(0, (process.stderr.columns || 100) - 1)}\x1b[K`)
  }

  /** Ends the progress line. */
  clear(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
  }
}

/** Flag values by their snake_case names. */
export type Flags = Record<string, unknown>

/** An action that gets the flags by their snake_case names (without json), the output, and the arguments. */
export type Handler = (flags: Flags, output: Output, args: string[]) => Promise<void>

/** Makes a commander action of a handler: errors are printed in one line and set the exit code. */
export function run(handler: Handler): (...values: unknown[]) => Promise<void> {
  return async (...values) => {
    const command = values.at(-1)
    if (!(command instanceof Command)) throw new TypeError('an action is called by commander')
    const { json, ...flags } = toSnakeCase(command.opts())
    const output = new Output(json === true)
    try {
      await handler(flags, output, command.args)
    } catch (error) {
      reportError(error, output)
    }
  }
}

/** Prints an error in one line and sets the exit code. */
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

/** A usage error. */
export function usage(message: string): KindlingError {
  return new KindlingError('ERR_USAGE', message)
}
