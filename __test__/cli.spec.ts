/**
 * The command line from outside: what it prints, its exit codes, and what it leaves on the disk.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import type { ProfileLine } from '../src/cli/bench/profile'
import { kindling, type Finished } from './command-line'
import { temporaryFolder, writeCorpus } from './helpers'

const SMALL =
  '--d-model 16 --num-heads 2 --d-ff 24 --num-layers 1 --max-seq-length 16 --seq-length 16 --batch-size 4 --lr 1e-2 --threads 1'.split(
    ' ',
  )

/** A folder with an encoded corpus, and the training flags for it. */
async function encoded(
  t: ExecutionContext,
): Promise<{ folder: string; data: string; flags: string[] }> {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const tokenizer = join(folder, 'tokenizer')
  const data = join(folder, 'data')
  const trained = await kindling([
    'tokenizer',
    'train',
    corpus,
    '--vocab-size',
    '280',
    '--out',
    tokenizer,
    '--json',
  ])
  t.is(trained.code, 0, trained.stderr)
  t.deepEqual(Object.keys(trained.json.at(-1)!), ['vocab_size', 'merges', 'seconds', 'out'])
  const stored = await kindling([
    'encode',
    corpus,
    '--tokenizer',
    tokenizer,
    '--out',
    data,
    '--valid-fraction',
    '0.1',
    '--json',
  ])
  t.is(stored.code, 0, stored.stderr)
  t.deepEqual(Object.keys(stored.json.at(-1)!), ['tokens', 'bytes', 'seconds', 'out'])
  return { folder, data, flags: ['--data', data, ...SMALL] }
}

function fails(
  t: ExecutionContext,
  result: Finished,
  exit: number,
  code: string,
  words: RegExp,
): void {
  t.is(result.code, exit, result.stderr)
  const lines = result.stderr.trim().split('\n')
  t.true(lines.at(-1)!.startsWith(`${code}: `), result.stderr)
  t.regex(lines.at(-1)!, words)
}

test('train, eval and generate work on what encode wrote, and --json keeps stdout to JSON', async (t) => {
  const { folder, flags } = await encoded(t)
  const run = join(folder, 'run')
  const schedule = [
    '--max-steps',
    '30',
    '--log-interval',
    '10',
    '--eval-interval',
    '15',
    '--sample-interval',
    '30',
  ]
  const trained = await kindling([
    'train',
    ...flags,
    '--run',
    run,
    ...schedule,
    '--save-interval',
    '10',
    '--keep',
    '2',
    '--json',
  ])
  t.is(trained.code, 0, trained.stderr)
  t.deepEqual(
    trained.json.slice(0, -1).map((line) => line['step']),
    [10, 15, 20, 30],
  )
  const last = trained.json.at(-1)!
  t.deepEqual(Object.keys(last), ['steps', 'loss', 'val_loss', 'run'])
  const metrics = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trim().split('\n')
  t.deepEqual(
    metrics.map((line) => JSON.parse(line) as unknown),
    trained.json.slice(0, -1),
  )
  t.deepEqual(readdirSync(join(run, 'checkpoints')), ['step-00000020', 'step-00000030'])
  t.is(readFileSync(join(run, 'latest'), 'utf8').trim(), 'step-00000030')
  t.is(typeof trained.json.at(-2)!['sample'], 'string')

  const evaluated = await kindling(['eval', '--run', run, '--json'])
  t.deepEqual(Object.keys(evaluated.json.at(-1)!), [
    'loss',
    'perplexity',
    'bits_per_byte',
    'tokens',
  ])
  t.true(Math.abs((evaluated.json.at(-1)!['loss'] as number) - (last['val_loss'] as number)) < 1e-6)

  const generated = await kindling([
    'generate',
    '--run',
    run,
    '--prompt',
    'the',
    '--prompt',
    'a',
    '--max-tokens',
    '5',
    '--seed',
    '3',
    '--json',
  ])
  t.is(generated.json.length, 2, generated.stderr)
  t.deepEqual(Object.keys(generated.json[0]!), [
    'prompt',
    'text',
    'ids',
    'stop_reason',
    'tokens_per_second',
    'seed',
  ])
  t.true((generated.json[0]!['text'] as string).startsWith('the'))
  const plain = await kindling([
    'generate',
    '--run',
    run,
    '--prompt',
    'the',
    '--max-tokens',
    '5',
    '--seed',
    '3',
  ])
  t.is(plain.stdout, `${generated.json[0]!['text'] as string}\n`)
  const unechoed = await kindling([
    'generate',
    '--run',
    run,
    '--prompt',
    'the',
    '--max-tokens',
    '5',
    '--seed',
    '3',
    '--no-echo',
  ])
  t.is(`the${unechoed.stdout}`, plain.stdout)
})

