/** `kindling tokenizer` on the command line. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { Tokenizer } from '../src'
import { kindling, succeed, words } from './command-line'
import { temporaryFolder, writeCorpus } from './helpers'

const LINES = join(__dirname, '../crates/kindling-core/tests/fixtures/compressed/lines.txt')

/** Trains a tokenizer of 300 entries and returns its hash. */
async function trainedHash(
  t: ExecutionContext,
  files: string[],
  args: string[] = [],
  input: Buffer | null = null,
): Promise<string> {
  const out = join(temporaryFolder(t), 'tokenizer')
  const train = ['tokenizer', 'train', ...files, '--out', out, ...words('--vocab-size 300 --json')]
  const { code, json, stderr } = await kindling([...train, ...args], undefined, input)
  t.is(code, 0, stderr)
  t.deepEqual(Object.keys(json.at(-1)!), words('vocab_size merges seconds out'))
  return (await Tokenizer.open(out)).hash
}

test('train reads gzip, zstd, JSON Lines, patterns and standard input alike', async (t) => {
  const folder = temporaryFolder(t)
  const text = readFileSync(LINES)
  const lines = Buffer.from(`${JSON.stringify({ id: 1, body: text.toString() })}\n`)
  mkdirSync(join(folder, 'deep'))
  writeFileSync(join(folder, 'deep', 'a.ndjson.gz'), gzipSync(lines))
  writeFileSync(join(folder, 'b.txt'), lines)
  const expected = await trainedHash(t, [LINES])
  t.is(await trainedHash(t, [`${LINES}.gz`]), expected)
  t.is(await trainedHash(t, [`${LINES}.zst`]), expected)
  t.is(await trainedHash(t, [`${LINES.slice(0, -9)}?ines.txt`]), expected)
  t.is(
    await trainedHash(t, [join(folder, '**', '*.ndjson.gz')], ['--text-field', 'body']),
    expected,
  )
  t.is(
    await trainedHash(t, [join(folder, 'b.txt')], ['--text-field', 'body', '--format', 'jsonl']),
    expected,
  )
  t.not(await trainedHash(t, [join(folder, 'b.txt')]), expected)
  t.is(await trainedHash(t, ['-'], [], text), expected)
  t.is(await trainedHash(t, ['-'], [], gzipSync(text)), expected)
  t.is(await trainedHash(t, ['-'], ['--format', 'jsonl', '--text-field', 'body'], lines), expected)
})

test('--min-frequency and --max-bytes do not depend on the number of threads', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  // The limit falls inside a word.
  const part = join(folder, 'part.txt')
  writeFileSync(part, readFileSync(corpus, 'utf8').slice(0, 5_000).replace(/ \S*$/, ''))
  const size = String(readFileSync(part).length + 3)
  const all = new Set<string>()
  for (const args of [
    [],
    ['--min-frequency', '1'],
    ['--min-frequency', '260'],
    ['--max-bytes', size],
  ]) {
    const hashes = await Promise.all(
      ['1', '2', '3'].map((threads) => trainedHash(t, [corpus], [...args, '--threads', threads])),
    )
    t.is(new Set(hashes).size, 1, args.join(' '))
    all.add(hashes[0]!)
  }
  t.is(all.size, 3, 'a minimum frequency of 1 changes nothing, the other flags do')
  const rare = join(folder, 'rare.txt')
  writeFileSync(rare, 'aa aa aa bb bb cc')
  for (const [minimum, merges] of [
    [1, 6],
    [2, 4],
    [3, 1],
    [4, 0],
  ]) {
    const train = ['tokenizer', 'train', rare, '--out', join(folder, 'rare')]
    const flags = words(`--vocab-size 300 --min-frequency ${minimum} --json`)
    const { json } = await succeed(t, [...train, ...flags])
    t.is(json.at(-1)!['merges'], merges, `at least ${minimum}`)
  }
})

