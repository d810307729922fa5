/** Tokenizer: training, files, encoding, decoding, text in pieces. */
import { createReadStream, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { KindlingError, Tokenizer } from '../src'
import { sampleDocuments } from '../src/cli/tokenizer-stats'
import type { TextPieces, TrainTokenizerOptions } from '../src/tokenizer'
import { rejectsWith, temporaryFolder, writeCorpus } from './helpers'

const END = '<|endoftext|>'

async function trained(t: ExecutionContext, specialTokens = [END]): Promise<Tokenizer> {
  return Tokenizer.train([writeCorpus(temporaryFolder(t))], { vocabSize: 300, specialTokens })
}

/** Returns a generator of reproducible pseudo-random numbers below `bound`. */
function generator(seed: number): (bound: number) => number {
  let state = seed
  return (bound) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * bound)
  }
}

/** Returns a text of words, spaces, punctuation, multi-byte characters and special tokens. */
function mixedText(seed: number, words: number): string {
  const draw = generator(seed)
  const parts = [
    'the',
    ' whale',
    ' sea',
    "'ll",
    '  ',
    '\n',
    '42',
    '!?',
    'é',
    ' ß',
    '€',
    '鯨',
    '😀',
    ' 🐋',
    END,
    ' ',
  ]
  return Array.from({ length: words }, () => parts[draw(parts.length)]).join('')
}

async function gather(blocks: AsyncIterable<Uint32Array>): Promise<Uint32Array> {
  const ids: number[] = []
  for await (const block of blocks) for (const id of block) ids.push(id)
  return Uint32Array.from(ids)
}

test('ids are assigned to special tokens, then bytes, then merges', async (t) => {
  const tokenizer = await trained(t, [END, '<|pad|>'])
  t.is(tokenizer.vocabSize, 300)
  t.is(tokenizer.numMerges, 300 - 256 - 2)
  t.deepEqual(tokenizer.specialTokens, { [END]: 0, '<|pad|>': 1 })
  t.is(tokenizer.tokenId(END), 0)
  t.is(tokenizer.tokenId('no such token'), undefined)
  const bytes = Array.from({ length: 256 }, (_, i) => tokenizer.tokenBytes(2 + i)!)
  t.is(new Set(bytes.map(([byte]) => byte)).size, 256)
  t.true(bytes.every(({ length }) => length === 1))
  t.true(tokenizer.tokenBytes(258)!.length === 2)
  t.is(tokenizer.tokenBytes(300), undefined)
})

test('decode inverts encode', async (t) => {
  const tokenizer = await trained(t)
  for (let seed = 0; seed < 20; seed++) {
    const text = mixedText(seed, 200)
    const ids = tokenizer.encode(text)
    t.is(tokenizer.decode(ids), text)
    t.deepEqual(Buffer.from(tokenizer.decodeBytes(ids)), Buffer.from(text))
    t.is(tokenizer.decode([...ids]), text)
  }
  t.is(tokenizer.encode('').length, 0)
  t.is(tokenizer.decode([]), '')
})

test('a special token in the text becomes one id', async (t) => {
  const tokenizer = await trained(t)
  const ids = tokenizer.encode(`the${END}whale`)
  t.is(ids.filter((id) => id === 0).length, 1)
})

test('invalid UTF-8 decodes to U+FFFD, and a lone surrogate encodes as U+FFFD', async (t) => {
  const tokenizer = await trained(t)
  const ids = tokenizer.encode('€')
  t.is(tokenizer.decode(ids.slice(0, 1)), '\ufffd')
  t.is(tokenizer.decode(tokenizer.encode('a\ud800b')), 'a\ufffdb')
})

test('an id outside the vocabulary is ERR_TOKEN_OUT_OF_RANGE', async (t) => {
  const tokenizer = await trained(t)
  for (const ids of [[300], [-1], [1.5], [NaN]]) {
    const error = t.throws(() => tokenizer.decode(ids), { instanceOf: KindlingError })
    t.is((error as KindlingError | undefined)?.code, 'ERR_TOKEN_OUT_OF_RANGE', String(ids))
  }
})

test('a saved tokenizer opens from its folder, tokenizer.json, or vocab and merges', async (t) => {
  const tokenizer = await trained(t)
  const folder = join(temporaryFolder(t), 'made', 'tokenizer')
  await tokenizer.save(folder)
  t.deepEqual(readdirSync(folder).sort(), ['merges.txt', 'tokenizer.json', 'vocab.json'])
  const text = mixedText(3, 300)
  for (const same of [
    await Tokenizer.open(folder),
    await Tokenizer.open(join(folder, 'tokenizer.json')),
    await Tokenizer.fromFiles(join(folder, 'vocab.json'), join(folder, 'merges.txt'), [END]),
  ]) {
    t.deepEqual(same.encode(text), tokenizer.encode(text))
    t.deepEqual(same.specialTokens, tokenizer.specialTokens)
    t.is(same.vocabSize, 300)
  }
  t.is((await Tokenizer.open(folder)).hash, tokenizer.hash)
})

