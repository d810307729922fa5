/**
 * Runs every example of every help text, in a folder with small files that have the names used in
 * the examples.
 *
 * Flags appended to an example reduce its work. Each example has its own copy of the folder,
 * without the files that it writes.
 */
import { spawn } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import type { Command } from 'commander'
import { Checkpoint, TokenStore, Tokenizer } from '../src'
import { program } from '../src/cli/program'
import { allExamples } from '../src/cli/examples'
import { loadRun } from '../src/training/load-run'
import { buildOptimizer } from '../src/training/run-plan'
import { succeed } from './command-line'

const CLI = join(__dirname, '..', 'dist', 'cli', 'index.js')

/** Flags appended to the examples of a command. */
const REDUCED: Record<string, string> = {
  quickstart: '--seconds 0.1',
  'tokenizer train': '--vocab-size 300',
  train: '--max-steps 2 --batch-size 2 --seq-length 16 --eval-tokens 256 --sample-interval 0',
  generate: '--max-tokens 4',
  sweep: '--steps 2 --batch-size 2 --seq-length 16 --eval-tokens 256',
  'bench train': '--batch 1 --steps 2 --warmup 1',
  'bench gemm': '--preset char --steps 1 --warmup 0',
  'bench bpe': '--vocab-size 300',
  'bench generate': '--preset char --max-tokens 4',
}

const EXAMPLES = [...new Set(allExamples(program()))]

let root: string
let fixtures: string
let bin: string

test.before(async (t) => {
  root = mkdtempSync(join(tmpdir(), 'kindling-examples-'))
  fixtures = join(root, 'fixtures')
  bin = join(root, 'bin')
  mkdirSync(bin)
  writeFileSync(join(bin, 'kindling'), `#!/bin/sh\nexec "${process.execPath}" "${CLI}" "$@"\n`)
  chmodSync(join(bin, 'kindling'), 0o755)
  await writeFixtures(t, fixtures)
})

test.after.always(() => rmSync(root, { recursive: true, force: true }))

test('the help of every command ends with examples', async (t) => {
  for (const names of leaves(program())) {
    const { stdout } = await succeed(t, [...names, '--help'])
    t.regex(stdout, /Examples:\n {2}\S.*$/s, names.join(' '))
  }
})

for (const [i, example] of EXAMPLES.entries()) {
  test.serial(`the help's example runs: ${example}`, async (t) => {
    const folder = join(root, String(i))
    cpSync(fixtures, folder, { recursive: true })
    for (const path of outputsOf(example)) {
      rmSync(join(folder, path), { recursive: true, force: true })
    }
    // A dashboard runs until it is interrupted.
    const lastLine = commandOf(example) === 'dashboard' ? /http:\/\/\S+\n/ : undefined
    const { code, output } = await bash(reduced(example), folder, bin, lastLine)
    t.is(code, 0, `${reduced(example)}\n${output}`)
  })
}

/** Returns the names of all commands without subcommands, such as `tokenizer train`. */
function leaves(command: Command, names: readonly string[] = []): string[][] {
  if (command.commands.length === 0) return [[...names]]
  return command.commands.flatMap((child) => leaves(child, [...names, child.name()]))
}

/** Returns the command of an example, such as `tokenizer train`. */
function commandOf(example: string): string {
  const words = example
    .replace(/^.*\| /, '')
    .split(' ')
    .slice(1)
  return ['tokenizer', 'bench', 'data'].includes(words[0]!)
    ? words.slice(0, 2).join(' ')
    : words[0]!
}

function reduced(example: string): string {
  // A resumed run keeps its options; the others have little to do.
  if (/--resume|train --checkpoint|--help|--config-schema|--toy/.test(example)) return example
  // A tokenizer of characters has no vocabulary size to reduce.
  if (example.includes('--type chars')) return example
  return `${example} ${REDUCED[commandOf(example)] ?? ''}`.trim()
}

/** Returns the paths that an example writes, which must not exist before it runs. */
function outputsOf(example: string): string[] {
  const isNewRun = /kindling train .*--run/.test(example) && !example.includes('--resume')
  const flag = isNewRun ? /--(?:out|run) (\S+)/g : /--out (\S+)/g
  return [...example.matchAll(flag)].map((found) => found[1]!)
}

