/** A corpus: the files, patterns and folders that it consists of, and its stores, encoded once. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import test from 'ava'
import { TokenStore, Tokenizer, Trainer } from '../src'
import { findFiles } from '../src/corpus-files'
import { succeed, words } from './command-line'
import { rejectsWith, temporaryFolder } from './helpers'
import { SMALL } from './small-runs'

const PARQUET = join(__dirname, '../crates/kindling-core/tests/fixtures/parquet')
const LINE = 'the old whale sank a white ship and the captain said so '
/** Options of a run of one step. */
const ONE_STEP = {
  ...{ dModel: 16, numHeads: 2, dFf: 24, numLayers: 1, maxSeqLength: 16, seqLength: 16 },
  ...{ batchSize: 2, threads: 1, vocabSize: 280, maxSteps: 1, sampleInterval: 0 },
}

/** Writes files to a folder; their names may contain folders. */
function write(folder: string, files: Record<string, string | Buffer>): void {
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), content)
  }
}

/** Trains a run of one step; returns its messages. */
async function trainOn(
  corpus: string | string[],
  dataDir: string,
  run: string,
  more: object = {},
): Promise<string[]> {
  const trainer = new Trainer({ ...ONE_STEP, corpus, dataDir, run, ...more })
  const messages: string[] = []
  trainer.on('message', (text) => messages.push(text))
  await trainer.run()
  return messages
}

/** Returns the text in the two stores of a corpus, one after the other. */
async function textOf(folder: string): Promise<string> {
  const tokenizer = await Tokenizer.open(join(folder, 'tokenizer'))
  const parts = ['train_chunks', 'valid_chunks'].map(async (name) => {
    const store = await TokenStore.open(join(folder, name))
    return [...store.loadByRange(0, store.length)]
  })
  return tokenizer.decode((await Promise.all(parts)).flat())
}

test('a folder means all text files below it, sorted, and a note names what is left out', async (t) => {
  const folder = join(temporaryFolder(t), 'notes')
  write(folder, {
    'b.txt': 'b',
    'a.MD': 'a',
    'deep/er/c.jsonl.gz': gzipSync('{}'),
    'deep/d.parquet': 'd',
    'deep/e.json.gz': gzipSync('{}'),
    'cover.png': 'x',
    'config.json': '{}',
    '.hidden.txt': 'x',
    '.git/x.txt': 'x',
    'run/metrics.jsonl': '{}',
    'store/tokenizer/merges.txt': 'x',
    'store/tokenizer/vocab.json': '{}',
  })
  symlinkSync(folder, join(folder, 'loop'))
  symlinkSync(join(folder, 'b.txt'), join(folder, 'z.txt'))
  symlinkSync('/dev/zero', join(folder, 'zeros.txt'))
  execFileSync('mkfifo', [join(folder, 'pipe.txt')])
  const { files, notes } = await findFiles([folder], 'text')
  t.deepEqual(
    files.map((file) => file.slice(folder.length + 1)),
    ['a.MD', 'b.txt', 'deep/d.parquet', 'deep/e.json.gz', 'deep/er/c.jsonl.gz', 'z.txt'],
  )
  t.is(notes.length, 1)
  t.regex(notes[0]!, /notes: 6 text files \(.*\.txt\); left out 4 others \(\.json \.png \.txt\)$/)
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => findFiles([folder]))
  const bare = join(folder, 'bare')
  write(bare, { 'x.py': 'x' })
  const message = await rejectsWith(t, 'ERR_NOT_FOUND', () => findFiles([bare]))
  t.regex(message, /bare has no text file \(\.txt .*\.parquet.*bare\/\*\*\/\*\.py/)
})

test('encode and tokenizer train take a folder as its files', async (t) => {
  const folder = temporaryFolder(t)
  write(folder, { 'in/b.txt': LINE.repeat(50), 'in/x/a.md': LINE.repeat(30), 'in/y.bin': 'x' })
  const both = [join(folder, 'in/b.txt'), join(folder, 'in/x/a.md')]
  const train = ['tokenizer', 'train', ...words('--vocab-size 300 --json --out')]
  await succeed(t, [...train, join(folder, 't1'), join(folder, 'in')])
  await succeed(t, [...train, join(folder, 't2'), ...both])
  const vocab = (name: string): string => readFileSync(join(folder, name, 'vocab.json'), 'utf8')
  t.is(vocab('t1'), vocab('t2'))
  const encode = ['encode', '--tokenizer', join(folder, 't1'), '--json', '--out']
  const one = await succeed(t, [...encode, join(folder, 'one'), join(folder, 'in')])
  const two = await succeed(t, [...encode, join(folder, 'two'), ...both])
  t.regex(one.stderr, /in: 2 text files \(\.md \.txt\); left out 1 others \(\.bin\)/)
  t.is(one.json.at(-1)!['tokens'], two.json.at(-1)!['tokens'])
})

test('a corpus of several files is encoded once, and again when one of them changes', async (t) => {
  const folder = temporaryFolder(t)
  write(folder, { 'a.txt': LINE.repeat(40), 'b.txt': `${LINE.toUpperCase()}${LINE}`.repeat(20) })
  const corpus = [join(folder, 'a.txt'), join(folder, 'b.txt')]
  const data = join(folder, 'data')
  await trainOn(corpus, data, join(folder, 'r1'))
  t.deepEqual(readdirSync(data), ['a-and-1-more'])
  const stores = join(data, 'a-and-1-more')
  const text = await textOf(stores)
  t.true(text.includes(LINE.repeat(40)) && text.includes(LINE.toUpperCase()))
  const record = readFileSync(join(stores, 'corpus.json'), 'utf8')
  t.deepEqual(
    (JSON.parse(record) as { files: { path: string }[] }).files.map(({ path }) => path),
    corpus,
  )
  const written = readFileSync(join(stores, 'train_chunks/store.json'), 'utf8')
  await trainOn(corpus, data, join(folder, 'r2'))
  t.is(readFileSync(join(stores, 'train_chunks/store.json'), 'utf8'), written)
  write(folder, { 'b.txt': LINE.repeat(45) })
  await trainOn(corpus, data, join(folder, 'r3'))
  t.not(readFileSync(join(stores, 'train_chunks/store.json'), 'utf8'), written)
  t.deepEqual(readdirSync(data), ['a-and-1-more'])
})

