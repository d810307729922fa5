/** Wrong arguments: every public function rejects them with a code, and accepts none silently. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  AdamW,
  BatchLoader,
  Checkpoint,
  KindlingError,
  Sgd,
  TokenStore,
  Tokenizer,
  Trainer,
  Transformer,
  account,
  cosineSchedule,
  evaluate,
  generate,
  generateBatch,
  ops,
} from '../src'
import { TINY, countingBatch, temporaryFolder, writeCorpus } from './helpers'

/** Passes a value that the type of the argument does not allow. */
const wrong = (value: unknown): never => value as never

async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work()
  } catch (error) {
    return error instanceof KindlingError ? error.code : `${String(error)} (not coded)`
  }
  return 'taken silently'
}

async function refuses(t: ExecutionContext, calls: Record<string, () => unknown>): Promise<void> {
  for (const [what, work] of Object.entries(calls)) {
    t.is(await codeOf(work), 'ERR_INVALID_ARGUMENT', what)
  }
}

const SIZES = { vocabSize: 50, dModel: 24, numHeads: 4, dFf: 30, numLayers: 3, context: 8 }

test('models and optimizers refuse unknown options, wrong types and null', async (t) => {
  const model = new Transformer(TINY)
  const optimizer = new AdamW(model)
  await refuses(t, {
    'new Transformer()': () => new Transformer(wrong(undefined)),
    'new Transformer(null)': () => new Transformer(wrong(null)),
    'an unknown option': () => new Transformer({ ...TINY, ...({ numlayers: 9 } as object) }),
    'a wrong type': () => new Transformer({ ...TINY, tieEmbeddings: wrong('yes') }),
    'too many threads': () => new Transformer({ ...TINY, threads: 1e6 }),
    'an unknown option of AdamW': () => new AdamW(model, wrong({ weightdecay: 1 })),
    'betas: 5': () => new AdamW(model, { betas: wrong(5) }),
    'groups: null': () => new AdamW(model, { groups: wrong(null) }),
    'a group of null': () => new AdamW(model, { groups: [wrong(null)] }),
    'an unknown option of a group': () =>
      new AdamW(model, { groups: [{ pattern: '*', ...({ wd: 1 } as object) }] }),
    'new AdamW(model, null)': () => new AdamW(model, wrong(null)),
    'new AdamW(null)': () => new AdamW(wrong(null)),
    'new Sgd(model, 3)': () => new Sgd(model, wrong(3)),
    'momentum of Sgd': () => new Sgd(model, wrong({ momentum: 0.9 })),
    "step('x')": () => optimizer.step(wrong('x')),
    'step(null)': () => optimizer.step(wrong(null)),
    'step({ rate })': () => optimizer.step(wrong({ rate: 1 })),
    "clipGradNorm(1, 'x')": () => optimizer.clipGradNorm(1, wrong('x')),
    'clipGradNorm(null)': () => optimizer.clipGradNorm(wrong(null)),
    'forwardBackward(batch, null)': () => model.forwardBackward(countingBatch(), wrong(null)),
    'scale: text': () => model.forwardBackward(countingBatch(), { scale: wrong('1') }),
    'loadStateDict(null)': () => model.loadStateDict(wrong(null)),
    'a negative iteration': () => Checkpoint.save('unused', model, optimizer, -1),
    'an extra of null': () => Checkpoint.save('unused', model, optimizer, 1, wrong(null)),
    'an extra of BigInt': () => Checkpoint.save('unused', model, optimizer, 1, { n: 1n }),
    'load(null)': () => Checkpoint.load(wrong(null), model),
    'load(path, null)': () => Checkpoint.load('unused', wrong(null)),
    'account()': () => account(wrong(undefined)),
    "account('x')": () => account(wrong('x')),
    'an unknown option of account': () => account({ ...SIZES, ...({ layers: 1 } as object) }),
    'too many layers': () => account({ ...SIZES, numLayers: 4_294_967_295 }),
    'cosineSchedule(null)': () => cosineSchedule(wrong(null)),
  })
})

