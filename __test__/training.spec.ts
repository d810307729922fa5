/** A training run through the library: its vocabulary, its files, its events. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  type KindlingError,
  Tokenizer,
  TokenStore,
  Trainer,
  type MetricsLine,
  type TrainerOptions,
  type Transformer,
} from '../src'
import { loadRun } from '../src/training/load-run'
import { TrainingLosses } from '../src/training/losses'
import { rejectsWith, temporaryFolder, writeCorpus } from './helpers'

const SIZES = { dModel: 16, numHeads: 4, dFf: 24, numLayers: 1, seqLength: 8, batchSize: 2 }
const SHORT = {
  ...SIZES,
  maxSteps: 2,
  logInterval: 1,
  sampleInterval: 0,
  device: 'cpu',
  threads: 1,
}

interface Places {
  folder: string
  corpus: string
  run: string
}

function places(t: ExecutionContext): Places {
  const folder = temporaryFolder(t)
  return { folder, corpus: writeCorpus(folder), run: join(folder, 'run') }
}

function readJson(...path: string[]): Record<string, unknown> {
  return JSON.parse(readFileSync(join(...path), 'utf8')) as Record<string, unknown>
}

/** Trains a short run; returns the vocabulary size in its config.json. */
async function vocabSizeOf(run: string, options: TrainerOptions): Promise<unknown> {
  await new Trainer({ ...SHORT, ...options, run }).run()
  return (readJson(run, 'config.json')['options'] as { vocab_size: number }).vocab_size
}

test("a preset's vocabulary grows to the minimum of a trained tokenizer", async (t) => {
  const { folder, corpus, run } = places(t)
  const options = { corpus, dataDir: folder, preset: 'char' }
  t.is(await vocabSizeOf(run, options), 257)
  const { steps } = await new Trainer({ ...SHORT, ...options, run, resume: true }).run()
  t.is(steps, 2)
})

