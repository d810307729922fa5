/** Runs the built command line in a child process. */
import { spawn, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'

export const CLI = join(__dirname, '..', 'dist', 'cli', 'index.js')

/** The outcome of a command. */
export interface Finished {
  code: number | null
  stdout: string
  stderr: string
  /** The objects on stdout, with `--json`. */
  json: Record<string, unknown>[]
}

/** Splits flags written as one string. */
export function words(text: string): string[] {
  return text.split(' ')
}

/**
 * Runs a command to its end.
 *
 * @param onStart - receives the process when it starts.
 * @param input - written to its standard input.
 */
export async function kindling(
  args: readonly string[],
  onStart: (child: ChildProcess) => void = () => {},
  input: string | Buffer | null = null,
): Promise<Finished> {
  const child = spawn(process.execPath, [CLI, ...args], {
    stdio: [input === null ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  })
  if (child.stdin) child.stdin.end(input)
  let stdout = ''
  let stderr = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  onStart(child)
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
  const lines = args.includes('--json') ? stdout.split('\n').filter((line) => line !== '') : []
  return {
    code,
    stdout,
    stderr,
    json: lines.map((line) => JSON.parse(line) as Record<string, unknown>),
  }
}

/** Runs a command that has to succeed. */
export async function succeed(t: ExecutionContext, args: readonly string[]): Promise<Finished> {
  const finished = await kindling(args)
  t.is(finished.code, 0, `${args.join(' ')}: ${finished.stderr}`)
  return finished
}

/** Asserts the exit code of a command that failed, and the code and message on its last line. */
export function failed(
  t: ExecutionContext,
  { code, stderr }: Finished,
  expected: { exit: number; code: string; message: RegExp },
): void {
  t.is(code, expected.exit, stderr)
  const last = stderr.trim().split('\n').at(-1)!
  t.true(last.startsWith(`${expected.code}: `), stderr)
  t.regex(last, expected.message)
}
