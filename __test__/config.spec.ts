/** The options of a run: precedence, checks, and the numbers that follow from them. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { KindlingError } from '../src'
import { toSnakeCase } from '../src/case'
import type { GivenOptions } from '../src/training/config'
import { trainFields } from '../src/training/fields'
import { fromCamelCase, resolveOptions } from '../src/training/resolve-options'
import { PRESETS } from '../src/training/presets'
import { scheduleOf, totalSteps } from '../src/training/run-plan'
import { temporaryFolder } from './helpers'

function errorOf(work: () => unknown): { code: string; message: string } {
  try {
    work()
  } catch (error) {
    if (error instanceof KindlingError) return error
    throw error
  }
  throw new Error('no error was thrown')
}

test("the defaults are the course's", (t) => {
  const { options } = resolveOptions({})
  const expected = {
    d_model: 512,
    num_heads: 8,
    d_ff: 1344,
    num_layers: 6,
    max_seq_length: 512,
    seq_length: 256,
    batch_size: 32,
    theta: 100_000,
    num_epochs: 10,
    lr: 1e-4,
    lr_min: 1e-5,
    warmup_ratio: 0.1,
    warmfix_ratio: 0.9,
    chunk_size: 500_000,
    vocab_path: 'data/vocab_32000.txt',
    merges_path: 'data/merges_32000.txt',
    special_tokens: ['<|endoftext|>'],
    log_interval: 20,
    save_interval: 500,
    weight_decay: 0.01,
    betas: [0.9, 0.95],
    eps: 1e-8,
    max_norm: 1,
    accumulate: 1,
    eval_interval: 500,
    eval_tokens: 262_144,
    sample_interval: 500,
    seed: 0,
    keep: 3,
    decay: 'all',
    optimizer: 'adamw',
    dtype: 'f32',
  } as const
  for (const [name, value] of Object.entries(expected))
    t.deepEqual(toSnakeCase(options)[name as keyof typeof expected], value, name)
  t.is(options.vocabSize, undefined)
})

test('a flag wins over the config file, the file over the preset, the preset over the default', (t) => {
  const file = join(temporaryFolder(t), 'run.json')
  writeFileSync(file, JSON.stringify({ preset: 'char', d_model: 64, batch_size: 5, lr: 0.5 }))
  const { options, given } = resolveOptions({ batch_size: 7 }, file)
  t.is(options.batchSize, 7)
  t.is(options.dModel, 64)
  t.is(options.lr, 0.5)
  t.is(options.numLayers, PRESETS['char']!.num_layers)
  t.is(options.seqLength, 64)
  t.is(options.maxSeqLength, 64)
  t.is(options.vocabSize, 65)
  t.is(options.weightDecay, 0.01)
  t.false(given.has('vocabSize'), 'a preset only sets its default')
  t.true(given.has('lr') && given.has('numLayers') && !given.has('weightDecay'))
})

test('every option has a description, and a camelCase name in the library', (t) => {
  for (const [name, field] of Object.entries(trainFields)) t.truthy(field.description, name)
  t.deepEqual(fromCamelCase({ dModel: 8, lrMin: 0.1, numKvHeads: 2 }), {
    d_model: 8,
    lr_min: 0.1,
    num_kv_heads: 2,
  })
})

test('errors name the option with the invalid value', (t) => {
  for (const [flags, code, words] of [
    [{ lr: NaN }, 'ERR_USAGE', /lr/],
    [{ lr: -1 }, 'ERR_USAGE', /lr/],
    [{ lr: 'fast' }, 'ERR_USAGE', /lr/],
    [{ weight_decay: Infinity }, 'ERR_USAGE', /weight_decay/],
    [{ batch_size: 0 }, 'ERR_USAGE', /batch_size/],
    [{ betas: [0.9] }, 'ERR_USAGE', /betas/],
    [{ betas: [0.9, 1] }, 'ERR_USAGE', /betas/],
    [{ warmup_ratio: 1.5 }, 'ERR_USAGE', /warmup_ratio/],
    [{ num_epochs: 0 }, 'ERR_USAGE', /num_epochs/],
    [{ device: 'tpu' }, 'ERR_USAGE', /cpu, cuda or cuda:N/],
    [{ preset: 'huge' }, 'ERR_USAGE', /preset/],
    [{ learning_rate: 1 }, 'ERR_USAGE', /unknown option learning_rate/],
    [{ d_model: 30, num_heads: 4 }, 'ERR_INVALID_CONFIG', /30 is not divisible by num_heads 4/],
    [{ d_model: 12, num_heads: 4 }, 'ERR_INVALID_CONFIG', /head size 3 .* is odd/],
    [{ num_kv_heads: 3 }, 'ERR_INVALID_CONFIG', /num_kv_heads 3/],
    [{ seq_length: 1024 }, 'ERR_INVALID_CONFIG', /above max_seq_length 512/],
    [{ warmup_ratio: 0.95 }, 'ERR_INVALID_CONFIG', /warmfix_ratio/],
  ] as const) {
    const error = errorOf(() => resolveOptions(flags as GivenOptions))
    t.is(error.code, code, JSON.stringify(flags))
    t.regex(error.message, words)
  }
  t.is(errorOf(() => resolveOptions({}, '/nowhere/run.json')).code, 'ERR_NOT_FOUND')
  const file = join(temporaryFolder(t), 'run.json')
  writeFileSync(file, '[1]')
  t.is(errorOf(() => resolveOptions({}, file)).code, 'ERR_USAGE')
})

test('total steps follow from the epochs, the schedule from the ratios', (t) => {
  const { options } = resolveOptions({
    num_epochs: 2.5,
    batch_size: 4,
    seq_length: 10,
    accumulate: 2,
  })
  t.is(totalSteps(options, 1000), 31)
  t.is(totalSteps({ ...options, maxSteps: 7 }, 1000), 7)
  t.is(errorOf(() => totalSteps(options, 31)).code, 'ERR_STORE_TOO_SHORT')
  // config.json of such a run could not be read again.
  for (const numEpochs of [1e16, 1e300]) {
    const endless = errorOf(() => totalSteps({ ...options, numEpochs }, 1000))
    t.is(endless.code, 'ERR_INVALID_CONFIG')
    t.regex(endless.message, /num_epochs/)
  }
  const schedule = scheduleOf(
    { ...options, lr: 1, lrMin: 0.1, warmupRatio: 0.1, warmfixRatio: 0.9 },
    105,
  )
  t.is(schedule(5), 0.5)
  t.is(schedule(10), 1)
  t.true(Math.abs(schedule(52) - 0.55) < 1e-12)
  t.true(Math.abs(schedule(94) - 0.1) < 1e-12)
  t.is(schedule(95), 0.1)
  t.is(schedule(105), 0.1)
})

test('sizes that no machine can hold are refused at once', (t) => {
  for (const [name, value] of Object.entries({
    threads: 200_000,
    num_layers: 10_000_000,
    batch_size: 1_000_000_000,
    accumulate: 2 ** 31,
    seq_length: 2 ** 25,
    max_seq_length: 2 ** 32,
    d_model: 2 ** 40,
    prefetch: 1e6,
  })) {
    const error = t.throws(() => resolveOptions({ [name]: value }), { instanceOf: KindlingError })
    t.is(error?.code, 'ERR_INVALID_ARGUMENT', name)
    t.true(error?.message.startsWith(`${name} must be at most `), error?.message)
  }
  const batch = { batch_size: 2 ** 20, seq_length: 2 ** 12, max_seq_length: 2 ** 12 }
  t.throws(() => resolveOptions(batch), { message: /lower batch_size/ })
})
