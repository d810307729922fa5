/** Settings and data that were changed between two commands; scripts/campaigns/damage.js has more. */
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Tokenizer, TokenStore, Trainer } from '../src'
import { loadRun } from '../src/training/load-run'
import { rejectsWith, temporaryFolder, writeCorpus } from './helpers'

const SHORT = {
  ...{ dModel: 16, numHeads: 4, dFf: 24, numLayers: 1, seqLength: 8, batchSize: 2 },
  ...{ maxSteps: 2, sampleInterval: 0, device: 'cpu', threads: 1 },
}

/** Encodes a corpus, and trains a run on it. */
async function trained(t: ExecutionContext): Promise<{ data: string; run: string }> {
  const folder = temporaryFolder(t)
  const [data, run] = [join(folder, 'data'), join(folder, 'run')]
  const corpus = writeCorpus(folder)
  const tokenizer = await Tokenizer.train([corpus], { vocabSize: 280 })
  await TokenStore.encodeFiles([corpus], tokenizer, data, { validFraction: 0.2 })
  await new Trainer({ ...SHORT, data, run }).run()
  return { data, run }
}

test('a changed config.json is refused, unless its checksum was removed on purpose', async (t) => {
  const { run } = await trained(t)
  const path = join(run, 'config.json')
  const whole = readFileSync(path, 'utf8')
  const edited = whole.replace('"lr": 0.0001', '"lr": 0.0003')
  t.not(edited, whole)
  writeFileSync(path, edited)
  const message = await rejectsWith(t, 'ERR_INVALID_CHECKPOINT', () => loadRun({ run }))
  t.regex(message, /remove the line with the checksum/)
  writeFileSync(path, edited.replace(/,\n {2}"checksum": "[^"]*"/, ''))
  t.is((await loadRun({ run })).config.options.lr, 0.0003)
})

test('training does not start on a chunk with a flipped bit', async (t) => {
  const { data } = await trained(t)
  for (const store of ['train_chunks', 'valid_chunks']) {
    const path = join(data, store, 'encoded_tokens_chunk_0.dat')
    const whole = readFileSync(path)
    const copy = Buffer.from(whole)
    copy[100]! ^= 1
    writeFileSync(path, copy)
    const other = join(data, '..', 'other')
    const start = new Trainer({ ...SHORT, data, run: other })
    await rejectsWith(t, 'ERR_INVALID_STORE', () => start.run())
    writeFileSync(path, whole)
  }
})

test('training does not start with a tokenizer other than that of the data', async (t) => {
  const { data } = await trained(t)
  const corpus = writeCorpus(temporaryFolder(t))
  const other = await Tokenizer.train([corpus], { vocabSize: 279 })
  const folder = temporaryFolder(t)
  await other.save(folder)
  copyFileSync(join(folder, 'tokenizer.json'), join(data, 'tokenizer', 'tokenizer.json'))
  const start = new Trainer({ ...SHORT, data, run: join(folder, 'run') })
  await rejectsWith(t, 'ERR_INVALID_TOKENIZER', () => start.run())
})
