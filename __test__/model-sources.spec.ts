/** Every kind of source that `load` takes, and what comes with a model: templates, special tokens. */
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Tokenizer, Trainer, Transformer, exportModel, load, save, type LoadOptions } from '../src'
import { succeed } from './command-line'
import { TINY, rejectsWith, temporaryFolder, writeCorpus } from './helpers'

const FIXTURES = join(__dirname, '../crates/kindling-core/tests/fixtures/exchange/models')

interface Expected {
  ids: number[]
  logits: number[]
}

const json = (...path: string[]): unknown => JSON.parse(readFileSync(join(...path), 'utf8'))

async function logitsOf(source: string, ids: number[], options?: LoadOptions): Promise<number[]> {
  const { model } = await load(source, options)
  const logits = [...(await model.logits(Uint32Array.from(ids)))]
  await model.close()
  return logits
}

function largestDifference(a: number[], b: number[]): number {
  return Math.max(...a.map((value, i) => Math.abs(value - b[i]!)))
}

test('load takes a run, a checkpoint, a folder, shards, GGUF, PyTorch and safetensors', async (t) => {
  const folder = temporaryFolder(t)
  const at = (name: string): string => join(folder, name)
  const sharded = join(FIXTURES, 'llama-sharded')
  const { ids, logits } = json(sharded, 'expected.json') as Expected
  const loaded = await load(sharded)
  await save(at('run'), loaded)
  await exportModel(at('hf'), loaded)
  for (const source of [sharded, at('run'), at('run/checkpoints/step-00000000'), at('hf')]) {
    t.true(largestDifference(await logitsOf(source, ids), logits) < 1e-4, source)
  }
  const gguf = json(FIXTURES, 'all-types.json') as Expected
  const ours = await logitsOf(join(FIXTURES, 'all-types.gguf'), gguf.ids)
  t.true(largestDifference(ours, gguf.logits) < 1e-4)

  const pt = join(FIXTURES, 'course.pt')
  const course = await load(pt, { numHeads: 2 })
  await exportModel(at('course.safetensors'), course, { format: 'safetensors' })
  const same = await logitsOf(at('course.safetensors'), ids, { numHeads: 2, maxSeqLength: 40 })
  t.deepEqual(same, await logitsOf(pt, ids, { numHeads: 2 }))
  const sums = (json(FIXTURES, 'course.json') as { sums: Record<string, number> }).sums
  const table = (await course.model.stateDict())['token_embedding.embedding_matrix']!
  const sum = table.data.reduce((total, value) => total + value, 0)
  t.true(Math.abs(sum - sums['token_embedding.embedding_matrix']!) < 1e-6)

  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => load(pt))
  await rejectsWith(t, 'ERR_NOT_FOUND', () => load(at('nothing')))
  await rejectsWith(t, 'ERR_INVALID_MODEL', () => load(__filename))
  await rejectsWith(t, 'ERR_INVALID_MODEL', () => load(folder))
})

test('load, save and exportModel report their bytes, and leave nothing when aborted', async (t) => {
  const folder = temporaryFolder(t)
  const reports: number[][] = []
  const onProgress = (done: number, total: number): unknown => reports.push([done, total])
  const last = (): number[] => reports.splice(0).at(-1) ?? []
  const loaded = await load(join(FIXTURES, 'llama'), { onProgress })
  const bytes = 4 * loaded.model.numParameters
  t.deepEqual(last(), [bytes, bytes])
  const run = join(folder, 'run')
  await save(run, loaded, { onProgress })
  t.deepEqual(last(), [bytes, bytes])
  // A run is read twice, the first time to verify its checksums.
  await load(run, { onProgress })
  t.deepEqual(last(), [2 * bytes, 2 * bytes])
  await exportModel(join(folder, 'hf'), loaded, { dtype: 'f16', onProgress })
  t.deepEqual(last(), [bytes / 2, bytes / 2])

  const before = readdirSync(folder)
  const stop = (): void => {
    throw new RangeError('enough')
  }
  const is = { instanceOf: RangeError, message: 'enough' }
  await t.throwsAsync(load(run, { onProgress: stop }), is)
  await t.throwsAsync(save(join(folder, 'other'), loaded, { onProgress: stop }), is)
  const signal = AbortSignal.abort()
  await rejectsWith(t, 'ERR_CANCELLED', () => load(run, { signal }))
  await rejectsWith(t, 'ERR_CANCELLED', () => save(join(folder, 'other'), loaded, { signal }))
  await rejectsWith(t, 'ERR_CANCELLED', () => exportModel(join(folder, 'o'), loaded, { signal }))
  t.deepEqual(readdirSync(folder), before)
  t.false(existsSync(join(folder, 'other')))
})

test('a failed load leaves the weights that the seed gives', async (t) => {
  const expected = await new Transformer({ ...TINY, seed: 3 }).stateDict()
  const model = new Transformer({ ...TINY, seed: 3 })
  await rejectsWith(t, 'ERR_CHECKPOINT_MISMATCH', () => model.loadStateDict({}))
  t.deepEqual(await model.stateDict(), expected)
  const other = new Transformer({ ...TINY, seed: 4 })
  await other.loadStateDict(expected)
  t.deepEqual(await other.stateDict(), expected)
  const gradients = await other.gradients()
  t.true(Object.values(gradients).every(({ data }) => data.every((value) => value === 0)))
})