test('a special token missing from the vocabulary is appended', async (t) => {
  const tokenizer = await trained(t)
  const folder = join(temporaryFolder(t), 'tokenizer')
  await tokenizer.save(folder)
  const files = [join(folder, 'vocab.json'), join(folder, 'merges.txt')] as const
  const more = await Tokenizer.fromFiles(...files, [END, '<|user|>'])
  t.is(more.tokenId('<|user|>'), 300)
  t.is(more.vocabSize, 301)
  t.deepEqual(more.encode('<|user|>'), Uint32Array.of(300))
  t.not(more.hash, tokenizer.hash)
})

test('a tokenizer of characters has one id per character and no special tokens', async (t) => {
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'text.txt'), 'cab😀cab')
  const tokenizer = await Tokenizer.train([join(folder, 'text.txt')], { type: 'chars' })
  t.is(tokenizer.vocabSize, 4)
  t.deepEqual(tokenizer.specialTokens, {})
  // Sorted by code point: a, b, c, then the emoji.
  t.deepEqual([...tokenizer.encode('abc😀')], [0, 1, 2, 3])
  t.is(tokenizer.decode([2, 0, 1, 3]), 'cab😀')
})

test('training does not depend on the number of threads', async (t) => {
  const corpus = writeCorpus(temporaryFolder(t))
  const hashes = await Promise.all(
    [1, 2, 3].map(
      async (threads) => (await Tokenizer.train([corpus], { vocabSize: 290, threads })).hash,
    ),
  )
  t.is(new Set(hashes).size, 1)
})

test('encodeIterable equals encode wherever the text is split', async (t) => {
  const tokenizer = await trained(t)
  const draw = generator(99)
  for (let seed = 0; seed < 10; seed++) {
    const text = mixedText(seed, 300)
    // Splits between UTF-16 code units: inside words, special tokens and surrogate pairs.
    const pieces: string[] = []
    for (let start = 0; start < text.length;) {
      const end = start + draw(12)
      pieces.push(text.slice(start, end))
      start = end
    }
    t.deepEqual(await gather(tokenizer.encodeIterable(pieces)), tokenizer.encode(text))
  }
})

test('encodeIterable takes every kind of iterable and streams of strings', async (t) => {
  const tokenizer = await trained(t)
  const folder = temporaryFolder(t)
  const text = mixedText(5, 40_000)
  writeFileSync(join(folder, 'text.txt'), text)
  async function* later(): AsyncGenerator<string> {
    yield* [...text]
  }
  const expected = tokenizer.encode(text)
  const kinds: TextPieces[] = [
    [text],
    text,
    new Set([text]),
    later(),
    Readable.from([text.slice(0, 70_001), text.slice(70_001)]),
    createReadStream(join(folder, 'text.txt'), { encoding: 'utf8', highWaterMark: 1_001 }),
  ]
  for (const pieces of kinds) t.deepEqual(await gather(tokenizer.encodeIterable(pieces)), expected)
  t.is((await gather(tokenizer.encodeIterable([]))).length, 0)
  t.is((await gather(tokenizer.encodeIterable(['', '']))).length, 0)
})

test('half a surrogate pair at the end of the text is read as U+FFFD', async (t) => {
  const tokenizer = await trained(t)
  const ids = await gather(tokenizer.encodeIterable(['a', 'b😀'.slice(0, 2)]))
  t.is(tokenizer.decode(ids), 'ab\ufffd')
})

test('encodeIterable yields blocks before the text has ended', async (t) => {
  const tokenizer = await trained(t)
  let given = 0
  function* endless(): Generator<string> {
    for (;;) {
      given++
      yield 'the whale sailed the white sea '.repeat(1_000)
    }
  }
  for await (const block of tokenizer.encodeIterable(endless())) {
    t.true(block.length > 0)
    break
  }
  t.true(given < 100)
})

test('encodeIterable rejects pieces that are not strings and passes on errors', async (t) => {
  const tokenizer = await trained(t)
  const buffers = [Buffer.from('a')] as unknown as string[]
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => gather(tokenizer.encodeIterable(buffers)))
  function* failing(): Generator<string> {
    yield 'a'
    throw new RangeError('mine')
  }
  await t.throwsAsync(gather(tokenizer.encodeIterable(failing())), { instanceOf: RangeError })
})