/** Runs a command; SIGINT ends it once it has printed `lastLine`. */
async function bash(
  command: string,
  cwd: string,
  bin: string,
  lastLine?: RegExp,
): Promise<{ code: number | null; output: string }> {
  const child = spawn('bash', ['-c', `set -o pipefail; ${command}`], {
    cwd,
    // A process group of its own, so that a signal reaches all of it.
    detached: true,
    env: { ...process.env, PATH: `${bin}:${process.env['PATH']}` },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
      if (!lastLine?.test(output)) return
      process.kill(-child.pid!, 'SIGINT')
      lastLine = undefined
    })
  }
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
  return { code, output }
}

/** Writes a file or folder for every name that the examples read. */
async function writeFixtures(t: ExecutionContext, folder: string): Promise<void> {
  mkdirSync(folder)
  const at = (name: string): string => {
    const path = join(folder, name)
    mkdirSync(dirname(path), { recursive: true })
    return path
  }
  const words = 'the whale sea ship captain old man said and of in a to white mast sailed'.split(
    ' ',
  )
  const text = Array.from({ length: 2000 }, (_, i) => words[(i * i + 3 * i) % 17] ?? 'storm').join(
    ' ',
  )
  const lines = [text, text.slice(500)].map((body) => `${JSON.stringify({ text: body, body })}\n`)
  for (const name of ['book.txt', 'a.txt', 'b.txt', 'stories.txt', 'web.txt']) {
    writeFileSync(at(name), text)
  }
  writeFileSync(at('dump.gz'), gzipSync(text))
  writeFileSync(at('web/1.jsonl.gz'), gzipSync(lines.join('')))
  writeFileSync(at('web/2.jsonl.zst'), zstd(Buffer.from(lines.join(''))))

  const tokenizer = await Tokenizer.train([at('book.txt')], {
    vocabSize: 280,
    specialTokens: ['<|endoftext|>', '<|im_start|>', '<|im_end|>'],
  })
  for (const name of ['data/tokenizer', 'data/stories/tokenizer', 'data/web/tokenizer']) {
    await tokenizer.save(at(name))
  }
  for (const name of ['vocab.json', 'merges.txt']) cpSync(at(`data/tokenizer/${name}`), at(name))
  for (const name of ['book', 'web', 'books', 'stories', 'other']) {
    await TokenStore.encodeFiles([at('book.txt')], tokenizer, at(`data/${name}`), {
      validFraction: 0.1,
    })
  }
  for (const name of ['a_chunks', 'b_chunks', 'data/2G_chunks']) {
    await TokenStore.encodeFiles([at('book.txt')], tokenizer, at(name))
  }

  const options = {
    data: at('data/book'),
    d_model: 16,
    num_heads: 2,
    d_ff: 24,
    num_layers: 1,
    max_seq_length: 32,
    seq_length: 16,
    batch_size: 2,
    max_steps: 4,
    sample_interval: 0,
  }
  writeFileSync(at('run.json'), JSON.stringify(options))
  const models = join(__dirname, '../crates/kindling-core/tests/fixtures/exchange/models')
  cpSync(join(models, 'llama'), at('models/SmolLM2-135M'), { recursive: true })
  cpSync(join(models, 'all-types.gguf'), at('smollm2.gguf'))
  cpSync(join(models, 'course.pt'), at('checkpoint.pt'))

  const run = at('runs/book')
  await succeed(t, ['train', '--config', at('run.json'), '--run', run, '--stop-at-step', '2'])
  const { model, config } = await loadRun({ run })
  const later = join(run, 'checkpoints', 'step-00000500')
  await Checkpoint.save(later, model, buildOptimizer(model, config.options), 500)
  for (const name of ['second', 'smollm2']) cpSync(run, at(`runs/${name}`), { recursive: true })
}

/** Returns `bytes` (at most 64 KiB) as a Zstandard frame of one uncompressed block (RFC 8878). */
function zstd(bytes: Buffer): Buffer {
  const header = Buffer.alloc(10)
  header.writeUInt32LE(0xfd2fb528, 0)
  // A single segment, whose size takes two bytes and has 256 subtracted.
  header.writeUInt8(0x60, 4)
  header.writeUInt16LE(bytes.length - 256, 5)
  // The last block, raw.
  header.writeUIntLE((bytes.length << 3) | 1, 7, 3)
  return Buffer.concat([header, bytes])
}
