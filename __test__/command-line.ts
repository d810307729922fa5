/** Runs the built command line in a process of its own. */
import { spawn, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'

const CLI = join(__dirname, '..', 'dist', 'cli', 'index.js')

/** What a command did. */
export interface Finished {
  code: number | null
  stdout: string
  stderr: string
  /** The objects of stdout, a line each. */
  json: Record<string, unknown>[]
}

/** Starts a command; `started` sees the process, whose standard input is `input`. */
export async function kindling(
  args: readonly string[],
  started: (child: ChildProcess) => void = () => {},
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
  started(child)
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
  const lines = args.includes('--json') ? stdout.split('\n').filter((line) => line !== '') : []
  return {
    code,
    stdout,
    stderr,
    json: lines.map((line) => JSON.parse(line) as Record<string, unknown>),
  }
}
