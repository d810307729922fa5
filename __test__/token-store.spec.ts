/** TokenStore: ranges, batches, evaluation windows, encoding of files, damage. */
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { KindlingError, TokenStore, Tokenizer } from '../src'
import { rejectsWith, temporaryFolder, writeCorpus } from './helpers'

/** Writes tokens 0 to length - 1 as chunks without a store.json, as numpy scripts do. */
function writeChunks(folder: string, length: number, chunkSize: number): string {
  const store = join(folder, 'counting_chunks')
  mkdirSync(store)
  for (let start = 0, n = 0; start < length; start += chunkSize, n++) {
    const ids = Int32Array.from(
      { length: Math.min(chunkSize, length - start) },
      (_, i) => start + i,
    )
    writeFileSync(join(store, `encoded_tokens_chunk_${n}.dat`), ids)
  }
  return store
}

async function counting(t: ExecutionContext, length = 103, chunkSize = 10): Promise<TokenStore> {
  return TokenStore.open(writeChunks(temporaryFolder(t), length, chunkSize))
}

function throwsWith(t: ExecutionContext, code: string, work: () => unknown): string {
  const error = t.throws(work, { instanceOf: KindlingError })
  t.is((error as KindlingError | undefined)?.code, code)
  return error?.message ?? ''
}

test('loadByRange returns any range, within and across chunks', async (t) => {
  const store = await counting(t)
  t.is(store.length, 103)
  t.is(store.metadata.chunkSize, 10)
  for (let start = 0; start <= 103; start += 3) {
    for (let end = start; end <= 103; end += 5) {
      t.deepEqual(
        store.loadByRange(start, end),
        Int32Array.from({ length: end - start }, (_, i) => start + i),
      )
    }
  }
  t.is(store.loadByRange(90, 103).at(-1), 102)
})

test('invalid ranges are coded errors', async (t) => {
  const store = await counting(t)
  throwsWith(t, 'ERR_RANGE_OUT_OF_BOUNDS', () => store.loadByRange(0, 104))
  throwsWith(t, 'ERR_RANGE_OUT_OF_BOUNDS', () => store.loadByRange(5, 4))
  throwsWith(t, 'ERR_INVALID_ARGUMENT', () => store.loadByRange(-1, 4))
  throwsWith(t, 'ERR_INVALID_ARGUMENT', () => store.loadByRange(0.5, 4))
  throwsWith(t, 'ERR_INVALID_ARGUMENT', () => store.loadByRange(0, NaN))
  throwsWith(t, 'ERR_INVALID_ARGUMENT', () => store.loadByRange('0' as unknown as number, 4))
})

test('the rows of a batch are windows of the store, and y is x shifted by one', async (t) => {
  const store = await counting(t)
  for (let step = 1; step < 30; step++) {
    const batch = store.batch({ batchSize: 4, seqLength: 25, seed: 1, step })
    t.deepEqual([batch.batchSize, batch.seqLength, batch.x.length], [4, 25, 100])
    t.deepEqual(
      batch.y,
      batch.x.map((id) => id + 1),
    )
    for (let row = 0; row < 4; row++) {
      const [first] = batch.x.subarray(25 * row)
      t.deepEqual(batch.x.slice(25 * row, 25 * row + 25), store.loadByRange(first!, first! + 25))
    }
  }
})

test('a batch is a function of seed, step and micro-batch', async (t) => {
  const store = await counting(t, 100_000, 50_000)
  const x = (options: { seed?: number; step?: number; microBatch?: number }): Int32Array =>
    store.batch({ batchSize: 4, seqLength: 8, step: 1, ...options }).x
  t.deepEqual(x({ seed: 3 }), x({ seed: 3 }))
  t.deepEqual(x({}), x({ seed: 0, microBatch: 0 }))
  t.notDeepEqual(x({ seed: 3 }), x({ seed: 4 }))
  t.notDeepEqual(x({ step: 1 }), x({ step: 2 }))
  t.notDeepEqual(x({ microBatch: 1 }), x({}))
})

test('evaluation windows are consecutive and complete', async (t) => {
  const store = await counting(t)
  t.is(store.numWindows(25), 4)
  t.is(store.numWindows(102), 1)
  const { x, y } = store.evaluationBatch({ seqLength: 25, firstWindow: 1, count: 3 })
  t.deepEqual(
    x,
    Int32Array.from({ length: 75 }, (_, i) => 25 + i),
  )
  t.deepEqual(
    y,
    Int32Array.from({ length: 75 }, (_, i) => 26 + i),
  )
  throwsWith(t, 'ERR_INVALID_ARGUMENT', () =>
    store.evaluationBatch({ seqLength: 25, firstWindow: 2, count: 3 }),
  )
})

