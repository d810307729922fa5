/**
 * Output of a command: results on stdout, as text or JSON lines; notes, progress and errors on
 * stderr.
 */
import { Command } from 'commander'
import { toSnakeCase } from '../case'
import { KindlingError, fromNative } from '../errors'
import { EXIT } from './exit'
import { write } from './streams'
import { columnsOf } from './terminal'

/** Where the error codes are explained. */
const ERROR_PAGES = 'docs/errors.md'

/** Codes of errors in the user's request; they exit with `EXIT.usage`. */
const USAGE_CODES: ReadonlySet<string> = new Set([
  'ERR_USAGE',
  'ERR_INVALID_CONFIG',
  'ERR_INVALID_ARGUMENT',
])

/** How much a command prints. */
export interface Verbosity {
  /** Only JSON on stdout, one object per line. */
  json?: boolean
  /** Results and errors only. */
  quiet?: boolean
  /** More about errors. */
  verbose?: boolean
}

export class Output {
  readonly json: boolean
  readonly quiet: boolean
  readonly verbose: boolean
  /** Length of the live line on the terminal, 0 without one. */
  #drawn = 0

  constructor({ json = false, quiet = false, verbose = false }: Verbosity = {}) {
    this.json = json
    this.quiet = quiet
    this.verbose = verbose
  }

  /** Prints an object as a line of JSON with snake_case keys, if `--json` is given. */
  line(value: object): void {
    if (this.json) write(process.stdout, `${JSON.stringify(toSnakeCase(value))}\n`)
  }

  /** Prints a line of text, unless `--json` is given. */
  text(text: string): void {
    if (!this.json) write(process.stdout, `${text}\n`)
  }

  /** Prints text without a line break, unless `--json` is given. */
  write(text: string): void {
    if (!this.json) write(process.stdout, text)
  }

  /** Prints a line on stderr, unless `--quiet` is given. */
  note(text: string): void {
    if (!this.quiet) this.problem(text)
  }

  /** Prints a line on stderr. */
  problem(text: string): void {
    this.clear()
    write(process.stderr, `${text}\n`)
  }

  /** Returns whether stderr can show a live line. */
  get isLive(): boolean {
    return process.stderr.isTTY && !this.quiet
  }

  /** Replaces the live line. Does nothing if stderr is not a terminal. */
  progress(text: string): void {
    const columns = columnsOf(process.stderr)
    if (columns === null || this.quiet) return
    const line = text.slice(0, columns - 1)
    write(process.stderr, `${this.#erase(columns)}${line}`)
    this.#drawn = line.length
  }

  /** Clears the live line. */
  clear(): void {
    const columns = columnsOf(process.stderr)
    if (columns === null || this.#drawn === 0) return
    write(process.stderr, this.#erase(columns))
    this.#drawn = 0
  }

  /** Erases the live line, which takes several rows if the terminal has become narrower. */
  #erase(columns: number): string {
    const rows = Math.ceil(this.#drawn / columns) - 1
    return `\r${rows > 0 ? `\x1b[${rows}A` : ''}\x1b[J`
  }
}

/** Flag values by their snake_case names. */
export type Flags = Record<string, unknown>

/** Runs a command, given its flags (except those of `Verbosity`), its output and its arguments. */
export type Handler = (flags: Flags, output: Output, args: string[]) => Promise<void>

/** Returns a commander action that runs `handler` and reports its error, if any. */
export function run(handler: Handler): (...values: unknown[]) => Promise<void> {
  return async (...values) => {
    const command = values.at(-1)
    if (!(command instanceof Command)) throw new TypeError('an action must be called by commander')
    const { json, quiet, verbose, ...flags } = toSnakeCase(command.opts())
    const output = new Output({
      json: json === true,
      quiet: quiet === true,
      verbose: verbose === true,
    })
    try {
      await handler(flags, output, command.args)
    } catch (error) {
      reportError(error, output, (message) => withFlagNames(message, command))
    }
  }
}

/**
 * Writes the options that a message names as the flags of `command`: `vocab_size` and `vocabSize`
 * become `--vocab-size`, and `lr must be` or `lr.0 must be` becomes `--lr must be`.
 */
export function withFlagNames(message: string, command: Command): string {
  return command.options.reduce((text, option) => {
    const flag = option.long
    if (flag === undefined || flag === null) return text
    const snake = option.name().replaceAll('-', '_')
    const camel = option.attributeName()
    const isWord = !snake.includes('_')
    const name = isWord ? snake : `(?:${snake}|${camel})`
    const [before, after] = isWord
      ? ['(?<=^|; |: )', '(?= must )']
      : ['(?<![\\w/.-])', '(?![\\w/.-])']
    // A list's values have names such as lr.0.
    return text.replace(new RegExp(`${before}${name}(?:\\.\\d+)?${after}`, 'g'), flag)
  }, message)
}

/** Prints an error on one line and sets the exit code. */
export function reportError(
  error: unknown,
  output: Output,
  reword: (message: string) => string = (message) => message,
): void {
  const { code, message: original } = fromNative(error)
  const message = reword(original)
  output.clear()
  if (output.json) output.line({ error: { code, message } })
  else output.problem(`${code}: ${message.replaceAll('\n', ' ')}`)
  if (output.verbose) output.problem(`see ${ERROR_PAGES}#${code.toLowerCase()}`)
  if (code === 'ERR_INTERNAL' && error instanceof Error && process.env['KINDLING_DEBUG']) {
    output.problem(error.stack ?? '')
  }
  // Only a signal cancels a command.
  const failed = code === 'ERR_CANCELLED' ? EXIT.interrupted : EXIT.failed
  process.exitCode = USAGE_CODES.has(code) ? EXIT.usage : failed
}

/**
 * Returns the arguments of a command if there are any, else the value of the equivalent flag.
 *
 * @throws KindlingError `ERR_USAGE` if both are given and differ.
 */
export function argumentsOr<T>(words: readonly string[], value: T, flag: string): T | string[] {
  if (words.length === 0) return value
  const isSame = JSON.stringify(words) === JSON.stringify([value ?? words].flat())
  if (isSame) return [...words]
  throw usage(
    `${words.join(' ')} and ${flag} ${[value].flat().join(' ')} differ; give only one of them`,
  )
}

/** Makes a usage error. */
export function usage(message: string): KindlingError {
  return new KindlingError('ERR_USAGE', message)
}
