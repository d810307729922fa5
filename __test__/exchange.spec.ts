/** Models in and out: import, export, training that starts from a model, and what they refuse. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { exportModel, load, save } from '../src'
import { failed, kindling, succeed, words } from './command-line'
import { rejectsWith, temporaryFolder } from './helpers'
import { encodeCorpus } from './small-runs'

const FIXTURES = join(__dirname, '../crates/kindling-core/tests/fixtures/exchange/models')
const LLAMA = join(FIXTURES, 'llama')

interface Expected {
  ids: number[]
  logits: number[]
}

/** The logits that transformers computes. */
const EXPECTED = JSON.parse(readFileSync(join(LLAMA, 'expected.json'), 'utf8')) as Expected

async function logitsOf(source: string): Promise<Float32Array> {
  const { model } = await load(source)
  return model.logits(Uint32Array.from(EXPECTED.ids))
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)))
}

/** Writes a store of ids below 29, the vocabulary of the fixtures. */
function writeIds(folder: string): string {
  const ids = Uint16Array.from({ length: 2000 }, (_, i) => (i * i + 7 * i) % 29)
  const path = join(folder, 'ids.bin')
  writeFileSync(path, ids)
  return path
}

const TRAINING = words('--batch-size 2 --seq-length 8 --max-steps 6 --lr 1e-2 --threads 1')
const QUIET = words('--eval-interval 0 --sample-interval 0 --save-interval 0')

function weightsOf(run: string, step: number): Buffer {
  const name = `step-${String(step).padStart(8, '0')}`
  return readFileSync(join(run, 'checkpoints', name, 'model.safetensors'))
}

test('an imported model is a run with the logits of transformers', async (t) => {
  const run = join(temporaryFolder(t), 'run')
  const { json } = await succeed(t, ['import', LLAMA, '--out', run, '--json'])
  t.deepEqual(Object.keys(json.at(-1)!), ['params', 'vocab_size', 'max_seq_length', 'out'])
  t.deepEqual(readdirSync(join(run, 'checkpoints')), ['step-00000000'])
  t.true(largestDifference(await logitsOf(run), EXPECTED.logits) < 1e-4)
  t.true(
    largestDifference(await logitsOf(join(run, 'checkpoints/step-00000000')), EXPECTED.logits) <
      1e-4,
  )
  const again = await kindling(['import', LLAMA, '--out', run])
  failed(t, again, { exit: 1, code: 'ERR_RUN_EXISTS', message: /exists/ })
  const resumed = await kindling(['train', '--run', run, '--resume'])
  failed(t, resumed, { exit: 2, code: 'ERR_INVALID_ARGUMENT', message: /--from/ })
})

test('training from a model starts at its weights and resumes exactly', async (t) => {
  const folder = temporaryFolder(t)
  const flags = ['--data', writeIds(folder), '--from', LLAMA, ...TRAINING, ...QUIET]
  const run = (name: string): string => join(folder, name)
  await succeed(t, ['train', ...flags, '--run', run('whole')])
  t.true(largestDifference(await logitsOf(run('whole')), EXPECTED.logits) > 1e-3)
  const start = await logitsOf(join(run('whole'), 'checkpoints/step-00000000'))
  t.true(largestDifference(start, EXPECTED.logits) < 1e-4)

  await succeed(t, ['train', ...flags, '--run', run('parts'), '--stop-at-step', '3'])
  await succeed(t, ['train', '--run', run('parts'), '--resume'])
  t.deepEqual(weightsOf(run('parts'), 6), weightsOf(run('whole'), 6))

  // As if the run had been killed before its first checkpoint: it resumes from its own step 0.
  cpSync(run('whole'), run('killed'), { recursive: true })
  rmSync(join(run('killed'), 'checkpoints/step-00000006'), { recursive: true })
  await succeed(t, ['train', '--run', run('killed'), '--resume'])
  t.deepEqual(weightsOf(run('killed'), 6), weightsOf(run('whole'), 6))
})

test('sizes given with --from must be those of the model', async (t) => {
  const folder = temporaryFolder(t)
  const run = join(folder, 'run')
  const flags = ['train', '--data', writeIds(folder), '--run', run, '--from', LLAMA, ...QUIET]
  const other = await kindling([...flags, ...TRAINING, ...words('--d-model 32 --num-layers 2')])
  failed(t, other, { exit: 2, code: 'ERR_INVALID_CONFIG', message: /--d-model is 32 .* has 24/ })
  t.notRegex(other.stderr, /num_layers/)
  const long = await kindling([...flags, ...TRAINING, '--max-seq-length', '64'])
  failed(t, long, { exit: 2, code: 'ERR_INVALID_CONFIG', message: /--max-seq-length is 64/ })
  t.false(existsSync(run))
})