test('a store shorter than a window and its target is ERR_STORE_TOO_SHORT', async (t) => {
  const store = await counting(t, 20)
  t.is(store.batch({ batchSize: 1, seqLength: 19, step: 1 }).x.length, 19)
  throwsWith(t, 'ERR_STORE_TOO_SHORT', () => store.batch({ batchSize: 1, seqLength: 20, step: 1 }))
  throwsWith(t, 'ERR_STORE_TOO_SHORT', () => store.numWindows(20))
  throwsWith(t, 'ERR_INVALID_ARGUMENT', () => store.batch({ batchSize: 0, seqLength: 4, step: 1 }))
})

test('checkVocab names the first id outside the vocabulary and its position', async (t) => {
  const store = await counting(t)
  await store.checkVocab(103)
  const message = await rejectsWith(t, 'ERR_TOKEN_OUT_OF_RANGE', () => store.checkVocab(77))
  t.regex(message, /token id 77 at position 77/)
})

test('tokenEntropy of n equally frequent tokens is log(n)', async (t) => {
  const store = await counting(t)
  t.true(Math.abs((await store.tokenEntropy(103)) - Math.log(103)) < 1e-9)
})

test('a damaged store is ERR_INVALID_STORE, a missing one ERR_NOT_FOUND', async (t) => {
  const folder = temporaryFolder(t)
  const store = writeChunks(folder, 30, 10)
  writeFileSync(join(store, 'encoded_tokens_chunk_2.dat'), 'abc')
  await rejectsWith(t, 'ERR_INVALID_STORE', () => TokenStore.open(store))
  await rejectsWith(t, 'ERR_INVALID_STORE', () => TokenStore.open(folder))
  await rejectsWith(t, 'ERR_NOT_FOUND', () => TokenStore.open(join(folder, 'none')))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () =>
    TokenStore.open(undefined as unknown as string),
  )
})

async function trained(
  t: ExecutionContext,
): Promise<{ folder: string; corpus: string; tokenizer: Tokenizer }> {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const tokenizer = await Tokenizer.train([corpus], {
    vocabSize: 300,
    specialTokens: ['<|endoftext|>'],
  })
  return { folder, corpus, tokenizer }
}

test('encode stores the ids of the text with its metadata', async (t) => {
  const { folder, corpus, tokenizer } = await trained(t)
  const out = join(folder, 'data', 'corpus_chunks')
  const store = await TokenStore.encode([corpus], tokenizer, out, { chunkSize: 1_000 })
  const text = readFileSync(corpus, 'utf8')
  t.deepEqual(Uint32Array.from(store.loadByRange(0, store.length)), tokenizer.encode(text))
  t.is(store.metadata.bytes, Buffer.byteLength(text))
  t.is(store.metadata.tokenizerHash, tokenizer.hash)
  t.is(readdirSync(out).length, Math.ceil(store.length / 1_000) + 1)
  t.deepEqual(readdirSync(join(folder, 'data')), ['corpus_chunks'])
  await store.verify()
})

test('validFraction splits off the last tokens for validation', async (t) => {
  const { folder, corpus, tokenizer } = await trained(t)
  const out = join(folder, 'data')
  const summary = await TokenStore.encodeFiles([corpus], tokenizer, out, {
    validFraction: 0.1,
    chunkSize: 700,
  })
  t.deepEqual(readdirSync(out).sort(), ['tokenizer', 'train_chunks', 'valid_chunks'])
  const ids = tokenizer.encode(readFileSync(corpus, 'utf8'))
  t.is(summary.tokens, ids.length)
  const kept = Math.floor(ids.length * 0.9)
  const train = await TokenStore.open(summary.train)
  const valid = await TokenStore.open(summary.valid!)
  t.deepEqual(Uint32Array.from(train.loadByRange(0, train.length)), ids.slice(0, kept))
  t.deepEqual(Uint32Array.from(valid.loadByRange(0, valid.length)), ids.slice(kept))
  t.is(train.metadata.bytes! + valid.metadata.bytes!, summary.bytes)
  t.is(valid.metadata.bytes, tokenizer.decodeBytes(ids.slice(kept)).length)
  t.is((await Tokenizer.open(join(out, 'tokenizer'))).hash, tokenizer.hash)
  await Promise.all([train.verify(), valid.verify()])
})

