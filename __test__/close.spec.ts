/** `close` returns at once, whatever the object is doing. */
import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { AdamW, Tokenizer, Transformer, generate } from '../src'
import { TINY, countingBatch, rejectsWith, temporaryFolder, writeCorpus } from './helpers'

test.serial('close does not wait for a call that cannot begin', async (t) => {
  // Opening a pipe without a writer blocks a thread of libuv's pool. Once all are blocked, no call
  // can begin.
  const pipe = join(temporaryFolder(t), 'pipe')
  execFileSync('mkfifo', [pipe])
  const threads = Number(process.env['UV_THREADPOOL_SIZE'] ?? 4)
  const readers = Array.from({ length: threads }, () => open(pipe, 'r'))
  const model = new Transformer(TINY)
  const optimizer = new AdamW(model)
  let settled = false
  const call = optimizer.clipGradNorm(1).finally(() => (settled = true))
  try {
    await optimizer.close()
    await model.close()
    t.false(settled)
    await rejectsWith(t, 'ERR_CLOSED', () => model.loss(countingBatch()))
    await rejectsWith(t, 'ERR_CLOSED', () => optimizer.step())
  } finally {
    // Opening a writer unblocks all readers.
    const writer = openSync(pipe, constants.O_RDWR)
    for (const reader of readers) await (await reader).close()
    closeSync(writer)
  }
  t.is(await call, 0, 'the pending call still completes')
})

test('close does not wait for a call that is running', async (t) => {
  const model = new Transformer({ ...TINY, vocabSize: 4096, dModel: 256, maxSeqLength: 256 })
  let settled = false
  const call = model.loss(countingBatch(8, 256)).finally(() => (settled = true))
  await model.close()
  t.false(settled)
  t.true((await call) > 0)
})

test('close does not wait for generated text that nobody reads', async (t) => {
  const corpus = writeCorpus(temporaryFolder(t))
  const tokenizer = await Tokenizer.train([corpus], { vocabSize: 300 })
  const model = new Transformer({ ...TINY, vocabSize: 300 })
  const texts = generate(model, tokenizer, 'sea', { maxTokens: 1_000_000, seed: 1 })
  t.is((await texts.next()).value, 'sea')
  await texts.next()
  await model.close()
  await rejectsWith(t, 'ERR_CLOSED', () => texts.next())
})
