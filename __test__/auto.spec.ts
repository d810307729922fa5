/** `kindling train FILE` alone: a model and its training are chosen for the corpus and the machine. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Trainer, flopsPerToken, type RunConfig } from '../src'
import { nextCommand } from '../src/cli/run-text'
import { startWarnings } from '../src/cli/run-warnings'
import { AUTO_SECONDS, chooseSizes, vocabularyFor } from '../src/training/auto-sizes'
import { machineSpeed } from '../src/training/machine-speed'
import { fromCamelCase, resolveOptions } from '../src/training/resolve-options'
import { temporaryFolder, writeCorpus } from './helpers'

const LAPTOP = 200e9
const circumstances = (tokens: number, flops = LAPTOP, vocabSize = 1024) => ({
  ...{ tokens, flops, vocabSize },
  validTokens: Math.floor(tokens / 19),
})

interface Trained {
  options: RunConfig['options']
  messages: string[]
  losses: number[]
}

async function trainFile(t: ExecutionContext, more: object): Promise<Trained> {
  const folder = temporaryFolder(t)
  const run = join(folder, 'run')
  const corpus = writeCorpus(folder)
  const trainer = new Trainer({
    ...{ corpus, dataDir: folder, run, device: 'cpu', sampleInterval: 0, ...more },
  })
  const messages: string[] = []
  const losses: number[] = []
  trainer.on('message', (text) => messages.push(text))
  trainer.on('step', ({ loss }) => losses.push(loss))
  await trainer.run()
  const config = JSON.parse(readFileSync(join(run, 'config.json'), 'utf8')) as {
    options: object
  }
  return { options: resolveOptions(config.options).options as Trained['options'], messages, losses }
}

test('the vocabulary grows with the text', (t) => {
  const sizes = [1e3, 6e5, 4e6, 2e7, 1e8, 2e9, 1e11].map(vocabularyFor)
  t.deepEqual(sizes, [512, 1024, 2048, 4096, 8192, 16_384, 32_000])
})

test('the model grows with the text and with the machine', (t) => {
  const width = (tokens: number, flops: number): number =>
    chooseSizes(circumstances(tokens, flops)).dModel
  t.deepEqual(
    [4e4, 4e5, 1e6, 1e8].map((tokens) => width(tokens, 40e12)),
    [128, 192, 256, 384],
  )
  t.deepEqual(
    [1e9, LAPTOP, 10e12, 1e15].map((flops) => width(1e8, flops)),
    [128, 192, 384, 768],
  )
})

test('training takes ten minutes at most, and eight passes over the text', (t) => {
  for (const tokens of [5e3, 4e5, 3e6, 1e8, 1e10]) {
    for (const flops of [1e9, LAPTOP, 4e13]) {
      for (const vocabSize of [512, 32_000]) {
        const sizes = chooseSizes(circumstances(tokens, flops, vocabSize))
        const { context, trainedTokens, batchTokens, seconds, limit } = sizes
        // The model's own arithmetic, not the estimate that the choice is made with.
        const work = flopsPerToken({ ...sizes, vocabSize }) * trainedTokens
        t.true(work / flops <= AUTO_SECONDS && seconds <= AUTO_SECONDS)
        t.true(trainedTokens <= 8 * tokens && trainedTokens > 0)
        t.is(limit, trainedTokens === 8 * tokens ? 'passes' : 'time')
        t.true(batchTokens >= 512 && batchTokens <= 32_768)
        t.true(context < tokens / 19)
      }
    }
  }
})

test('a file alone trains with chosen options, which config.json records and a second run repeats', async (t) => {
  const first = await trainFile(t, { maxSteps: 1, evalTokens: 128 })
  const { dModel, numLayers, seqLength, maxSeqLength, lr, lrMin, decay, vocabSize } = first.options
  t.deepEqual(
    [dModel, numLayers, maxSeqLength, lr, lrMin, decay],
    [128, 4, 128, 3e-3, 3e-4, 'matrices'],
  )
  t.true(vocabSize <= 512 && seqLength === 128)
  t.is(first.options.dtype, machineSpeed('cpu', 2).dtype)
  t.regex(first.messages.join('\n'), /chosen for \d+ tokens and \d+ threads? of \w+: 4 layers/)
  const again = await trainFile(t, { maxSteps: 1, evalTokens: 128 })
  t.deepEqual(again.losses, first.losses)
  const other = await trainFile(t, { maxSteps: 1, evalTokens: 128, seed: 1 })
  t.notDeepEqual(other.losses, first.losses)
})

test('options that the user gives are kept, and the others are chosen', async (t) => {
  const given = { maxSteps: 1, lr: 1e-3, batchSize: 3, seqLength: 16, dtype: 'f32', decay: 'all' }
  const { options } = await trainFile(t, given)
  t.like(options, { ...given, dModel: 128, lrMin: 1e-4, evalInterval: 1 })
})

test('a model flag, a preset, a config file or encoded data turn the choice of options off', (t) => {
  const folder = temporaryFolder(t)
  const file = join(folder, 'run.json')
  writeFileSync(file, JSON.stringify({ corpus: 'book.txt' }))
  t.true(resolveOptions({ corpus: 'book.txt', lr: 1, run: 'r' }).isAutomatic)
  t.false(resolveOptions({ data: 'data/book' }).isAutomatic)
  t.false(resolveOptions({}, file).isAutomatic)
  for (const model of [{ d_model: 64 }, { vocab_size: 500 }, { preset: 'char' }, { from: 'x' }]) {
    t.false(resolveOptions({ corpus: 'book.txt', ...model }).isAutomatic)
  }
  const {
    preset: _,
    corpus: _corpus,
    ...course
  } = resolveOptions({
    corpus: 'book.txt',
    preset: 'course',
  }).options
  t.deepEqual(fromCamelCase(course), fromCamelCase(resolveOptions({}).options))
  // The list of the course's defaults.
  t.like(course, {
    ...{ dModel: 512, numHeads: 8, dFf: 1344, numLayers: 6, maxSeqLength: 512, seqLength: 256 },
    ...{ batchSize: 32, theta: 100_000, numEpochs: 10, lr: 1e-4, lrMin: 1e-5, warmupRatio: 0.1 },
    ...{ warmfixRatio: 0.9, weightDecay: 0.01, betas: [0.9, 0.95], eps: 1e-8, maxNorm: 1 },
    ...{ dtype: 'f32', decay: 'all', optimizer: 'adamw', logInterval: 20, saveInterval: 500 },
  })
})

test('the next command is about the best checkpoint where the last one has learned by heart', (t) => {
  const next = (
    valLoss: number | null,
    best: number | null,
    interrupted = false,
    run = 'r',
  ): string =>
    nextCommand({
      ...{ steps: 9, loss: 1, valLoss, run, alreadyFinished: false, interrupted },
      best: best === null ? null : { step: 3, valLoss: best },
    })
  t.is(next(4, 3.99), 'next: kindling generate r')
  t.is(next(null, null), 'next: kindling generate r')
  t.is(next(null, null, false, 'my run'), "next: kindling generate 'my run'")
  t.regex(next(4, 3.9), /^next: kindling generate r\/best \(val_loss was 3\.9000 at step 3/)
  t.is(next(4, 3.9, true), 'go on: kindling train --run r --resume')
})

test('a run warns about options that may be unintended, and says what to do', (t) => {
  const warningsOf = (options: object, totalSteps: number, faster: string | null): string[] => {
    const sizes = { seqLength: 16, maxSeqLength: 16, batchSize: 1, accumulate: 1, dtype: 'bf16' }
    const config = {
      ...{ options: { ...sizes, ...options }, totalSteps },
      identity: { train: [{ length: 1000 }, { length: 600 }], valid: null },
    } as unknown as RunConfig
    return startWarnings(config, 2000, faster)
  }
  t.deepEqual(warningsOf({}, 800, 'amx'), [])
  t.regex(warningsOf({}, 900, 'amx')[0]!, /\(2\.0k\).*\(1\.6k\).*9 times.*--max-steps/)
  t.regex(
    warningsOf({ maxSeqLength: 32 }, 1, 'amx')[0]!,
    /positions from 16 to 32 are never trained/,
  )
  t.deepEqual(warningsOf({ maxSeqLength: 32, from: 'model' }, 1, 'amx'), [])
  t.regex(warningsOf({ dtype: 'f32' }, 1, 'amx')[0]!, /faster .*\(amx\).*--dtype bf16/)
  t.deepEqual(warningsOf({ dtype: 'f32' }, 1, null), [])
})