test('tokenizers, stores and generation refuse unknown options, wrong types and null', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const tokenizer = await Tokenizer.train([corpus], { vocabSize: 300 })
  const store = await TokenStore.encode([corpus], tokenizer, join(folder, 'x_chunks'))
  const model = new Transformer({ ...TINY, vocabSize: 300 })
  const batch = { batchSize: 2, seqLength: 8, step: 1 }
  const read = (options: unknown) => () => generate(model, tokenizer, 'the', wrong(options)).next()
  await refuses(t, {
    'train()': () => Tokenizer.train(wrong(undefined), { vocabSize: 300 }),
    'train([null])': () => Tokenizer.train([wrong(null)], { vocabSize: 300 }),
    'train(files)': () => Tokenizer.train([corpus], wrong(undefined)),
    'train(files, null)': () => Tokenizer.train([corpus], wrong(null)),
    'specialTokens: null': () =>
      Tokenizer.train([corpus], { vocabSize: 300, specialTokens: wrong(null) }),
    'an unknown option of train': () =>
      Tokenizer.train([corpus], { vocabSize: 300, ...({ vocab: 1 } as object) }),
    'onProgress: 1': () => Tokenizer.train([corpus], { vocabSize: 300, onProgress: wrong(1) }),
    'fromFiles(null)': () => Tokenizer.fromFiles(wrong(null), wrong(null)),
    'open(null)': () => Tokenizer.open(wrong(null)),
    'encode(null)': () => tokenizer.encode(wrong(null)),
    'decode(null)': () => tokenizer.decode(wrong(null)),
    'decode(undefined)': () => tokenizer.decode(wrong(undefined)),
    "decodeBytes('x')": () => tokenizer.decodeBytes(wrong('x')),
    'countTokens(null)': () => tokenizer.countTokens(wrong(null)),
    'encodeIterable(null)': () => tokenizer.encodeIterable(wrong(null)).next(),
    'encodeFiles(files, tokenizer, null)': () =>
      TokenStore.encodeFiles([corpus], tokenizer, wrong(null)),
    'an unknown option of encodeFiles': () =>
      TokenStore.encodeFiles([corpus], tokenizer, folder, wrong({ chunksize: 1 })),
    'merge(null)': () => TokenStore.merge(wrong(null), folder),
    'merge([null])': () => TokenStore.merge([wrong(null)], folder),
    'merge(stores, null)': () => TokenStore.merge([store], wrong(null)),
    'split(store, text)': () => TokenStore.split(store, wrong('5'), join(folder, 'halves')),
    'batch()': () => store.batch(wrong(undefined)),
    'batch(null)': () => store.batch(wrong(null)),
    'a batch of 2^31 windows': () => store.batch({ ...batch, batchSize: 2 ** 31 }),
    'an unknown option of batch': () => store.batch({ ...batch, ...({ size: 1 } as object) }),
    'sampling: null': () => store.batch({ ...batch, sampling: wrong(null) }),
    'evaluationBatch()': () => store.evaluationBatch(wrong(undefined)),
    'verify(null)': () => store.verify(wrong(null)),
    'new BatchLoader([null])': () => new BatchLoader([wrong(null)], batch),
    'new BatchLoader(store)': () => new BatchLoader(store, wrong(undefined)),
    'next(null)': () => new BatchLoader(store, { batchSize: 1, seqLength: 8 }).next(wrong(null)),
    "signal: 'x'": read({ signal: 'x' }),
    'an unknown option of generate': read({ maxtokens: 1 }),
    'generate(..., null)': read(null),
    'stop: 5': read({ stop: 5 }),
    'generateBatch([null])': () => generateBatch(model, tokenizer, [wrong(null)]),
    'evaluate(model, store, null)': () => evaluate(model, store, wrong(null)),
    'new Trainer(null)': () => new Trainer(wrong(null)),
    "run('x')": () => new Trainer({ corpus }).run(wrong('x')),
    "run({ signal: 'x' })": () => new Trainer({ corpus }).run({ signal: wrong('x') }),
  })
})

test('a trainer without options has no data, and leaves no folder', async (t) => {
  t.is(await codeOf(() => new Trainer(wrong(undefined)).run()), 'ERR_USAGE')
  t.false(existsSync('runs'))
})

test('every op refuses an argument that is not an object', async (t) => {
  const calls: Record<string, () => unknown> = {}
  const add = (name: string, op: unknown): void => {
    if (typeof op === 'function') {
      const call = op as (argument: unknown) => unknown
      for (const value of [null, undefined, 5, 'x', {}]) {
        calls[`${name}(${JSON.stringify(value)})`] = () => call(value)
      }
    } else {
      for (const [key, inner] of Object.entries(op as object)) add(`${name}.${key}`, inner)
    }
  }
  add('ops', ops)
  t.true(Object.keys(calls).length > 60)
  await refuses(t, calls)
})

test('options that are undefined count as left out', async (t) => {
  const model = new Transformer({ ...TINY, theta: wrong(undefined), dtype: wrong(undefined) })
  t.is(model.options.theta, 100_000)
  const optimizer = new AdamW(model, { lr: wrong(undefined), groups: wrong(undefined) })
  await model.forwardBackward(countingBatch(), { scale: wrong(undefined) })
  await optimizer.clipGradNorm(1, wrong({ read: undefined }))
  await optimizer.step({ lr: wrong(undefined) })
  t.true(account({ ...SIZES, mfu: wrong(undefined) }).trainingSeconds > 0)
})