test('encoding again replaces the store and removes a stale validation store', async (t) => {
  const { folder, corpus, tokenizer } = await trained(t)
  const out = join(folder, 'data')
  await TokenStore.encodeFiles([corpus], tokenizer, out, { validFraction: 0.5 })
  const store = await TokenStore.encode([corpus, corpus], tokenizer, out)
  // Each of several documents ends with <|endoftext|>.
  t.is(store.length, 2 * (tokenizer.encode(readFileSync(corpus, 'utf8')).length + 1))
  t.deepEqual(readdirSync(out).sort(), ['tokenizer', 'train_chunks'])
})

test('invalid UTF-8 becomes U+FFFD, and the summary counts its bytes', async (t) => {
  const { folder, tokenizer } = await trained(t)
  const file = join(folder, 'latin1.txt')
  writeFileSync(file, Buffer.from('caf\u00e9 na\u00efve', 'latin1'))
  const out = join(folder, 'latin1_chunks')
  const summary = await TokenStore.encodeFiles([file], tokenizer, out)
  t.is(summary.replacedBytes, 2)
  const store = await TokenStore.open(out)
  t.is(store.metadata.replacedBytes, 2)
  t.is(tokenizer.decode(store.loadByRange(0, store.length)), 'caf\ufffd na\ufffdve')
})

test('invalid input to encode is a coded error and leaves nothing behind', async (t) => {
  const { folder, corpus, tokenizer } = await trained(t)
  const empty = join(folder, 'empty.txt')
  writeFileSync(empty, '')
  const bare = join(folder, 'bare')
  mkdirSync(bare)
  const before = readdirSync(folder)
  const encode =
    (files: string[], options = {}, out = 'new/deep/x_chunks') =>
    () =>
      TokenStore.encode(files, tokenizer, join(folder, out), options)
  await rejectsWith(t, 'ERR_EMPTY_CORPUS', encode([empty]))
  await rejectsWith(t, 'ERR_NOT_FOUND', encode([join(folder, 'none.txt')]))
  await rejectsWith(t, 'ERR_NOT_FOUND', encode([corpus, join(folder, 'none.txt')]))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', encode([]))
  await rejectsWith(t, 'ERR_NOT_FOUND', encode([bare]))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', encode([corpus], { chunkSize: 0 }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', encode([corpus], { chunkSize: 1.5 }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', encode([corpus], { validFraction: 1 }, 'new/data'))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', encode([corpus], { validFraction: NaN }, 'new/data'))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', encode([corpus], { validFraction: 0.1 }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () =>
    TokenStore.encode([corpus], {} as Tokenizer, join(folder, 'new/x_chunks')),
  )
  t.deepEqual(readdirSync(folder), before)
})

test('encode does not replace a folder with unrelated files', async (t) => {
  const { folder, corpus, tokenizer } = await trained(t)
  const out = join(folder, 'mine_chunks')
  mkdirSync(out)
  writeFileSync(join(out, 'thesis.txt'), 'precious')
  const message = await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () =>
    TokenStore.encode([corpus], tokenizer, out),
  )
  t.true(message.includes('thesis.txt'))
  t.deepEqual(readdirSync(out), ['thesis.txt'])
})

/**
 * Encodes larger and larger files until one call is interrupted before it has finished, however
 * slow timers are. Returns the error.
 */
async function interruption(
  t: ExecutionContext,
  { large, text, out }: { large: string; text: string; out: string },
  encode: () => Promise<unknown>,
): Promise<unknown> {
  for (let copies = 500; copies < 100_000; copies *= 2) {
    writeFileSync(large, text.repeat(copies))
    try {
      await encode()
    } catch (error) {
      return error
    }
    rmSync(out, { recursive: true })
  }
  return t.fail('no call was interrupted')
}

test('progress ends with all bytes done', async (t) => {
  const { folder, corpus, tokenizer } = await trained(t)
  const size = readFileSync(corpus).length
  const reports: [number, number][] = []
  const onProgress = (done: number, total: number): void => void reports.push([done, total])
  await TokenStore.encode([corpus], tokenizer, join(folder, 'x_chunks'), { onProgress })
  t.deepEqual(reports.at(-1), [size, size])
})

