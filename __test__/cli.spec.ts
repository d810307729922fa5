/** The command line: what it prints, its exit codes, and what it leaves on the disk. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { SnakeCased } from '../src/case'
import type { ProfileLine } from '../src/cli/bench/profile'
import { failed, kindling, succeed, words } from './command-line'
import { temporaryFolder, writeCorpus } from './helpers'
import { SMALL, encodeCorpus } from './small-runs'

/** Fields that differ between two equal runs. */
const UNTIMED = { tokens_per_second: 0, elapsed_s: 0, memory_mib: 0 }

test('train, eval and generate work, and --json prints nothing but JSON to stdout', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const run = join(folder, 'run')
  const trained = await succeed(t, [
    ...['train', ...flags, '--run', run, '--json'],
    ...words('--max-steps 30 --log-interval 10 --eval-interval 15 --sample-interval 30'),
    ...words('--save-interval 10 --keep 2'),
  ])
  const lines = trained.json.slice(0, -1)
  t.deepEqual(
    lines.map((line) => line['step']),
    [10, 15, 20, 30],
  )
  const summary = trained.json.at(-1)!
  t.deepEqual(Object.keys(summary), words('steps loss val_loss run'))
  const metrics = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trim().split('\n')
  t.deepEqual(
    metrics.map((line) => JSON.parse(line) as unknown),
    lines,
  )
  t.deepEqual(readdirSync(join(run, 'checkpoints')), ['step-00000020', 'step-00000030'])
  t.is(readFileSync(join(run, 'latest'), 'utf8').trim(), 'step-00000030')
  t.is(typeof lines.at(-1)!['sample'], 'string')

  const evaluated = (await succeed(t, ['eval', '--run', run, '--json'])).json.at(-1)!
  t.deepEqual(Object.keys(evaluated), words('loss perplexity bits_per_byte tokens'))
  t.true(Math.abs((evaluated['loss'] as number) - (summary['val_loss'] as number)) < 1e-6)

  const generate = ['generate', '--run', run, ...words('--max-tokens 5 --seed 3')]
  const { json } = await succeed(t, [...generate, ...words('--prompt the --prompt a --json')])
  t.is(json.length, 2)
  t.deepEqual(Object.keys(json[0]!), words('prompt text ids stop_reason tokens_per_second seed'))
  const text = json[0]!['text'] as string
  t.true(text.startsWith('the'))
  const plain = await succeed(t, [...generate, '--prompt', 'the'])
  t.is(plain.stdout, `${text}\n`)
  const unechoed = await succeed(t, [...generate, '--prompt', 'the', '--no-echo'])
  t.is(`the${unechoed.stdout}`, plain.stdout)
})

test('a run that is resumed with other threads is identical, byte for byte', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const whole = join(folder, 'whole')
  const parts = join(folder, 'parts')
  const train = [
    ...['train', ...flags],
    ...words('--max-steps 40 --log-interval 7 --eval-interval 10'),
    ...words('--sample-interval 20 --save-interval 20'),
  ]
  await succeed(t, [...train, '--run', whole])
  await succeed(t, [...train, '--run', parts, '--stop-at-step', '18'])
  t.is(readFileSync(join(parts, 'latest'), 'utf8').trim(), 'step-00000018')
  const resume = ['train', '--run', parts, '--resume']
  const resumed = await succeed(t, [...resume, '--threads', '3'])
  t.regex(resumed.stderr, /resuming .* at step 18 of 40/)
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
      .map((line) => ({ ...(JSON.parse(line) as object), ...UNTIMED }))
  t.deepEqual(untimed(parts), untimed(whole))

  const again = await succeed(t, [...resume, '--json'])
  t.regex(again.stderr, /is finished: 40 of 40 steps done/)
  t.is(again.json.at(-1)!['steps'], 40)
  failed(t, await kindling([...resume, '--lr', '5']), {
    exit: 1,
    code: 'ERR_RESUME_MISMATCH',
    message: /lr is 5 but the run has 0.01/,
  })
  failed(t, await kindling(['train', ...flags, '--run', parts]), {
    exit: 1,
    code: 'ERR_RUN_EXISTS',
    message: /--resume/,
  })
})

