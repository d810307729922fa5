/** Sizes and files that no machine can hold are errors with a code at once. */
import { execFileSync } from 'node:child_process'
import { symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { AdamW, KindlingError, TokenStore, Tokenizer, Transformer } from '../src'
import { TINY, rejectsWith, temporaryFolder } from './helpers'

/** Opens a store of the token 1, in chunks of 2,000. */
async function ones(folder: string): Promise<{ store: TokenStore; chunk: string }> {
  const chunk = (n: number) => join(folder, `encoded_tokens_chunk_${n}.dat`)
  for (const n of [0, 1]) writeFileSync(chunk(n), new Int32Array(2_000).fill(1))
  return { store: await TokenStore.open(folder), chunk: chunk(0) }
}

test('a batch too large for any memory is an error, not an abort', async (t) => {
  const { store } = await ones(temporaryFolder(t))
  for (const batchSize of [2 ** 31, 2 ** 31 + 1, 1_000_000_000]) {
    const error = t.throws(() => store.batch({ batchSize, seqLength: 16, step: 1 }), {
      instanceOf: KindlingError,
    })
    t.is((error as KindlingError).code, 'ERR_INVALID_ARGUMENT')
  }
})

test('a model too large for this machine is an error before it takes memory', async (t) => {
  t.throws(() => new Transformer({ ...TINY, numLayers: 4_294_967_295 }), {
    instanceOf: KindlingError,
  })
  const model = new Transformer({ ...TINY, numHeads: 1, dModel: 2 ** 15, maxSeqLength: 2 ** 24 })
  await rejectsWith(t, 'ERR_OUT_OF_MEMORY', () => model.stateDict())
})

test('a million threads are refused', async (t) => {
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', async () => {
    const model = new Transformer({ ...TINY, threads: 1_000_000 })
    await model.stateDict()
  })
})

test('a chunk that shrinks while batches are drawn is an error, and training goes on', async (t) => {
  const { store, chunk } = await ones(temporaryFolder(t))
  const batch = (step: number) => store.batch({ batchSize: 8, seqLength: 16, step })
  const model = new Transformer(TINY)
  const optimizer = new AdamW(model)
  const first = batch(1)
  truncateSync(chunk, 4096)
  const error = t.throws(() => Array.from({ length: 50 }, (_, i) => batch(i + 1)))
  t.is((error as KindlingError).code, 'ERR_INVALID_STORE')
  await model.forwardBackward(first)
  await optimizer.step({ lr: 1e-3 })
})

test('devices and pipes are refused where a file is read as a whole', async (t) => {
  const folder = temporaryFolder(t)
  symlinkSync('/dev/zero', join(folder, 'tokenizer.json'))
  await rejectsWith(t, 'ERR_INVALID_TOKENIZER', () => Tokenizer.open(folder))
  execFileSync('mkfifo', [join(folder, 'store.json')])
  writeFileSync(join(folder, 'encoded_tokens_chunk_0.dat'), new Int32Array(4))
  await rejectsWith(t, 'ERR_INVALID_STORE', () => TokenStore.open(folder))
})