test('exports of every format load as the same model', async (t) => {
  const folder = temporaryFolder(t)
  const model = await load(LLAMA)
  const logits = await logitsOf(LLAMA)
  const at = (name: string): string => join(folder, name)
  await exportModel(at('hf'), model)
  t.deepEqual(await logitsOf(at('hf')), logits)
  await exportModel(at('model.safetensors'), model, { format: 'safetensors' })
  const { numHeads, maxSeqLength, theta } = model.config.options
  const course = await load(at('model.safetensors'), { numHeads, maxSeqLength, theta })
  // Such a file does not record the eps of the norms.
  const plain = await course.model.logits(Uint32Array.from(EXPECTED.ids))
  t.true(largestDifference(plain, logits) < 1e-3)
  await exportModel(at('half'), model, { dtype: 'bf16' })
  const difference = largestDifference(await logitsOf(at('half')), logits)
  t.true(difference > 0 && difference < 0.3, String(difference))
})

test('what cannot be exported is refused and nothing is written', async (t) => {
  const folder = temporaryFolder(t)
  const model = await load(LLAMA)
  const out = join(folder, 'out')
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => exportModel(out, model, { dtype: 'q8_0' }))
  await rejectsWith(t, 'ERR_NOT_FOUND', () => exportModel(out, model, { format: 'gguf' }))
  t.deepEqual(readdirSync(folder), [])
  mkdirSync(out)
  writeFileSync(join(out, 'precious'), '')
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => exportModel(out, model))
  t.deepEqual(readdirSync(out), ['precious'])
})

test('a failed import leaves nothing', async (t) => {
  const folder = temporaryFolder(t)
  const bad = join(folder, 'bad')
  cpSync(LLAMA, bad, { recursive: true })
  const weights = readFileSync(join(bad, 'model.safetensors'))
  writeFileSync(join(bad, 'model.safetensors'), weights.subarray(0, -100))
  const run = join(folder, 'runs/bad')
  const cut = await kindling(['import', bad, '--out', run])
  failed(t, cut, { exit: 1, code: 'ERR_INVALID_MODEL', message: /model\.safetensors is damaged/ })
  const none = await kindling(['import', join(folder, 'none'), '--out', run])
  failed(t, none, { exit: 1, code: 'ERR_NOT_FOUND', message: /none does not exist/ })
  t.deepEqual(readdirSync(folder), ['bad'])
})

test('a checkpoint of the course needs the number of heads', async (t) => {
  const run = join(temporaryFolder(t), 'run')
  const file = join(FIXTURES, 'course.pt')
  const unknown = await kindling(['import', file, '--out', run])
  failed(t, unknown, { exit: 2, code: 'ERR_INVALID_ARGUMENT', message: /--num-heads/ })
  await succeed(t, ['import', file, '--num-heads', '2', '--out', run])
  const { config } = await load(run)
  t.like(config.options, { numHeads: 2, dModel: 16, dFf: 22, vocabSize: 29, maxSeqLength: 40 })
})

test('a trained run is exported with its tokenizer and a card, and saved again', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const run = join(folder, 'run')
  await succeed(t, ['train', ...flags, '--run', run, '--max-steps', '3', ...QUIET])
  const out = join(folder, 'model')
  await succeed(t, ['export', run, '--out', out])
  await checkCard(t, out, run)
  await succeed(t, ['export', join(run, 'latest'), '--out', join(folder, 'latest')])
  t.is(...([out, join(folder, 'latest')].map(cardOf) as [string, string]))
  const [ours, theirs] = [await load(run), await load(out)]
  const ids = ours.tokenizer!.encode('the old whale')
  t.deepEqual(theirs.tokenizer!.encode('the old whale'), ids)
  t.deepEqual(await theirs.model.logits(ids), await ours.model.logits(ids))
  t.deepEqual(theirs.stopIds, [ours.tokenizer!.tokenId('<|endoftext|>')!])

  const gguf = join(folder, 'model.gguf')
  await succeed(t, ['export', run, '--format', 'gguf', '--out', gguf])
  const again = await load(gguf)
  t.deepEqual(again.tokenizer!.encode('the old whale'), ids)
  t.deepEqual(await again.model.logits(ids), await ours.model.logits(ids))
  t.deepEqual(again.stopIds, theirs.stopIds)

  const copy = join(folder, 'copy')
  await save(copy, theirs)
  const args = ['--prompt', 'the', '--max-tokens', '5', '--temperature', '0', '--json']
  const texts = await Promise.all(
    [[run], [out], [gguf], ['--run', copy]].map((source) =>
      succeed(t, ['generate', ...source, ...args]),
    ),
  )
  const found = texts.map(({ json }) => json[0]!['ids'])
  for (const ids of found) t.deepEqual(ids, found[0])
})

function cardOf(folder: string): string {
  return readFileSync(join(folder, 'README.md'), 'utf8')
}

async function checkCard(t: ExecutionContext, out: string, run: string): Promise<void> {
  const card = cardOf(out)
  t.regex(card, /library_name: transformers/)
  t.regex(card, /^# run$/m)
  // Of the folders on this machine, only the last is named.
  t.regex(card, /- data: `[^/]+\/train_chunks` \(\d+ tokens\)/)
  t.regex(card, /- step 3 of 3, 192 tokens/)
  t.regex(card, /- training loss \d+\.\d+/)
  t.regex(card, /kindling train .*--d-model 16/)
  const config = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8')) as object
  const sizes = { hidden_size: 16, num_attention_heads: 2, model_type: 'llama', head_dim: 8 }
  t.like(config, { ...sizes, rms_norm_eps: 1e-5, rope_theta: 100000 })
  t.true(existsSync(run))
}