test('an aborted encode, or one whose onProgress throws, leaves nothing behind', async (t) => {
  const { folder, tokenizer } = await trained(t)
  const text = readFileSync(join(folder, 'corpus.txt'), 'utf8')
  const large = join(folder, 'large.txt')
  writeFileSync(large, text.repeat(1_000))
  const before = readdirSync(folder)
  const out = join(folder, 'x_chunks')
  const controller = new AbortController()
  const call = TokenStore.encode([large], tokenizer, out, { signal: controller.signal })
  controller.abort()
  await rejectsWith(t, 'ERR_CANCELLED', () => call)
  await rejectsWith(t, 'ERR_CANCELLED', () =>
    TokenStore.encode([large], tokenizer, out, { signal: AbortSignal.abort() }),
  )
  const onProgress = (done: number, total: number): void => {
    if (done < total) throw new RangeError('mine')
  }
  const options = { threads: 1, chunkSize: 1_000, onProgress }
  const error = await interruption(t, { large, text, out }, () =>
    TokenStore.encode([large], tokenizer, out, options),
  )
  t.true(error instanceof RangeError && error.message === 'mine')
  t.deepEqual(readdirSync(folder), before)
})

test('appendEot ends each document of compressed JSON Lines matched by a pattern', async (t) => {
  const { folder, tokenizer } = await trained(t)
  const documents = ['the whale\nand the sea', 'a white ship', 'said the old man']
  const lines = documents.map((text, i) => JSON.stringify({ id: i, text }))
  writeFileSync(join(folder, 'a.jsonl.gz'), gzipSync(`${lines[0]}\n${lines[1]}\n`))
  writeFileSync(join(folder, 'b.jsonl'), lines[2]!)
  const out = join(folder, 'x_chunks')
  const store = await TokenStore.encode([join(folder, '?.jsonl*')], tokenizer, out, {
    appendEot: true,
    tokenDtype: 'uint16',
  })
  const text = tokenizer.decode(store.loadByRange(0, store.length))
  t.is(text, documents.map((document) => `${document}<|endoftext|>`).join(''))
  t.is(store.metadata.dtype, 'uint16')
  t.is(store.metadata.bytes, Buffer.byteLength(text))
  t.is(await store.verify(), 1)
})

test('with keepWhenAborted, the next call continues an aborted one', async (t) => {
  const { folder, corpus, tokenizer } = await trained(t)
  const large = join(folder, 'large.txt')
  const out = join(folder, 'x_chunks')
  const options = { threads: 1, chunkSize: 1_000 }
  const error = await interruption(t, { large, text: readFileSync(corpus, 'utf8'), out }, () => {
    const controller = new AbortController()
    const onProgress = (done: number): void => {
      // The first blocks, of a quarter of a megabyte each, have long been written by then.
      if (done > 2 ** 22) controller.abort()
    }
    const aborted = { ...options, keepWhenAborted: true, signal: controller.signal, onProgress }
    return TokenStore.encode([large], tokenizer, out, aborted)
  })
  t.is((error as KindlingError).code, 'ERR_CANCELLED')
  const { resumedBytes, bytes, train } = await TokenStore.encodeFiles(
    [large],
    tokenizer,
    out,
    options,
  )
  // On a busy machine, the abort may arrive when everything is written but not yet in its place.
  t.true(resumedBytes > 0 && resumedBytes <= bytes)
  t.is((await TokenStore.open(train)).metadata.bytes, readFileSync(large).length)
  t.deepEqual(readdirSync(folder).sort(), ['corpus.txt', 'large.txt', 'x_chunks'])
})

test('damaged gzip and a missing text field are ERR_INVALID_CORPUS', async (t) => {
  const { folder, corpus, tokenizer } = await trained(t)
  const gzip = gzipSync(readFileSync(corpus))
  writeFileSync(join(folder, 'cut.gz'), gzip.subarray(0, gzip.length - 9))
  writeFileSync(join(folder, 'bad.jsonl'), '{"text":"whale"}\n{"txt":"sea"}\n')
  const before = readdirSync(folder)
  const encode = (name: string) => () =>
    TokenStore.encode([join(folder, name)], tokenizer, join(folder, 'x_chunks'))
  t.true((await rejectsWith(t, 'ERR_INVALID_CORPUS', encode('cut.gz'))).includes('gzip'))
  t.true((await rejectsWith(t, 'ERR_INVALID_CORPUS', encode('bad.jsonl'))).includes('line 2'))
  t.deepEqual(readdirSync(folder), before)
})
