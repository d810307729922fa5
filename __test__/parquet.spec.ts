/** Parquet files written by pyarrow, in `encode` and `tokenizer train`. */
import { copyFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { END_OF_TEXT, TokenStore, Tokenizer } from '../src'
import { failed, kindling, succeed } from './command-line'
import { rejectsWith, temporaryFolder } from './helpers'

const FIXTURES = join(__dirname, '../crates/kindling-core/tests/fixtures/parquet')

interface Texts {
  lists: string[][]
  files: Record<string, number>
}

const TEXTS = JSON.parse(readFileSync(join(FIXTURES, 'texts.json'), 'utf8')) as Texts

const file = (name: string): string => join(FIXTURES, `${name}.parquet`)

/** The texts that pyarrow reads from the column, without nulls. */
const textsOf = (name: string): string[] => TEXTS.lists[TEXTS.files[name]!]!

/** Returns the ids of the texts, with an end of text after each one that is not empty. */
function expected(tokenizer: Tokenizer, texts: string[]): number[] {
  const ids = texts.filter((text) => text !== '').map((text) => tokenizer.encode(text))
  const end = tokenizer.tokenId(END_OF_TEXT)!
  return ids.flatMap((document) => [...document, end])
}

const idsOf = async (store: TokenStore): Promise<number[]> => [
  ...(await store.loadByRange(0, store.length)),
]

test('every text of a column is a document, in the library and on the command line', async (t) => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'tokenizer')
  const size = ['--vocab-size', '300', '--out', path, '--json']
  await succeed(t, ['tokenizer', 'train', file('dictionary-snappy'), ...size])
  const tokenizer = await Tokenizer.open(path)
  // This file holds the same texts in another compression, so it gives the same tokenizer.
  const again = await Tokenizer.train([file('shared-v2')], {
    vocabSize: 300,
    specialTokens: [END_OF_TEXT],
  })
  t.is(again.hash, tokenizer.hash)

  for (const [name, textField] of [
    ['dictionary-zstd-v2', 'text'],
    ['empty-groups', 'text'],
    ['nested', 'page.body'],
  ] as const) {
    const ids = expected(tokenizer, textsOf(name))
    const data = join(folder, name)
    const options = { appendEot: true, textField }
    await TokenStore.encodeFiles([file(name)], tokenizer, data, options)
    t.deepEqual(await idsOf(await TokenStore.open(join(data, 'train_chunks'))), ids, name)

    const out = join(folder, `${name}_chunks`)
    const flags = ['--tokenizer', path, '--out', out, '--append-eot', '--text-field', textField]
    const { json } = await succeed(t, ['encode', file(name), ...flags, '--json'])
    t.is(json.at(-1)!['tokens'], ids.length)
    t.deepEqual(await idsOf(await TokenStore.open(out)), ids, name)
  }
})

test('the format comes from the name or from --format; a file that cannot be read says why', async (t) => {
  const folder = temporaryFolder(t)
  const tokenizer = await Tokenizer.train([file('plain-gzip')], {
    vocabSize: 280,
    specialTokens: [END_OF_TEXT],
  })
  await tokenizer.save(join(folder, 'tokenizer'))
  const unnamed = join(folder, 'column.bin')
  copyFileSync(file('fallback'), unnamed)
  const flags = ['--tokenizer', join(folder, 'tokenizer'), '--out', join(folder, 'a_chunks')]
  const { json } = await succeed(t, ['encode', unnamed, ...flags, '--format', 'parquet', '--json'])
  const texts = textsOf('fallback')
  const ids = texts.flatMap((text) => [...tokenizer.encode(text)])
  t.is(json.at(-1)!['tokens'], ids.length + texts.length, 'each row ends with <|endoftext|>')

  const other = ['--tokenizer', join(folder, 'tokenizer'), '--out', join(folder, 'b_chunks')]
  const missing = await kindling(['encode', file('fallback'), ...other, '--text-field', 'body'])
  failed(t, missing, { exit: 1, code: 'ERR_INVALID_CORPUS', message: /body/ })
  const lz4 = await kindling(['encode', file('lz4'), ...other])
  failed(t, lz4, { exit: 1, code: 'ERR_INVALID_CORPUS', message: /LZ4/i })
  await rejectsWith(t, 'ERR_INVALID_CORPUS', () =>
    Tokenizer.train([join(FIXTURES, 'texts.json')], { vocabSize: 300, format: 'parquet' }),
  )
})