/** Returns a tokenizer that puts `<|bos|>` before each text, in the format of Hugging Face. */
async function tokenizerWithTemplate(t: ExecutionContext): Promise<Tokenizer> {
  const folder = temporaryFolder(t)
  const specialTokens = ['<|endoftext|>', '<|bos|>']
  const plain = await Tokenizer.train([writeCorpus(folder)], { vocabSize: 300, specialTokens })
  await plain.save(folder)
  const path = join(folder, 'tokenizer.json')
  const bos = { SpecialToken: { id: '<|bos|>', type_id: 0 } }
  const sequence = (id: string, type_id: number): object => ({ Sequence: { id, type_id } })
  const post_processor = {
    type: 'TemplateProcessing',
    single: [bos, sequence('A', 0)],
    pair: [bos, sequence('A', 0), sequence('B', 1)],
    special_tokens: { '<|bos|>': { id: '<|bos|>', ids: [1], tokens: ['<|bos|>'] } },
  }
  writeFileSync(path, JSON.stringify({ ...(json(path) as object), post_processor }))
  return Tokenizer.open(path)
}

test('addSpecialTokens puts the tokens that the model expects around a text', async (t) => {
  const tokenizer = await tokenizerWithTemplate(t)
  t.deepEqual(tokenizer.template, { before: [1], after: [] })
  const ids = tokenizer.encode('the old whale')
  t.deepEqual([...tokenizer.encode('the old whale', { addSpecialTokens: true })], [1, ...ids])
  t.deepEqual(tokenizer.encode('the old whale', { addSpecialTokens: false }), ids)
  t.throws(() => tokenizer.encode('a', { addSpecialTokens: 1 as never }), {
    code: 'ERR_INVALID_ARGUMENT',
  })
})

test('chat template, special tokens and end of turn survive every format', async (t) => {
  const folder = temporaryFolder(t)
  const tokenizer = await tokenizerWithTemplate(t)
  const model = new Transformer({ ...TINY, vocabSize: tokenizer.vocabSize })
  const template = '{% for m in messages %}<|bos|>{{ m.content }}\n"{% endfor %}'
  const tokens = { bos_token: '<|bos|>', eos_token: { content: '<|endoftext|>', lstrip: false } }
  const companions = {
    'tokenizer_config.json': JSON.stringify({ ...tokens, chat_template: template }),
    'generation_config.json': JSON.stringify({ eos_token_id: [0, 7], temperature: 0.5 }),
  }
  const at = (name: string): string => join(folder, name)
  await exportModel(at('hf'), { model, tokenizer, companions })
  await succeed(t, ['import', at('hf'), '--out', at('run')])
  await succeed(t, ['export', at('run'), '--out', at('again')])
  for (const name of ['hf', 'run', 'again']) {
    const loaded = await load(at(name))
    t.like(loaded.companions, companions, name)
    t.deepEqual(loaded.stopIds, [0, 7], name)
    t.deepEqual(loaded.tokenizer!.template, tokenizer.template, name)
  }
  await succeed(t, ['export', at('run'), '--format', 'gguf', '--out', at('model.gguf')])
  const { companions: found, tokenizer: read } = await load(at('model.gguf'))
  const config = JSON.parse(found['tokenizer_config.json']!) as Record<string, unknown>
  t.like(config, { chat_template: template, bos_token: '<|bos|>', eos_token: '<|endoftext|>' })
  t.deepEqual(read!.template, tokenizer.template)
})

test('a run does not change the parameters that freeze names, even when resumed', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const sizes = { dModel: 16, numHeads: 4, dFf: 24, numLayers: 2, seqLength: 8, batchSize: 2 }
  const quiet = { maxSteps: 4, sampleInterval: 0, evalInterval: 0, device: 'cpu', threads: 1 }
  const options = { ...sizes, ...quiet, corpus, dataDir: folder, vocabSize: 280 }
  const start = join(folder, 'start')
  await new Trainer({ ...options, run: start, maxSteps: 1 }).run()
  const freeze = ['transformer_blocks.0.*', '*.g']
  const run = join(folder, 'run')
  await new Trainer({ ...options, run, from: start, freeze, stopAtStep: 2 }).run()
  await new Trainer({ run, resume: true }).run()
  const [before, after] = [await load(start), await load(run)]
  t.is(after.step, 4)
  const [weights, trained] = [await before.model.stateDict(), await after.model.stateDict()]
  for (const [name, { data }] of Object.entries(weights)) {
    const isFrozen = name.startsWith('transformer_blocks.0.') || name.endsWith('.g')
    t.is(
      data.every((value, i) => value === trained[name]!.data[i]),
      isFrozen,
      name,
    )
  }
  const wrong = { ...options, run: join(folder, 'wrong'), freeze: ['nothing.*'] }
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => new Trainer(wrong).run())
})
