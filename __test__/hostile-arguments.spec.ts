/** Arguments that no type describes: arrays without memory, proxies, cycles, texts of megabytes. */
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { runInNewContext } from 'node:vm'
import test, { type ExecutionContext } from 'ava'
import {
  AdamW,
  ChatTemplate,
  Checkpoint,
  KindlingError,
  TokenStore,
  Tokenizer,
  Trainer,
  Transformer,
  cosineSchedule,
  evaluate,
  exportModel,
  flopsPerToken,
  generateBatch,
  load,
  ops,
  save,
  sweep,
  train,
} from '../src'
import { nearest } from '../src/nearest'
import type { RunConfig } from '../src'
import { TINY, temporaryFolder, writeCorpus } from './helpers'

/** A value that no type allows at its place. */
const wrong = (value: unknown): never => value as never

const cyclic: Record<string, unknown> = {}
cyclic['self'] = cyclic
const throwing = {
  get signal(): never {
    throw new Error('a getter')
  },
}

/** Transfers the memory of an array away, as postMessage can. */
function detached<T extends Int32Array | Uint32Array | Float32Array>(array: T): T {
  structuredClone(array.buffer, { transfer: [array.buffer as ArrayBuffer] })
  return array
}

async function refuses(
  t: ExecutionContext,
  codes: readonly string[],
  calls: Record<string, () => unknown>,
): Promise<void> {
  for (const [what, work] of Object.entries(calls)) {
    let code = 'taken silently'
    try {
      await work()
    } catch (error) {
      code = error instanceof KindlingError ? error.code : `${String(error)} (not coded)`
    }
    t.true(codes.includes(code), `${what}: ${code}`)
  }
}

const ARGUMENT = ['ERR_INVALID_ARGUMENT']

test.serial(
  'a signal that throws leaves no timer behind, which would keep the process alive',
  async (t) => {
    const timers = (): number =>
      process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
    const folder = temporaryFolder(t)
    const before = timers()
    const signal = {
      aborted: false,
      addEventListener: () => {
        throw new Error('no listeners')
      },
      removeEventListener: () => {},
    }
    const options = { vocabSize: 270, signal: wrong(signal), onProgress: () => {} }
    await t.throwsAsync(async () => Tokenizer.train([writeCorpus(folder)], options))
    t.is(timers(), before)
    await refuses(t, ARGUMENT, {
      'a signal that cannot be left': () =>
        Tokenizer.train(['x'], {
          ...options,
          signal: wrong({ aborted: false, addEventListener() {} }),
        }),
    })
  },
)

test('arrays without memory and lists of other things are no token ids', async (t) => {
  const model = new Transformer(TINY)
  const tokenizer = await Tokenizer.train([writeCorpus(temporaryFolder(t))], { vocabSize: 270 })
  const batch = (x: unknown) => (): unknown => model.loss({ x: wrong(x), y: [[2, 3]] })
  await refuses(t, ['ERR_INVALID_ARGUMENT', 'ERR_SHAPE_MISMATCH', 'ERR_TOKEN_OUT_OF_RANGE'], {
    'a detached flat batch': batch(detached(Int32Array.of(1, 2))),
    'a detached row': batch([[1, 2], detached(Int32Array.of(1, 2))]),
    'a detached first row': batch([detached(Uint32Array.of(1, 2))]),
    'a symbol in a row': batch([[1, Symbol('id')]]),
    'a BigInt in a row': batch([[1, 2n]]),
    'an object without a prototype in a row': batch([[1, Object.create(null)]]),
    'a row that only claims to be an Int32Array': batch(Object.create(Int32Array.prototype)),
    'batchSize: a symbol': () =>
      model.loss({ x: [1, 2], y: [1, 2], batchSize: wrong(Symbol('size')) }),
    'decode a symbol': () => tokenizer.decode([wrong(Symbol('id'))]),
    'decode a BigInt': () => tokenizer.decode([wrong(1n)]),
    'decode an object': () => tokenizer.decode([wrong(Object.create(null))]),
    'decode a forgery': () => tokenizer.decode(wrong(Object.create(Int32Array.prototype))),
    'logits of a forgery': () => model.logits(wrong(Object.create(Uint32Array.prototype))),
    'betas that are no list': () => ops.adamw(wrong({ ...adamw(), betas: 5 })),
    'an op of detached ids': () =>
      ops.embedding.forward({
        ids: detached(Int32Array.of(1, 2)),
        weight: new Float32Array(5),
        vocabSize: 3,
        dModel: 2,
      }),
    'a size that cannot be shown': () =>
      ops.softmax.forward({ x: new Float32Array(2), columns: wrong(Object.create(null)) }),
  })
  t.is(tokenizer.decode(detached(Int32Array.of(1, 2))), '')
  t.is(ops.embedding.forward({ ...tables(), ids: detached(Int32Array.of(1)) }).out.length, 0)
})

