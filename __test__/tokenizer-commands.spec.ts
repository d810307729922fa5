/** `kindling tokenizer` as a person uses it: what it reads, its limits, its table. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { Tokenizer } from '../src'
import { kindling } from './command-line'
import { temporaryFolder, writeCorpus } from './helpers'

const LINES = join(
  __dirname,
  '..',
  'crates',
  'kindling-core',
  'tests',
  'fixtures',
  'compressed',
  'lines.txt',
)

/** What is trained by `args` on `files`: the hash of the tokenizer. */
async function trained(
  t: ExecutionContext,
  files: string[],
  args: string[] = [],
  input: Buffer | null = null,
): Promise<string> {
  const out = join(temporaryFolder(t), 'tokenizer')
  const train = [
    'tokenizer',
    'train',
    ...files,
    '--vocab-size',
    '300',
    '--out',
    out,
    '--json',
    ...args,
  ]
  const { code, json, stderr } = await kindling(train, undefined, input)
  t.is(code, 0, stderr)
  t.deepEqual(Object.keys(json.at(-1)!), ['vocab_size', 'merges', 'seconds', 'out'])
  return (await Tokenizer.open(out)).hash
}

test('a tokenizer of compressed text, JSON Lines, a pattern and standard input is that of the text', async (t) => {
  const folder = temporaryFolder(t)
  const text = readFileSync(LINES)
  const lines = Buffer.from(`${JSON.stringify({ id: 1, body: text.toString() })}\n`)
  mkdirSync(join(folder, 'deep'))
  writeFileSync(join(folder, 'deep', 'a.ndjson.gz'), gzipSync(lines))
  writeFileSync(join(folder, 'b.txt'), lines)
  const expected = await trained(t, [LINES])
  t.is(await trained(t, [`${LINES}.gz`]), expected)
  t.is(await trained(t, [`${LINES}.zst`]), expected)
  t.is(await trained(t, [`${LINES.slice(0, -9)}?ines.txt`]), expected)
  t.is(await trained(t, [join(folder, '**', '*.ndjson.gz')], ['--text-field', 'body']), expected)
  t.is(
    await trained(t, [join(folder, 'b.txt')], ['--text-field', 'body', '--format', 'jsonl']),
    expected,
  )
  t.not(await trained(t, [join(folder, 'b.txt')]), expected)
  t.is(await trained(t, ['-'], [], text), expected)
  t.is(await trained(t, ['-'], [], gzipSync(text)), expected)
  t.is(await trained(t, ['-'], ['--format', 'jsonl', '--text-field', 'body'], lines), expected)
})

test('--min-frequency and --max-bytes limit what is learned, alike for any number of threads', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  // The limit falls on the end of a word.
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
      ['1', '2', '3'].map((threads) => trained(t, [corpus], [...args, '--threads', threads])),
    )
    t.is(new Set(hashes).size, 1, args.join(' '))
    all.add(hashes[0]!)
  }
  t.is(all.size, 3, 'a least frequency of 1 changes nothing, the others do')
  const rare = join(folder, 'rare.txt')
  writeFileSync(rare, 'aa aa aa bb bb cc')
  for (const [least, merges] of [
    [1, 6],
    [2, 4],
    [3, 1],
    [4, 0],
  ]) {
    const args = ['--vocab-size', '300', '--min-frequency', String(least), '--json']
    const { json } = await kindling([
      'tokenizer',
      'train',
      rare,
      '--out',
      join(folder, 'rare'),
      ...args,
    ])
    t.is(json.at(-1)!['merges'], merges, `at least ${least}`)
  }
})

test('stats read what train reads, a line for each file and tokenizer', async (t) => {
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
  const flags = [
    '--tokenizer',
    tokenizer,
    '--sample',
    '7',
    '--seed',
    '3',
    '--text-field',
    'body',
    '--json',
  ]
  const stats = await kindling(['tokenizer', 'stats', plain, join(folder, '*.jsonl*'), ...flags])
  t.is(stats.code, 0, stats.stderr)
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
  t.is(table.stderr, '', 'quiet where there is no terminal')
})

test('wrong use of the tokenizer commands is a coded line', async (t) => {
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
  const stats = (file: string): string[] => [
    'tokenizer',
    'stats',
    file,
    '--tokenizer',
    join(folder, 'none'),
  ]
  const cases: [string[], number, RegExp][] = [
    [train(corpus, '--min-frequency', '0'), 2, /ERR_USAGE: .*min_frequency/],
    [train(corpus, '--min-frequency', '1.5'), 2, /ERR_USAGE: .*min_frequency/],
    [train(corpus, '--max-bytes', '0'), 2, /ERR_USAGE: .*max_bytes/],
    [train(corpus, '--max-bytes', 'much'), 2, /ERR_USAGE: .*max_bytes/],
    [train(corpus, '--format', 'csv'), 2, /ERR_USAGE: .*format/],
    [train(bad), 1, /ERR_INVALID_CORPUS: .*bad\.jsonl, line 2: has no field "text"/],
    [train(corpus, '--format', 'jsonl'), 1, /ERR_INVALID_CORPUS: .*line 1/],
    [train(damaged), 1, /ERR_INVALID_CORPUS: .*damaged\.gz is damaged/],
    [train(join(folder, '*.md')), 1, /ERR_NOT_FOUND/],
    [train('-', '-'), 2, /ERR_INVALID_ARGUMENT: standard input/],
    [stats(join(folder, '*.md')), 1, /ERR_NOT_FOUND/],
    [stats(corpus), 1, /ERR_NOT_FOUND: tokenizer/],
  ]
  for (const [args, code, said] of cases) {
    const finished = await kindling(args)
    t.is(finished.code, code, `${args.join(' ')}: ${finished.stderr}`)
    t.regex(finished.stderr, said)
  }
  t.throws(() => readFileSync(join(out, 'vocab.json')))
})

test('merges are reported as they are learned, and an error there ends the call', async (t) => {
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