test('Ctrl-C saves a checkpoint and exits with 130, and the run resumes', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const run = join(folder, 'run')
  const schedule = words('--max-steps 100000 --log-interval 5 --sample-interval 0')
  const stopped = await kindling(['train', ...flags, ...schedule, '--run', run], (child) => {
    child.stdout!.once('data', () => child.kill('SIGINT'))
  })
  t.is(stopped.code, 130, stopped.stderr)
  const name = readFileSync(join(run, 'latest'), 'utf8').trim()
  const step = Number(name.slice('step-'.length))
  t.true(step >= 5 && existsSync(join(run, 'checkpoints', name, 'state.json')))
  const resume = ['train', '--run', run, '--resume', '--stop-at-step', `${step + 3}`, '--json']
  t.is((await succeed(t, resume)).json.at(-1)!['steps'], step + 3)
})

test('a run without a checkpoint starts over and says so', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const run = join(folder, 'run')
  await succeed(t, ['train', ...flags, '--run', run, ...words('--max-steps 2 --sample-interval 0')])
  rmSync(join(run, 'checkpoints'), { recursive: true })
  const again = await succeed(t, ['train', '--run', run, '--resume'])
  t.regex(again.stderr, /has no checkpoint; starting over/)
})

test('a corpus is encoded once, and again if it changes', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const data = join(folder, 'data')
  const flags = ['--corpus', corpus, '--data-dir', data, ...SMALL]
  const schedule = words('--vocab-size 280 --max-steps 1 --sample-interval 0')
  const writtenAfterTraining = async (name: string): Promise<number> => {
    await succeed(t, ['train', ...flags, ...schedule, '--run', join(folder, name)])
    return statSync(join(data, 'corpus', 'train_chunks', 'store.json')).mtimeMs
  }
  const written = await writtenAfterTraining('first')
  t.is(await writtenAfterTraining('second'), written)
  writeFileSync(corpus, `${readFileSync(corpus, 'utf8')} and more`)
  t.not(await writtenAfterTraining('third'), written)
})