test('stats prints a line per file and tokenizer, and reads what train reads', async (t) => {
  const folder = temporaryFolder(t)
  const tokenizer = join(folder, 'tokenizer')
  await (await Tokenizer.train([LINES], { vocabSize: 400 })).save(tokenizer)
  const documents = Array.from({ length: 40 }, (_, i) =>
    `line ${i} of "text"\n`.repeat(1 + (i % 5)),
  )
  const plain = join(folder, 'a.txt')
  writeFileSync(plain, documents.join('<|endoftext|>'))
  const json = documents.map((body) => `${JSON.stringify({ body })}\n`).join('')
  writeFileSync(join(folder, 'b.jsonl'), json)
  writeFileSync(join(folder, 'c.jsonl.gz'), gzipSync(json))
  const flags = ['--tokenizer', tokenizer, ...words('--sample 7 --seed 3 --text-field body --json')]
  const files = [plain, join(folder, '*.jsonl*')]
  const stats = await succeed(t, ['tokenizer', 'stats', ...files, ...flags])
  t.deepEqual(
    stats.json.map(({ file }) => file),
    [plain, join(folder, 'b.jsonl'), join(folder, 'c.jsonl.gz')],
  )
  t.deepEqual(
    stats.json.map(({ documents: drawn }) => drawn),
    [7, 7, 7],
  )
  t.is(new Set(stats.json.map(({ bytes_per_token }) => bytes_per_token)).size, 1)
  const piped = await kindling(
    ['tokenizer', 'stats', '-', ...flags],
    undefined,
    gzipSync(readFileSync(plain)),
  )
  t.is(piped.json[0]!['bytes_per_token'], stats.json[0]!['bytes_per_token'], piped.stderr)
  const table = await kindling(['tokenizer', 'stats', plain, '--tokenizer', tokenizer])
  t.regex(table.stdout, /bytes\/token +MB\/s +tokens\/s +hours for 825 GiB\n/)
  t.is(table.stderr, '', 'no progress without a terminal')
})

test('wrong use of the tokenizer commands is a coded error', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const out = join(folder, 'out')
  const bad = join(folder, 'bad.jsonl')
  writeFileSync(bad, '{"text":"x"}\n{"body":"x"}\n')
  const damaged = join(folder, 'damaged.gz')
  writeFileSync(damaged, gzipSync(readFileSync(corpus)).subarray(0, 500))
  const train = (file: string, ...flags: string[]): string[] => {
    return ['tokenizer', 'train', file, '--vocab-size', '300', '--out', out, ...flags]
  }
  const missing = join(folder, 'none')
  const stats = (file: string): string[] => ['tokenizer', 'stats', file, '--tokenizer', missing]
  const cases: [string[], number, RegExp][] = [
    [train(corpus, '--min-frequency', '0'), 2, /ERR_USAGE: .*--min-frequency/],
    [train(corpus, '--min-frequency', '1.5'), 2, /ERR_USAGE: .*--min-frequency/],
    [train(corpus, '--max-bytes', '0'), 2, /ERR_USAGE: .*max[_-]bytes/],
    [train(corpus, '--max-bytes', 'much'), 2, /ERR_USAGE: .*max[_-]bytes/],
    [train(corpus, '--format', 'csv'), 2, /ERR_USAGE: .*format/],
    [train(bad), 1, /ERR_INVALID_CORPUS: .*bad\.jsonl, line 2: the object has no field "text"/],
    [train(corpus, '--format', 'jsonl'), 1, /ERR_INVALID_CORPUS: .*line 1/],
    [train(damaged), 1, /ERR_INVALID_CORPUS: .*damaged\.gz is damaged/],
    [train(join(folder, '*.md')), 1, /ERR_NOT_FOUND/],
    [train('-', '-'), 2, /ERR_INVALID_ARGUMENT: standard input/],
    [stats(join(folder, '*.md')), 1, /ERR_NOT_FOUND/],
    [stats(corpus), 1, /ERR_NOT_FOUND: tokenizer/],
  ]
  for (const [args, code, message] of cases) {
    const finished = await kindling(args)
    t.is(finished.code, code, `${args.join(' ')}: ${finished.stderr}`)
    t.regex(finished.stderr, message)
  }
  t.throws(() => readFileSync(join(out, 'vocab.json')))
})

test('onMerge reports progress, and an error that it throws ends the training', async (t) => {
  const corpus = writeCorpus(temporaryFolder(t))
  const reports: [number, number][] = []
  const onMerge = (merges: number, wanted: number): void => void reports.push([merges, wanted])
  await Tokenizer.train([corpus], { vocabSize: 290, onMerge })
  t.true(reports.length > 0)
  t.deepEqual(new Set(reports.map(([, wanted]) => wanted)), new Set([34]))
  const failing = (): void => {
    throw new RangeError('mine')
  }
  await t.throwsAsync(Tokenizer.train([corpus], { vocabSize: 290, onMerge: failing }), {
    instanceOf: RangeError,
  })
})