test("the vocabulary is the tokenizer's unless a larger one is given", async (t) => {
  const { folder, corpus, run } = places(t)
  const tokenizer = await Tokenizer.train([corpus], { vocabSize: 300 })
  const data = join(folder, 'data')
  await TokenStore.encodeFiles([corpus], tokenizer, data)
  for (const preset of ['char', 'tinystories']) {
    t.is(await vocabSizeOf(`${run}-${preset}`, { data, preset }), 300)
  }
  t.is(await vocabSizeOf(`${run}-padded`, { data, preset: 'char', vocabSize: 320 }), 320)
  await rejectsWith(t, 'ERR_INVALID_CONFIG', () => vocabSizeOf(run, { data, vocabSize: 299 }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () =>
    vocabSizeOf(run, { corpus, dataDir: folder, vocabSize: 256 }),
  )
})

test('a maxNorm of 0 trains without clipping', async (t) => {
  const { folder, corpus, run } = places(t)
  const losses = async (maxNorm: number): Promise<unknown[]> => {
    const name = `${run}-${maxNorm}`
    const options = { ...SHORT, corpus, dataDir: folder, vocabSize: 280, maxSteps: 4 }
    await new Trainer({ ...options, maxNorm, run: name }).run()
    const lines = readFileSync(join(name, 'metrics.jsonl'), 'utf8').trim().split('\n')
    return lines.map((line) => (JSON.parse(line) as { loss?: number }).loss)
  }
  const unclipped = await losses(0)
  t.deepEqual(unclipped, await losses(1e9))
  t.notDeepEqual(unclipped, await losses(1e-3))
})

test('config.json holds each option once, and is enough to rebuild the model', async (t) => {
  const { folder, corpus, run } = places(t)
  await vocabSizeOf(run, { corpus, dataDir: folder, vocabSize: 280 })
  const config = readJson(run, 'config.json')
  t.deepEqual(Object.keys(config), [
    'format_version',
    'options',
    'data',
    'identity',
    'tokenizer_hash',
    'end_of_text',
    'total_steps',
    'checksum',
  ])
  t.like(config['options'], { d_model: 16, vocab_size: 280, seq_length: 8 })
  t.deepEqual(config['data'], {
    train: [{ path: join(folder, 'corpus', 'train_chunks'), weight: 1 }],
    valid: join(folder, 'corpus', 'valid_chunks'),
  })
  const { model, step } = await loadRun({ run })
  t.like(model.options, { vocabSize: 280, dModel: 16, numKvHeads: 4 })
  t.is(step, 2)
})

test('events and the summary are in camelCase, files in snake_case', async (t) => {
  const { folder, corpus, run } = places(t)
  const options = { corpus, dataDir: folder, run, vocabSize: 280, evalInterval: 2, evalTokens: 16 }
  const trainer = new Trainer({ ...SHORT, ...options })
  const lines: MetricsLine[] = []
  trainer.on('metrics', (line) => lines.push(line))
  const summary = await trainer.run()
  const last = lines.at(-1)!
  t.is(summary.valLoss, last.valLoss!)
  t.true(last.gradNorm > 0 && last.tokensPerSecond > 0 && last.bitsPerByte! > 0)
  const written = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trim().split('\n').at(-1)!
  t.deepEqual(Object.keys(JSON.parse(written) as object), [
    'step',
    'tokens',
    'loss',
    'lr',
    'grad_norm',
    'tokens_per_second',
    'elapsed_s',
    'memory_mib',
    'val_loss',
    'perplexity',
    'bits_per_byte',
  ])
  const state = readJson(run, 'checkpoints', 'step-00000002', 'state.json')
  t.deepEqual(Object.keys(state['run'] as object), ['loss_sum', 'loss_count', 'elapsed_s', 'best'])
})

test('a damaged config.json is ERR_INVALID_CHECKPOINT', async (t) => {
  const { folder, corpus, run } = places(t)
  await vocabSizeOf(run, { corpus, dataDir: folder, vocabSize: 280 })
  const path = join(run, 'config.json')
  const config = readJson(path)
  for (const damaged of [
    '{',
    'null',
    JSON.stringify({ ...config, format_version: 2 }),
    JSON.stringify({ ...config, options: { d_model: 'wide' } }),
  ]) {
    writeFileSync(path, damaged)
    await rejectsWith(t, 'ERR_INVALID_CHECKPOINT', () => loadRun({ run }))
  }
})

test('losses left on a GPU are read together, weighted by their updates', async (t) => {
  const taken = [2, 5]
  const model = {
    options: { device: 'cuda' },
    takeLoss: () => Promise.resolve(taken.shift()),
  } as unknown as Transformer
  const losses = new TrainingLosses(model, 'runs/book', { lossSum: 3, lossCount: 1 })
  t.false(losses.readsEveryBatch)
  t.true(losses.shouldRead(false), 'the first update is read')
  losses.add(null, 1)
  await losses.read(1)
  t.is(losses.latest, 2)
  t.false(losses.shouldRead(false))
  t.true(losses.shouldRead(true))
  losses.add(null, 2)
  losses.add(null, 3)
  await losses.read(3)
  await losses.read(3)
  t.deepEqual(losses.state, { lossSum: 3 + 2 + 2 * 5, lossCount: 4 })
  t.is(losses.takeMean(), 15 / 4)
  t.deepEqual(losses.state, { lossSum: 0, lossCount: 0 })
  const error = t.throws(() => losses.add(NaN, 4), { message: /step 4.*runs\/book/ })
  t.is((error as KindlingError).code, 'ERR_NON_FINITE')
})

test('a run with every model option and frozen parameters resumes bit for bit', async (t) => {
  const { folder, corpus, run } = places(t)
  const options: TrainerOptions = {
    ...{ ...SHORT, corpus, dataDir: folder, vocabSize: 280, maxSteps: 4, saveInterval: 1, keep: 9 },
    ...{ headSize: 6, numKvHeads: 2, normEps: 1e-6, qkNorm: true, qkvBias: true },
    ...{ ropeScaling: [8, 1, 4, 16], tieEmbeddings: true, freeze: ['token_embedding*', '*.g'] },
  }
  await new Trainer({ ...options, run }).run()
  const halves = `${run}-halves`
  await new Trainer({ ...options, run: halves, stopAtStep: 2 }).run()
  await new Trainer({ run: halves, resume: true }).run()
  const [whole, resumed] = await Promise.all([run, halves].map((path) => loadRun({ run: path })))
  const weights = await whole!.model.stateDict()
  t.deepEqual(await resumed!.model.stateDict(), weights)
  const first = await loadRun({ checkpoint: join(run, 'checkpoints', 'step-00000001') })
  const early = await first.model.stateDict()
  for (const [name, { data }] of Object.entries(weights)) {
    const isSame = data.every((w, i) => w === early[name]!.data[i])
    t.is(isSame, name.startsWith('token_embedding') || name.endsWith('.g'), name)
  }
  t.like(whole!.model.options, {
    headSize: 6,
    normEps: 1e-6,
    qkNorm: true,
    ropeScaling: {
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositionEmbeddings: 16,
    },
  })
  await rejectsWith(t, 'ERR_RESUME_MISMATCH', () =>
    new Trainer({ run: halves, resume: true, freeze: ['*.g'] }).run(),
  )
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () =>
    new Trainer({ ...options, run: `${run}-wrong`, freeze: ['nothing'] }).run(),
  )
})
