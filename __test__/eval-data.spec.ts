/** `kindling eval --data`: a store in any form, or text, gives the loss of the same tokens. */
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { TokenStore, Tokenizer, Trainer, evaluate, load, type Evaluation } from '../src'
import { withEvaluationData } from '../src/training/evaluation-data'
import { loadRun } from '../src/training/load-run'
import { kindling, succeed } from './command-line'
import { rejectsWith, temporaryFolder, writeCorpus } from './helpers'

const TINY_RUN = {
  ...{ dModel: 16, numHeads: 2, dFf: 24, numLayers: 1, maxSeqLength: 16, seqLength: 16 },
  ...{ batchSize: 4, threads: 1, vocabSize: 280, maxSteps: 2, sampleInterval: 0, device: 'cpu' },
}

/** Writes ids as numpy's save does: magic, version 1.0, a padded header, the values. */
function npy(ids: Int32Array): Buffer {
  const header = `{'descr': '<i4', 'fortran_order': False, 'shape': (${ids.length},), }`
  const padded = `${header.padEnd(117)}\n`
  const start = Buffer.from([0x93, ...Buffer.from('NUMPY'), 1, 0, padded.length, 0])
  return Buffer.concat([start, Buffer.from(padded), Buffer.from(ids.buffer)])
}

test('eval takes the output of encode, a store, .npy, .bin or text, and rejects others with that list', async (t) => {
  const folder = temporaryFolder(t)
  const at = (name: string): string => join(folder, name)
  const text = writeCorpus(folder)
  await new Trainer({ ...TINY_RUN, corpus: text, dataDir: folder, run: at('run') }).run()
  const other = at('other.txt')
  writeFileSync(other, readFileSync(text, 'utf8').slice(0, 9000))
  const { model, tokenizer } = await loadRun({ run: at('run'), threads: 1 })
  await TokenStore.encodeFiles([other], tokenizer!, at('enc'))
  const store = await TokenStore.open(at('enc/train_chunks'))
  const ids = store.loadByRange(0, store.length)
  writeFileSync(at('ids.npy'), npy(ids))
  writeFileSync(at('ids.bin'), Uint16Array.from(ids))
  mkdirSync(at('notes'))
  writeFileSync(at('notes/only.md'), readFileSync(other))

  // Text that is encoded on the fly goes here.
  process.env['TMPDIR'] = at('tmp')
  mkdirSync(at('tmp'))
  const options = { tokenizer, message: () => undefined }
  const lossOn = async (name: string): Promise<Evaluation> =>
    withEvaluationData(at(name), options, (found) =>
      evaluate(model, found, { seqLength: 16, batchSize: 4 }),
    )
  const expected = await evaluate(model, store, { seqLength: 16, batchSize: 4 })
  t.true(expected.loss > 0 && expected.bitsPerByte! > 0)
  for (const name of ['enc/train_chunks', 'enc', 'other.txt', 'notes', 'notes/*.md']) {
    t.deepEqual(await lossOn(name), expected, name)
  }
  for (const name of ['ids.npy', 'ids.bin']) {
    t.deepEqual(await lossOn(name), { ...expected, bitsPerByte: null }, name)
  }
  t.deepEqual(readdirSync(at('tmp')), [])
  const args = ['eval', at('run'), '--json', '--threads', '1', '--data']
  t.is((await succeed(t, [...args, other])).json.at(-1)!['loss'], expected.loss)

  mkdirSync(at('pictures'))
  writeFileSync(at('pictures/a.png'), 'x')
  for (const [name, reason] of [
    ['nope', /nope \(no such file or folder\); --data takes .*_chunks folder, a \.npy.*or text/],
    ['pictures', /pictures has no text file.*--data takes/],
    ['*.none', /--data takes/],
  ] as const) {
    t.regex(await rejectsWith(t, 'ERR_NOT_FOUND', () => lossOn(name)), reason)
  }
  const none = { tokenizer: null, message: () => undefined }
  await rejectsWith(t, 'ERR_NOT_FOUND', () => withEvaluationData(other, none, async () => null))
  await model.close()
})

test('data of another tokenizer, and validation data that changed, are refused', async (t) => {
  const folder = temporaryFolder(t)
  const at = (name: string): string => join(folder, name)
  const text = writeCorpus(folder)
  await new Trainer({ ...TINY_RUN, corpus: text, dataDir: at('data'), run: at('run') }).run()
  const data = at('data/corpus')
  const other = await Tokenizer.train([text], { vocabSize: 270 })
  await TokenStore.encodeFiles([text], other, at('other'))
  rmSync(at('other/tokenizer'), { recursive: true })
  const tokenizer = await Tokenizer.open(join(data, 'tokenizer'))
  const options = { tokenizer, message: () => undefined }
  for (const refused of [
    () => withEvaluationData(at('other'), options, async () => null),
    () => new Trainer({ ...TINY_RUN, data, valid: at('other'), run: at('new') }).run(),
    () =>
      new Trainer({ ...TINY_RUN, mixture: [`${data}=1`, `${at('other/train_chunks')}=1`] }).run(),
  ]) {
    const message = await rejectsWith(t, 'ERR_INVALID_TOKENIZER', refused)
    t.regex(message, /other\/train_chunks was not encoded with/)
  }
  await TokenStore.encodeFiles([text, text], tokenizer, data, { validFraction: 0.05 })
  const { code, stderr } = await kindling(['eval', at('run')])
  t.is(code, 1)
  t.regex(stderr, /^ERR_RESUME_MISMATCH: .*valid_chunks: length \d+ is now.*or give other data/m)
})

test('RUN/best and RUN/latest name models, as in the command that a finished run prints', async (t) => {
  const folder = temporaryFolder(t)
  const run = join(folder, 'run')
  const { best } = await new Trainer({
    ...TINY_RUN,
    corpus: writeCorpus(folder),
    dataDir: folder,
    run,
  }).run()
  for (const name of ['best', 'latest']) {
    const { model, step } = await load(join(run, name))
    t.is(step, best!.step)
    await model.close()
  }
  writeFileSync(join(folder, 'best'), 'step-00000002')
  await rejectsWith(t, 'ERR_INVALID_MODEL', () => load(join(folder, 'best')))
})