test('stores that replaced those of a corpus are neither trained on nor overwritten', async (t) => {
  const folder = temporaryFolder(t)
  write(folder, { 'a.txt': LINE.repeat(40), 'b.txt': LINE.toUpperCase().repeat(40) })
  const data = join(folder, 'data')
  await trainOn(join(folder, 'a.txt'), data, join(folder, 'r1'))
  const tokenizer = await Tokenizer.open(join(data, 'a', 'tokenizer'))
  await TokenStore.encodeFiles([join(folder, 'b.txt')], tokenizer, join(data, 'a'), {})
  const replaced = readFileSync(join(data, 'a/train_chunks/store.json'), 'utf8')
  await trainOn(join(folder, 'a.txt'), data, join(folder, 'r2'))
  t.is(readFileSync(join(data, 'a/train_chunks/store.json'), 'utf8'), replaced)
  const [, own] = readdirSync(data).sort()
  t.regex(own!, /^a-[0-9a-f]{8}$/)
  t.true((await textOf(join(data, own!))).includes(LINE.repeat(30)))
})

test('runs started together on one corpus share its stores, with separate ones per tokenizer', async (t) => {
  const folder = temporaryFolder(t)
  write(folder, { 'a.txt': LINE.repeat(400) })
  const [corpus, data] = [join(folder, 'a.txt'), join(folder, 'data')]
  const sizes = [280, 280, 280, 262, 280, 262]
  const said = await Promise.all(
    sizes.map((vocabSize, i) => trainOn(corpus, data, join(folder, `r${i}`), { vocabSize })),
  )
  t.true(said.flat().some((text) => text.startsWith(`waiting for process ${process.pid} on `)))
  t.is(readdirSync(data).length, 2)
  for (const [i, vocabSize] of sizes.entries()) {
    t.is((await Tokenizer.open(join(folder, `r${i}`, 'tokenizer'))).vocabSize, vocabSize)
    await new Trainer({ run: join(folder, `r${i}`), resume: true }).run()
  }
  const left = readdirSync(data, { recursive: true }).map(String)
  t.deepEqual(
    left.filter((name) => /lock|partial/.test(name)),
    [],
  )
})

test('a lock that kindling did not write keeps a corpus from being encoded', async (t) => {
  const folder = temporaryFolder(t)
  write(folder, { 'a.txt': LINE.repeat(40), 'data/a/lock': 'of another program' })
  await rejectsWith(t, 'ERR_RUN_LOCKED', () =>
    trainOn(join(folder, 'a.txt'), join(folder, 'data'), join(folder, 'run')),
  )
})

test('a corpus may be a folder or a pattern, named after its folder', async (t) => {
  const folder = temporaryFolder(t)
  write(folder, { 'web/a.txt': LINE.repeat(40), 'web/b.txt': LINE.repeat(40) })
  const data = join(folder, 'data')
  const messages = await trainOn(join(folder, 'web'), data, join(folder, 'r1'))
  t.true(messages.some((text) => text.endsWith('web: 2 text files (.txt)')))
  await trainOn(join(folder, 'web/*.txt'), data, join(folder, 'r2'))
  const [first, second] = readdirSync(data).sort()
  t.is(first, 'web')
  t.regex(second!, /^web-[0-9a-f]{8}$/)
  write(folder, { 'web/c.txt': LINE.repeat(4) })
  await trainOn(join(folder, 'web'), data, join(folder, 'r3'))
  t.is(readdirSync(data).length, 2)
})

test('a corpus of JSON Lines or Parquet is read by its text field', async (t) => {
  const folder = temporaryFolder(t)
  const lines = Array.from({ length: 60 }, (_, i) =>
    JSON.stringify({ body: `${LINE}${i}`, text: 0 }),
  )
  write(folder, { 'web.jsonl.gz': gzipSync(lines.join('\n')) })
  const data = join(folder, 'data')
  const flags = ['train', '--corpus', join(folder, 'web.jsonl.gz'), '--data-dir', data, ...SMALL]
  const rest = words('--vocab-size 280 --max-steps 1 --sample-interval 0 --text-field body --run')
  await succeed(t, [...flags, ...rest, join(folder, 'run')])
  const text = await textOf(join(data, 'web'))
  t.true(text.includes(`${LINE}7`) && !text.includes('body'))
  await rejectsWith(t, 'ERR_INVALID_CORPUS', () =>
    trainOn(join(folder, 'web.jsonl.gz'), data, join(folder, 'wrong')),
  )
  const rows = Array.from({ length: 12 }, () => join(PARQUET, 'dictionary-type.parquet'))
  await trainOn(rows, data, join(folder, 'table'), { seqLength: 4, batchSize: 1 })
  t.true((await textOf(join(data, 'dictionary-type-and-11-more'))).length > 0)
})

test('standard input cannot be a corpus, as it cannot be read twice', async (t) => {
  const folder = temporaryFolder(t)
  const message = await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () =>
    trainOn('-', join(folder, 'data'), join(folder, 'run')),
  )
  t.regex(message, /kindling encode -/)
})