const adamw = (): Record<string, unknown> => ({
  ...{ param: new Float32Array(1), grad: new Float32Array(1), m: new Float32Array(1) },
  ...{ v: new Float32Array(1), lr: 1, step: 1 },
})
const tables = (): { weight: Float32Array; vocabSize: number; dModel: number } => ({
  ...{ weight: new Float32Array(6), vocabSize: 3, dModel: 2 },
})

test('typed arrays of another realm are arrays', async (t) => {
  const foreign = runInNewContext('Uint32Array.of(1, 2)') as Uint32Array
  const model = new Transformer(TINY)
  t.false(foreign instanceof Uint32Array)
  t.deepEqual(await model.logits(foreign), await model.logits(Uint32Array.of(1, 2)))
})

test('what only looks like an object of Kindling is refused by every function', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const tokenizer = await Tokenizer.train([corpus], { vocabSize: 270 })
  const store = await TokenStore.encode([corpus], tokenizer, join(folder, 'x_chunks'))
  const model = new Transformer({ ...TINY, vocabSize: 270 })
  const sizes = { seqLength: 8, batchSize: 1 }
  const hole: TokenStore[] = []
  hole.length = 1
  const wrapped = <T extends object>(value: T): T => new Proxy(value, {})
  await refuses(t, ARGUMENT, {
    'a wrapped model': () => new AdamW(wrapped(model)),
    'a forged model': () => new AdamW(wrong(Object.create(Transformer.prototype))),
    'a wrapped store': () => evaluate(model, wrapped(store), sizes),
    'a store of null': () => evaluate(model, wrong(null), sizes),
    'a model of null': () => evaluate(wrong(null), store, sizes),
    'a wrapped tokenizer': () => generateBatch(model, wrapped(tokenizer), ['the']),
    'a wrapped batch': () => model.loss(wrapped(store.batch({ ...sizes, step: 1 }))),
    'a wrapped optimizer': () => Checkpoint.save('unused', model, wrapped(new AdamW(model)), 1),
    'a forged store': () => TokenStore.merge([Object.create(TokenStore.prototype)], folder),
    'a hole among the stores': () => TokenStore.merge(hole, folder),
  })
})

test('null, cycles and getters that throw are answered by code everywhere', async (t) => {
  const model = new Transformer(TINY)
  const tokens = { tokenizer: null, companions: { 'chat_template.jinja': 'x' } }
  const state = await model.stateDict()
  const tensor = (change: object): unknown => ({
    ...state,
    'final_norm.g': { ...state['final_norm.g'], ...change },
  })
  const rate = cosineSchedule({ lrMax: 1, lrMin: 0, warmupSteps: 1, cosineSteps: 2 })
  await refuses(t, ARGUMENT, {
    'a cycle as a path': () => TokenStore.open(wrong(cyclic)),
    'a getter of an option': () => Tokenizer.train(['x'], wrong(throwing)),
    'a proxy that was revoked': revoked,
    'a cycle among the options': () => new Trainer(wrong({ corpus: cyclic })),
    'sweep(options, null)': () => sweep({}, wrong(null)),
    'flopsPerToken(null)': () => flopsPerToken(wrong(null)),
    'flopsPerToken({})': () => flopsPerToken(wrong({})),
    'a step that is no number': () => rate(wrong('x')),
    'load(null)': () => load(wrong(null)),
    "load('')": () => load(''),
    'save(null)': () => save(wrong(null), wrong({ model })),
    'save(run, null)': () => save('unused', wrong(null)),
    'save without a config': () => save('unused', { model, tokenizer: null, config: wrong(null) }),
    'exportModel(null)': () => exportModel(wrong(null), { model, tokenizer: null }),
    'exportModel(out, null)': () => exportModel('unused', wrong(null)),
    'new ChatTemplate(null)': () => new ChatTemplate(wrong(null)),
    'stopIds: null': () => new ChatTemplate({ ...tokens, stopIds: wrong(null) }),
    'a template of 5': () =>
      new ChatTemplate({ tokenizer: null, companions: { 'chat_template.jinja': wrong(5) } }),
    'render(null)': () => new ChatTemplate(tokens).render(wrong(null)),
    'render([null])': () => new ChatTemplate(tokens).render([wrong(null)]),
    'a shape of symbols': () => model.loadStateDict(wrong(tensor({ shape: [Symbol('n')] }))),
    'a shape of BigInts': () => model.loadStateDict(wrong(tensor({ shape: [1n] }))),
  })
})