test('a run stopped and resumed with other threads is the run, byte for byte', async (t) => {
  const { folder, flags } = await encoded(t)
  const whole = join(folder, 'whole')
  const parts = join(folder, 'parts')
  const schedule =
    '--max-steps 40 --log-interval 7 --eval-interval 10 --sample-interval 20 --save-interval 20'.split(
      ' ',
    )
  t.is((await kindling(['train', ...flags, ...schedule, '--run', whole])).code, 0)
  const first = await kindling([
    'train',
    ...flags,
    ...schedule,
    '--run',
    parts,
    '--stop-at-step',
    '18',
  ])
  t.is(first.code, 0, first.stderr)
  t.is(readFileSync(join(parts, 'latest'), 'utf8').trim(), 'step-00000018')
  const second = await kindling(['train', '--run', parts, '--resume', '--threads', '3'])
  t.is(second.code, 0, second.stderr)
  t.regex(second.stderr, /resuming .* at step 18 of 40/)
  for (const file of ['model.safetensors', 'optimizer.safetensors']) {
    const [a, b] = [whole, parts].map((run) =>
      readFileSync(join(run, 'checkpoints', 'step-00000040', file)),
    )
    t.true(a!.equals(b!), file)
  }
  const untimed = (run: string): unknown[] =>
    readFileSync(join(run, 'metrics.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => ({ ...(JSON.parse(line) as object), tokens_per_second: 0, elapsed_s: 0 }))
  t.deepEqual(untimed(parts), untimed(whole))

  const again = await kindling(['train', '--run', parts, '--resume', '--json'])
  t.is(again.code, 0)
  t.regex(again.stderr, /is finished: 40 of 40 steps done/)
  t.is(again.json.at(-1)!['steps'], 40)
  fails(
    t,
    await kindling(['train', '--run', parts, '--resume', '--lr', '5']),
    1,
    'ERR_RESUME_MISMATCH',
    /lr is 5 but the run has 0.01/,
  )
  fails(t, await kindling(['train', ...flags, '--run', parts]), 1, 'ERR_RUN_EXISTS', /--resume/)
})

test('Ctrl-C saves a checkpoint, ends with 130, and the run resumes', async (t) => {
  const { folder, flags } = await encoded(t)
  const run = join(folder, 'run')
  const schedule = ['--max-steps', '100000', '--log-interval', '5', '--sample-interval', '0']
  const stopped = await kindling(['train', ...flags, ...schedule, '--run', run], (child) => {
    child.stdout!.once('data', () => child.kill('SIGINT'))
  })
  t.is(stopped.code, 130, stopped.stderr)
  const name = readFileSync(join(run, 'latest'), 'utf8').trim()
  const step = Number(name.slice(5))
  t.true(step >= 5 && existsSync(join(run, 'checkpoints', name, 'state.json')))
  const resumed = await kindling([
    'train',
    '--run',
    run,
    '--resume',
    '--stop-at-step',
    `${step + 3}`,
    '--json',
  ])
  t.is(resumed.code, 0, resumed.stderr)
  t.is(resumed.json.at(-1)!['steps'], step + 3)
})

test('a run without a checkpoint starts over and says so', async (t) => {
  const { folder, flags } = await encoded(t)
  const run = join(folder, 'run')
  t.is(
    (
      await kindling([
        'train',
        ...flags,
        '--run',
        run,
        '--max-steps',
        '2',
        '--sample-interval',
        '0',
      ])
    ).code,
    0,
  )
  const { rmSync } = await import('node:fs')
  rmSync(join(run, 'latest'))
  const again = await kindling(['train', '--run', run, '--resume'])
  t.is(again.code, 0, again.stderr)
  t.regex(again.stderr, /has no checkpoint; starting over/)
})

test('a corpus is encoded once and encoded again when it changes', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const flags = [
    ...SMALL,
    '--corpus',
    corpus,
    '--data-dir',
    join(folder, 'data'),
    '--vocab-size',
    '280',
    '--max-steps',
    '1',
    '--sample-interval',
    '0',
  ]
  const train = async (name: string): Promise<void> => {
    const result = await kindling(['train', ...flags, '--run', join(folder, name)])
    t.is(result.code, 0, result.stderr)
  }
  const record = join(folder, 'data', 'corpus', 'train_chunks', 'store.json')
  await train('first')
  const { statSync } = await import('node:fs')
  const written = statSync(record).mtimeMs
  await train('second')
  t.is(statSync(record).mtimeMs, written)
  writeFileSync(corpus, `${readFileSync(corpus, 'utf8')} and more`)
  await train('third')
  t.not(statSync(record).mtimeMs, written)
})

test('bad input is one coded line, the right exit code, and nothing on the disk', async (t) => {
  const { folder, data, flags } = await encoded(t)
  const out = join(folder, 'out')
  const empty = join(folder, 'empty.txt')
  writeFileSync(empty, '')
  const missing = join(folder, 'missing.txt')
  const tokenizer = join(folder, 'tokenizer')
  const train = async (...more: string[]): Promise<Finished> =>
    kindling(['train', ...flags, '--run', out, ...more])
  for (const [result, exit, code, words] of [
    [
      await kindling(['train', '--learning-rate', '1']),
      2,
      'ERR_USAGE',
      /unknown option '--learning-rate'/,
    ],
    [await kindling(['trian']), 2, 'ERR_USAGE', /Did you mean train/],
    [
      await kindling([
        ...'tokenizer train'.split(' '),
        missing,
        '--vocab-size',
        '300',
        '--out',
        out,
      ]),
      1,
      'ERR_NOT_FOUND',
      /missing/,
    ],
    [
      await kindling([...'tokenizer train'.split(' '), empty, '--vocab-size', '300', '--out', out]),
      1,
      'ERR_EMPTY_CORPUS',
      /empty/,
    ],
    [
      await kindling(['encode', missing, '--tokenizer', tokenizer, '--out', out]),
      1,
      'ERR_NOT_FOUND',
      /missing/,
    ],
    [
      await kindling(['encode', empty, '--tokenizer', tokenizer, '--out', out]),
      1,
      'ERR_EMPTY_CORPUS',
      /empty/,
    ],
    [await kindling(['train', '--run', out]), 2, 'ERR_USAGE', /no training data/],
    [await kindling(['train', '--corpus', missing, '--run', out]), 1, 'ERR_NOT_FOUND', /missing/],
    [await train('--lr', 'NaN'), 2, 'ERR_USAGE', /lr/],
    [await train('--lr', '-1'), 2, 'ERR_USAGE', /lr/],
    [await train('--d-model', '18', '--num-heads', '4'), 2, 'ERR_INVALID_CONFIG', /divisible/],
    [await train('--d-model', '6', '--num-heads', '2'), 2, 'ERR_INVALID_CONFIG', /odd/],
    [await train('--vocab-size', '100'), 2, 'ERR_INVALID_CONFIG', /below the tokenizer's/],
    [
      await train('--seq-length', '9000', '--max-seq-length', '9000'),
      1,
      'ERR_STORE_TOO_SHORT',
      /seq_length/,
    ],
    [await train('--device', 'cuda'), 1, 'ERR_DEVICE_UNAVAILABLE', /cpu/],
    [await train('--dtype', 'f16'), 2, 'ERR_USAGE', /dtype/],
    [await train('--resume'), 1, 'ERR_NOT_FOUND', /not a run/],
    [await kindling(['generate', '--run', out]), 1, 'ERR_NOT_FOUND', /not a run/],
    [await kindling(['eval']), 2, 'ERR_USAGE', /--run/],
  ] as const) {
    fails(t, result, exit, code, words)
    t.is(result.stdout, '')
    t.false(existsSync(out), code)
  }
  const asJson = await kindling(['train', '--run', out, '--json'])
  t.is(asJson.code, 2)
  t.deepEqual(Object.keys(asJson.json[0]!['error'] as object), ['code', 'message'])
  t.deepEqual(readdirSync(folder).sort(), ['corpus.txt', 'data', 'empty.txt', 'tokenizer'])
  t.true(existsSync(join(data, 'train_chunks')))
})

test('a store with ids the model does not have is refused with the id and its place', async (t) => {
  const folder = temporaryFolder(t)
  const store = join(folder, 'mine_chunks')
  mkdirSync(store)
  const ids = Int32Array.from({ length: 400 }, (_, i) => (i === 123 ? 32_000 : i % 50))
  writeFileSync(join(store, 'encoded_tokens_chunk_0.dat'), ids)
  const result = await kindling([
    'train',
    '--data',
    store,
    ...SMALL,
    '--run',
    join(folder, 'run'),
    '--vocab-path',
    'none',
  ])
  fails(t, result, 1, 'ERR_TOKEN_OUT_OF_RANGE', /token id 32000 at position 123/)
  t.false(existsSync(join(folder, 'run')))
})

test('a folder that may not be written is a coded error', async (t) => {
  const { folder, flags } = await encoded(t)
  const locked = join(folder, 'locked')
  mkdirSync(locked)
  chmodSync(locked, 0o500)
  t.teardown(() => chmodSync(locked, 0o700))
  if (process.getuid?.() === 0) {
    t.pass(
      'root may write everywhere; scripts/campaigns/refused-writes.js mounts a read-only folder',
    )
    return
  }
  fails(
    t,
    await kindling(['train', ...flags, '--run', join(locked, 'run')]),
    1,
    'ERR_NOT_WRITABLE',
    /another folder/,
  )
})

test('--help of every command shows examples', async (t) => {
  const { commands } = await import('../src/cli/commands')
  const all = commands().flatMap((command) =>
    command.commands.length > 0
      ? command.commands.map((c) => [command.name(), c.name()])
      : [[command.name()]],
  )
  for (const name of all) {
    const { code, stdout } = await kindling([...name, '--help'])
    t.is(code, 0)
    t.regex(stdout, /Examples:\n {2}kindling /, name.join(' '))
  }
})

test('bench train --profile names every op of a step, and their parts add up to it; --recompute runs blocks again', async (t) => {
  const bench = async (...flags: string[]) => {
    const flat = 'bench train --preset char --batch 1 --steps 2 --warmup 1 --json --profile'.split(
      ' ',
    )
    const result = await kindling([...flat, ...flags])
    t.is(result.code, 0, result.stderr)
    return result.json.at(-1)! as { profile: ProfileLine[]; loss_last: number }
  }
  const { profile, loss_last } = await bench()
  const calls = Object.fromEntries(profile.map((line) => [line.op, line.calls_per_step]))
  for (const op of ['attention::forward', 'attention::backward', 'linear::forward 128 -> 384'])
    t.is(calls[op], 4)
  t.is(calls['adamw::step'], 1)
  t.is(profile.at(-1)!.op, 'between the ops')
  t.true(Math.abs(profile.reduce((sum, line) => sum + line.share, 0) - 1) < 0.01)
  const again = await bench('--recompute')
  t.is(again.loss_last, loss_last)
  t.is(again.profile.find((line) => line.op === 'attention::forward')!.calls_per_step, 7)
})

test('a run in bf16 learns, continues, is evaluated and generates; f32 arithmetic in its place is said', async (t) => {
  const { folder, flags } = await encoded(t)
  const run = join(folder, 'run')
  const schedule =
    '--dtype bf16 --max-steps 20 --log-interval 10 --sample-interval 20 --stop-at-step'.split(' ')
  const half = await kindling(['train', ...flags, '--run', run, ...schedule, '10', '--json'])
  t.is(half.code, 0, half.stderr)
  const whole = await kindling(['train', '--run', run, '--resume', '--json'])
  t.is(whole.code, 0, whole.stderr)
  t.true((whole.json.at(-1)!['loss'] as number) < (half.json.at(-1)!['loss'] as number))
  const losses = await Promise.all(
    [[], ['--dtype', 'f32']].map(async (more) => {
      const result = await kindling(['eval', '--run', run, '--json', ...more])
      return result.json.at(-1)!['loss'] as number
    }),
  )
  t.true(Math.abs(losses[0]! - losses[1]!) < 0.02, `${losses}`)
  const text = await kindling([
    'generate',
    '--run',
    run,
    '--max-tokens',
    '5',
    '--seed',
    '1',
    '--json',
  ])
  t.is(text.code, 0, text.stderr)
})