test('bad input prints one coded line, sets the exit code and writes nothing', async (t) => {
  const { folder, data, flags } = await encodeCorpus(t)
  const out = join(folder, 'out')
  const empty = join(folder, 'empty.txt')
  writeFileSync(empty, '')
  const missing = join(folder, 'missing.txt')
  const tokenizer = ['--tokenizer', join(folder, 'tokenizer')]
  const trainTokenizer = words('tokenizer train --vocab-size 300 --out').concat(out)
  const train = ['train', ...flags, '--run', out]
  const cases: [string[], number, string, RegExp][] = [
    [['train', '--learning-rate', '1'], 2, 'ERR_USAGE', /unknown option '--learning-rate'/],
    [['trian'], 2, 'ERR_USAGE', /Did you mean train/],
    [[...trainTokenizer, missing], 1, 'ERR_NOT_FOUND', /missing/],
    [[...trainTokenizer, empty], 1, 'ERR_EMPTY_CORPUS', /empty/],
    [['encode', missing, ...tokenizer, '--out', out], 1, 'ERR_NOT_FOUND', /missing/],
    [['encode', empty, ...tokenizer, '--out', out], 1, 'ERR_EMPTY_CORPUS', /empty/],
    [['train', '--run', out], 2, 'ERR_USAGE', /no training data/],
    [['train', '--corpus', missing, '--run', out], 1, 'ERR_NOT_FOUND', /missing/],
    [[...train, ...words('--lr NaN')], 2, 'ERR_USAGE', /lr/],
    [[...train, ...words('--lr -1')], 2, 'ERR_USAGE', /lr/],
    [[...train, ...words('--d-model 18 --num-heads 4')], 2, 'ERR_INVALID_CONFIG', /divisible/],
    [[...train, ...words('--d-model 6 --num-heads 2')], 2, 'ERR_INVALID_CONFIG', /odd/],
    [[...train, ...words('--vocab-size 100')], 2, 'ERR_INVALID_CONFIG', /below the tokenizer's/],
    [
      [...train, ...words('--seq-length 9000 --max-seq-length 9000')],
      1,
      'ERR_STORE_TOO_SHORT',
      /--seq-length/,
    ],
    [[...train, ...words('--device cuda')], 1, 'ERR_DEVICE_UNAVAILABLE', /cpu/],
    [[...train, ...words('--dtype f16')], 2, 'ERR_USAGE', /dtype/],
    [[...train, '--resume'], 1, 'ERR_NOT_FOUND', /not a run/],
    [['generate', '--run', out], 1, 'ERR_NOT_FOUND', /not a run/],
    [['eval'], 2, 'ERR_USAGE', /--run/],
  ]
  for (const [args, exit, code, message] of cases) {
    const finished = await kindling(args)
    failed(t, finished, { exit, code, message })
    t.is(finished.stdout, '')
    t.false(existsSync(out), code)
  }
  const asJson = await kindling(['train', '--run', out, '--json'])
  t.is(asJson.code, 2)
  t.deepEqual(Object.keys(asJson.json[0]!['error'] as object), ['code', 'message'])
  t.deepEqual(readdirSync(folder).sort(), ['corpus.txt', 'data', 'empty.txt', 'tokenizer'])
  t.true(existsSync(join(data, 'train_chunks')))
})

test('an id beyond the vocabulary is refused with its position in the store', async (t) => {
  const folder = temporaryFolder(t)
  const store = join(folder, 'mine_chunks')
  mkdirSync(store)
  const ids = Int32Array.from({ length: 400 }, (_, i) => (i === 123 ? 32_000 : i % 50))
  writeFileSync(join(store, 'encoded_tokens_chunk_0.dat'), ids)
  const run = join(folder, 'run')
  const train = ['train', '--data', store, ...SMALL, '--run', run, '--vocab-path', 'none']
  failed(t, await kindling(train), {
    exit: 1,
    code: 'ERR_TOKEN_OUT_OF_RANGE',
    message: /token id 32000 at position 123/,
  })
  t.false(existsSync(run))
})

test('a folder without write permission is a coded error', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const locked = join(folder, 'locked')
  mkdirSync(locked)
  chmodSync(locked, 0o500)
  t.teardown(() => chmodSync(locked, 0o700))
  if (process.getuid?.() === 0) {
    t.pass('root may write anywhere; scripts/campaigns/refused-writes.js uses a read-only mount')
    return
  }
  failed(t, await kindling(['train', ...flags, '--run', join(locked, 'run')]), {
    exit: 1,
    code: 'ERR_NOT_WRITABLE',
    message: /another folder/,
  })
})

test('help shows the choices, the kind of value and the default of a flag', async (t) => {
  const { stdout } = await succeed(t, ['eval', '--help'])
  t.regex(stdout, /--dtype <f32\|bf16> /)
  t.regex(stdout, /--run <dir> /)
  const bench = (await succeed(t, ['bench', 'encode', '--help'])).stdout
  t.regex(bench, /--file <file\.\.\.> /)
  t.regex(bench, /--threads <n> /)
  t.regex(bench, /--special-tokens <text\.\.\.>[^-]*\(default:\s+<\|endoftext\|>\)/)
})

test('train --config-schema prints the JSON Schema of the config file', async (t) => {
  const { stdout } = await succeed(t, ['train', '--config-schema'])
  const schema = JSON.parse(stdout) as Record<string, unknown>
  t.is(schema['additionalProperties'], false)
  const { dtype } = schema['properties'] as { dtype: Record<string, unknown> }
  t.deepEqual(dtype['enum'], ['f32', 'bf16'])
  t.is(dtype['default'], 'f32')
})