function revoked(): unknown {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return new Transformer(wrong(proxy))
}

test('a tensor whose shape changes while it is read is read once', async (t) => {
  const model = new Transformer(TINY)
  const state = await model.stateDict()
  let reads = 0
  const { data, shape } = state['final_norm.g']!
  const tensor = {
    data,
    get shape() {
      return reads++ === 0 ? shape : wrong(null)
    },
  }
  await model.loadStateDict({ ...state, 'final_norm.g': tensor })
  t.is(reads, 1)
})

test('a snapshot that is being written can be neither written again nor freed', async (t) => {
  const folder = temporaryFolder(t)
  const model = new Transformer(TINY)
  const optimizer = new AdamW(model)
  const snapshot = (await Checkpoint.snapshot(model, optimizer, 3))!
  await refuses(t, ARGUMENT, { 'write(null)': () => snapshot.write(wrong(null)) })
  const writing = snapshot.write(join(folder, 'first'))
  t.notThrows(() => snapshot.close())
  await refuses(t, ['ERR_CLOSED'], { again: () => snapshot.write(join(folder, 'second')) })
  await writing
  t.is(await Checkpoint.load(join(folder, 'first'), model, optimizer), 3)
})

test('train refuses the optimizer of another model, which would train that one', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const tokenizer = await Tokenizer.train([corpus], { vocabSize: 270 })
  const store = await TokenStore.encode([corpus], tokenizer, join(folder, 'x_chunks'))
  const [model, other] = [0, 1].map(() => new Transformer({ ...TINY, vocabSize: 270 }))
  const options = { store, steps: 1, batchSize: 1, seqLength: 8 }
  await refuses(t, ARGUMENT, {
    'of another one': () =>
      train({ ...options, model: model!, optimizer: new AdamW(other!) }).next(),
  })
  const { value } = await train({ ...options, model: model!, optimizer: new AdamW(model!) }).next()
  t.true(value!.gradNorm! > 0)
})

test('companions are files of the folder that was named, and nothing beside it', async (t) => {
  const folder = temporaryFolder(t)
  const model = new Transformer(TINY)
  const beside = { '../beside.json': '{}' }
  mkdirSync(join(folder, 'in'))
  await refuses(t, ARGUMENT, {
    export: () =>
      exportModel(join(folder, 'in', 'a'), { model, tokenizer: null, companions: beside }),
    save: () =>
      save(join(folder, 'in', 'b'), {
        model,
        tokenizer: null,
        config: config(),
        companions: beside,
      }),
    '..': () =>
      exportModel(join(folder, 'in', 'c'), { model, tokenizer: null, companions: { '..': '' } }),
  })
  t.false(existsSync(join(folder, 'beside.json')))
  t.false(existsSync(join(folder, 'in', 'beside.json')))
})

/** What `save` takes for a model that was not trained. */
function config(): RunConfig {
  return { formatVersion: 1, tokenizerHash: null, totalSteps: 0 } as unknown as RunConfig
}

test('a name of many megabytes is not compared letter by letter', (t) => {
  // A table of edits between them would not fit into memory.
  t.is(nearest('x'.repeat(2 ** 28), ['random', 'epoch']), null)
})