test('a tokenizer can encode several streams at the same time', async (t) => {
  const tokenizer = await trained(t)
  const texts = [1, 2, 3, 4, 5, 6].map((seed) => mixedText(seed, 5_000))
  const ids = await Promise.all(texts.map((text) => gather(tokenizer.encodeIterable([...text]))))
  texts.forEach((text, i) => t.deepEqual(ids[i], tokenizer.encode(text)))
})

test('invalid input to train and open is a coded error', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const empty = join(folder, 'empty.txt')
  writeFileSync(empty, '')
  const train = (files: unknown, options: unknown) => () =>
    Tokenizer.train(files as string[], options as TrainTokenizerOptions)
  await rejectsWith(t, 'ERR_EMPTY_CORPUS', train([empty], { vocabSize: 300 }))
  await rejectsWith(t, 'ERR_NOT_FOUND', train([join(folder, 'none')], { vocabSize: 300 }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', train([], { vocabSize: 300 }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', train('corpus', { vocabSize: 300 }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', train([corpus], {}))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', train([corpus], { vocabSize: 255 }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', train([corpus], { vocabSize: -5 }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', train([corpus], { vocabSize: '300' }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', train([corpus], { vocabSize: 300, type: 'words' }))
  await rejectsWith(t, 'ERR_NOT_FOUND', () => Tokenizer.open(join(folder, 'none')))
})

test('inconsistent vocabulary and merges are ERR_INVALID_TOKENIZER', async (t) => {
  const folder = temporaryFolder(t)
  const tokenizer = await Tokenizer.train([writeCorpus(folder)], { vocabSize: 280 })
  await tokenizer.save(join(folder, 'tokenizer'))
  const vocab = join(folder, 'tokenizer', 'vocab.json')
  const merges = join(folder, 'tokenizer', 'merges.txt')
  const other = join(folder, 'other.txt')
  writeFileSync(other, `${readFileSync(merges, 'utf8')}zzq qqz\n`)
  await rejectsWith(t, 'ERR_INVALID_TOKENIZER', () => Tokenizer.fromFiles(vocab, other))
  writeFileSync(other, 'no json')
  await rejectsWith(t, 'ERR_INVALID_TOKENIZER', () => Tokenizer.fromFiles(other, merges))
  await rejectsWith(t, 'ERR_NOT_FOUND', () => Tokenizer.fromFiles(join(folder, 'none'), merges))
})

test('saving to an unwritable path is a coded error and leaves nothing behind', async (t) => {
  const folder = temporaryFolder(t)
  const tokenizer = await Tokenizer.train([writeCorpus(folder)], { vocabSize: 260 })
  const before = readdirSync(folder)
  const error = await t.throwsAsync(tokenizer.save(join(folder, 'corpus.txt', 'tokenizer')), {
    instanceOf: KindlingError,
  })
  t.regex((error as KindlingError).code, /^ERR_(IO|NOT_WRITABLE|INVALID_ARGUMENT)$/)
  t.deepEqual(readdirSync(folder), before)
})

test('training reports progress and can be aborted', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const size = readFileSync(corpus).length
  const reports: [number, number][] = []
  const onProgress = (done: number, total: number): void => void reports.push([done, total])
  await Tokenizer.train([corpus], { vocabSize: 300, onProgress })
  t.deepEqual(reports.at(-1), [size, size])
  await rejectsWith(t, 'ERR_CANCELLED', () =>
    Tokenizer.train([corpus], { vocabSize: 300, signal: AbortSignal.abort() }),
  )
})

test('training counts the bytes of invalid UTF-8', async (t) => {
  const file = join(temporaryFolder(t), 'latin.txt')
  writeFileSync(file, Buffer.from('caf\xe9 na\xefve', 'latin1'))
  const tokenizer = await Tokenizer.train([file], { vocabSize: 260 })
  t.is(tokenizer.replacedBytes, 2)
})

test('sampleDocuments draws each document with the same probability', async (t) => {
  const folder = temporaryFolder(t)
  const file = join(folder, 'documents.txt')
  const all = ['one', 'two', 'three', 'four', 'five', 'six']
  writeFileSync(file, all.join('<|endoftext|>'))
  const counts = new Map(all.map((document) => [document, 0]))
  for (let seed = 0; seed < 900; seed++) {
    const drawn = await sampleDocuments(file, { sample: 2, seed })
    t.is(new Set(drawn).size, 2)
    for (const document of drawn) counts.set(document, counts.get(document)! + 1)
  }
  // 1,800 draws from 6 documents: 300 each, with a standard deviation of 14.
  for (const [document, n] of counts) t.true(Math.abs(n - 300) < 60, `${document} ${n} times`)
  t.deepEqual(
    await sampleDocuments(file, { sample: 3, seed: 5 }),
    await sampleDocuments(file, { sample: 3, seed: 5 }),
  )
  t.deepEqual(await sampleDocuments(file, { sample: 10, seed: 5 }), all)
})