test('bench gemm multiplies the rows of --batch, and the output layer a block of them', async (t) => {
  const args = words('bench gemm --preset tinystories --batch 9 --steps 1 --warmup 0 --json')
  const { json } = await succeed(t, [...args, '--device', 'cpu'])
  const rows = new Map(json.map((line) => [line['name'], line['rows']]))
  t.is(rows.get('qkv'), 9 * 256)
  // Three blocks of 768 rows: at most 1024 fit one.
  t.is(rows.get('output'), 768)
})

test('bench train --profile lists every op, and the shares add up to the step', async (t) => {
  const bench = words('bench train --preset char --batch 1 --steps 2 --warmup 1 --json --profile')
  const run = async (...more: string[]) =>
    (await succeed(t, [...bench, ...more])).json.at(-1)! as {
      profile: SnakeCased<ProfileLine>[]
      loss_last: number
    }
  const { profile, loss_last } = await run()
  const calls = Object.fromEntries(profile.map((line) => [line.op, line.calls_per_step]))
  for (const op of ['attention::forward', 'attention::backward', 'linear::forward 128 -> 384'])
    t.is(calls[op], 4)
  t.is(calls['adamw::step'], 1)
  t.is(profile.at(-1)!.op, 'between the ops')
  t.true(Math.abs(profile.reduce((sum, line) => sum + line.share, 0) - 1) < 0.01)
  // With --recompute, all blocks but the last run their forward pass twice, to the same loss.
  const recomputed = await run('--recompute')
  t.is(recomputed.loss_last, loss_last)
  const attention = recomputed.profile.find((line) => line.op === 'attention::forward')!
  t.is(attention.calls_per_step, 7)
})

test('bench generate --batch runs one product for the rows of all prompts', async (t) => {
  const bench = words('bench generate --preset char --max-tokens 4 --profile --json --device cpu')
  const run = async (batch: string) =>
    (await succeed(t, [...bench, '--batch', batch])).json.at(-1)! as {
      profile: SnakeCased<ProfileLine>[]
      tokens_per_second: number
      prompt_tokens_per_second: number
    }
  for (const batch of [1, 3]) {
    const { profile, tokens_per_second, prompt_tokens_per_second } = await run(String(batch))
    t.true(tokens_per_second > 0 && prompt_tokens_per_second > 0)
    const calls = Object.fromEntries(profile.map((line) => [line.op, line.calls_per_step]))
    // The first of 4 tokens comes from a pass over each prompt, the others from 3 steps. The model
    // has 4 blocks.
    t.is(calls['linear::forward 128 -> 384'], (4 * batch + 4 * 3) / 4)
    t.is(calls['attention::decode'], (4 * 3) / 4)
  }
})

test('a bf16 run learns, resumes, evaluates in both dtypes and generates', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const run = join(folder, 'run')
  const schedule = words('--dtype bf16 --max-steps 20 --log-interval 10 --sample-interval 20')
  const train = ['train', ...flags, '--run', run, ...schedule, '--stop-at-step', '10', '--json']
  const half = await succeed(t, train)
  const whole = await succeed(t, ['train', '--run', run, '--resume', '--json'])
  t.true((whole.json.at(-1)!['loss'] as number) < (half.json.at(-1)!['loss'] as number))
  const [bf16, f32] = await Promise.all(
    [[], ['--dtype', 'f32']].map(async (more) => {
      const { json } = await succeed(t, ['eval', '--run', run, '--json', ...more])
      return json.at(-1)!['loss'] as number
    }),
  )
  t.true(Math.abs(bf16! - f32!) < 0.02, `${bf16} and ${f32}`)
  await succeed(t, ['generate', '--run', run, ...words('--max-tokens 5 --seed 1 --json')])
})
