/** `kindling encode` and `kindling data` on the command line. */
import { existsSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { TokenStore, Tokenizer } from '../src'
import { kindling, succeed, words } from './command-line'
import { temporaryFolder, writeCorpus } from './helpers'

interface Fixture {
  folder: string
  corpus: string
  /** Folder of a tokenizer trained on the corpus. */
  tokenizer: string
}

async function writeFixture(t: ExecutionContext): Promise<Fixture> {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const tokenizer = join(folder, 'tokenizer')
  const trained = await Tokenizer.train([corpus], {
    vocabSize: 300,
    specialTokens: ['<|endoftext|>'],
  })
  await trained.save(tokenizer)
  return { folder, corpus, tokenizer }
}

async function textOf(store: string, tokenizer: string): Promise<string> {
  const opened = await TokenStore.open(store)
  return (await Tokenizer.open(tokenizer)).decode(opened.loadByRange(0, opened.length))
}

test('encode reads blocks of text from standard input, compressed or not', async (t) => {
  const { folder, tokenizer } = await writeFixture(t)
  const text = 'the whale\nsea\n\n\nold ship\n'
  const flags = ['--tokenizer', tokenizer, '--append-eot', '--document', 'block', '--json']
  for (const input of [text, gzipSync(text)]) {
    const out = join(folder, 'in_chunks')
    const { code, json, stderr } = await kindling(
      ['encode', '-', '--out', out, ...flags],
      undefined,
      input,
    )
    t.is(code, 0, stderr)
    t.is(await textOf(out, tokenizer), 'the whale\nsea<|endoftext|>old ship<|endoftext|>')
    t.deepEqual(Object.keys(json.at(-1)!), ['tokens', 'bytes', 'seconds', 'out'])
  }
})

test('encode reads files of several formats in the order given', async (t) => {
  const { folder, tokenizer } = await writeFixture(t)
  writeFileSync(join(folder, 'b.jsonl'), '{"body":"the sea"}\n')
  writeFileSync(join(folder, 'a.jsonl.gz'), gzipSync('{"body":"a whale"}\n{"body":"ship"}\n'))
  writeFileSync(join(folder, 'c.txt'), Buffer.from('caf\u00e9', 'latin1'))
  const out = join(folder, 'all')
  const files = [join(folder, '[ab].jsonl*'), join(folder, 'c.txt')]
  const flags = words('--append-eot --text-field body --token-dtype uint16')
  const encode = ['encode', ...files, '--tokenizer', tokenizer, '--out', out]
  const { stderr } = await succeed(t, [...encode, ...flags])
  t.regex(stderr, /1 bytes of invalid UTF-8/)
  const store = join(out, 'train_chunks')
  const expected = ['a whale', 'ship', 'the sea', 'caf\ufffd']
    .map((part) => `${part}<|endoftext|>`)
    .join('')
  t.is(await textOf(store, tokenizer), expected)
  t.is((await TokenStore.open(store)).metadata.dtype, 'uint16')
})

test('an interrupted encode continues when the command is repeated', async (t) => {
  const { folder, corpus, tokenizer } = await writeFixture(t)
  const large = join(folder, 'large.txt')
  writeFileSync(large, readFileSync(corpus, 'utf8').repeat(500))
  const args = ['encode', large, '--tokenizer', tokenizer, '--chunk-size', '1000', '--threads', '1']
  const out = join(folder, 'x_chunks')
  const interrupted = await kindling([...args, '--out', out], (child) => {
    const timer = setInterval(() => {
      const staging = readdirSync(folder).find((name) => name.startsWith('.x_chunks'))
      const written = staging === undefined ? '' : join(folder, staging, 'made')
      if (!existsSync(written) || readdirSync(written).length < 20) return
      clearInterval(timer)
      child.kill('SIGINT')
    }, 10)
    child.on('close', () => clearInterval(timer))
  })
  t.is(interrupted.code, 130, interrupted.stderr)
  t.regex(interrupted.stderr, /run the same command again to continue/)
  t.false(existsSync(out))
  const continued = await kindling([...args, '--out', out])
  t.is(continued.code, 0, continued.stderr)
  t.regex(continued.stderr, /continued an interrupted encoding/)
  const whole = await kindling([...args, '--out', join(folder, 'whole_chunks')])
  t.notRegex(whole.stderr, /continued/)
  const bytes = (name: string): Buffer[] =>
    readdirSync(join(folder, name))
      .sort()
      .map((file) => readFileSync(join(folder, name, file)))
  t.deepEqual(bytes('x_chunks'), bytes('whole_chunks'))
  t.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith('.')),
    [],
  )
})

test('data describes, verifies, splits and merges stores', async (t) => {
  const { folder, corpus, tokenizer } = await writeFixture(t)
  const out = join(folder, 'data')
  const encode = ['encode', corpus, '--tokenizer', tokenizer, '--out', out, '--chunk-size', '500']
  await succeed(t, [...encode, '--valid-fraction', '0.1'])
  const info = await kindling(['data', 'info', out, '--json'])
  t.is(info.json.length, 2, info.stderr)
  const [train, valid] = info.json
  t.is(train!['vocab_size'], 300)
  t.is(Number(train!['bytes']) + Number(valid!['bytes']), readFileSync(corpus).length)
  t.regex((await kindling(['data', 'info', out])).stdout, /int32, 500 per chunk/)

  const all = join(folder, 'all_chunks')
  const parts = [join(out, 'train_chunks'), join(out, 'valid_chunks')]
  await succeed(t, ['data', 'merge', ...parts, '--out', all, '--token-dtype', 'uint16'])
  t.is(await textOf(all, tokenizer), readFileSync(corpus, 'utf8'))
  const halves = join(folder, 'halves')
  const split = await succeed(t, [
    ...['data', 'split', all, '--out', halves, '--json'],
    ...words('--valid-fraction 0.1'),
  ])
  t.is(split.json[0]!['tokens'], train!['tokens'])
  t.deepEqual(readdirSync(halves).sort(), ['tokenizer', 'train_chunks', 'valid_chunks'])
  t.is(
    (await TokenStore.open(join(halves, 'valid_chunks'))).metadata.bytes,
    Number(valid!['bytes']),
  )

  const verified = await kindling(['data', 'verify', out, halves, '--json'])
  t.is(verified.json.length, 4, verified.stderr)
  const chunk = join(halves, 'valid_chunks', 'encoded_tokens_chunk_0.dat')
  const bytes = readFileSync(chunk)
  for (const at of [0, bytes.length - 1]) {
    const damaged = Buffer.from(bytes)
    damaged[at]! ^= 1
    writeFileSync(chunk, damaged)
    const found = await kindling(['data', 'verify', halves, '--json'])
    t.is(found.code, 1)
    const { code, message } = found.json.at(-1)!['error'] as { code: string; message: string }
    t.is(code, 'ERR_INVALID_STORE')
    t.true(message.includes(chunk))
  }
})

test('wrong use of encode and data is a coded error', async (t) => {
  const { folder, corpus, tokenizer } = await writeFixture(t)
  const out = join(folder, 'x_chunks')
  const cases: [string[], number, RegExp][] = [
    [['data', 'split', out, '--out', out], 2, /ERR_USAGE: give exactly one/],
    [['data', 'verify', out], 1, /ERR_NOT_FOUND/],
    [['data', 'merge', corpus, '--out', out], 1, /ERR_INVALID_STORE/],
    [
      ['encode', corpus, '--tokenizer', tokenizer, '--out', out, '--document', 'page'],
      2,
      /ERR_USAGE/,
    ],
    [
      ['encode', corpus, '--tokenizer', tokenizer, '--out', out, '--format', 'jsonl'],
      1,
      /ERR_INVALID_CORPUS/,
    ],
    [['encode', join(folder, '*.md'), '--tokenizer', tokenizer, '--out', out], 1, /ERR_NOT_FOUND/],
  ]
  for (const [args, code, message] of cases) {
    const finished = await kindling(args)
    t.is(finished.code, code, args.join(' '))
    t.regex(finished.stderr, message)
  }
  t.false(existsSync(out))
})

test('a merge or a split whose output would replace an input is refused', async (t) => {
  const { folder, corpus, tokenizer } = await writeFixture(t)
  const out = join(folder, 'data')
  const encode = ['encode', corpus, '--tokenizer', tokenizer, '--out', out]
  await succeed(t, [...encode, '--valid-fraction', '0.1'])
  const link = join(folder, 'link')
  symlinkSync(out, link)
  const valid = join(out, 'valid_chunks')
  const before = readFileSync(join(valid, 'store.json'))
  for (const args of [
    ['merge', out, '--out', out],
    ['merge', valid, '--out', out],
    ['merge', valid, '--out', valid],
    ['merge', out, '--out', link],
    ['split', out, '--at', '100', '--out', out],
    ['split', valid, '--at', '10', '--out', `${out}/../data`],
  ]) {
    const { code, stderr } = await kindling(['data', ...args])
    t.is(code, 2, args.join(' '))
    t.regex(stderr, /ERR_INVALID_ARGUMENT: the output .* would replace the input/)
  }
  t.deepEqual(readFileSync(join(valid, 'store.json')), before)
})

test('encode and tokenizer train say what they replace', async (t) => {
  const { folder, corpus, tokenizer } = await writeFixture(t)
  const out = join(folder, 'data')
  const commands = [
    ['encode', corpus, '--tokenizer', tokenizer, '--out', out],
    ['tokenizer', 'train', corpus, '--vocab-size', '300', '--out', join(folder, 'new')],
  ]
  for (const args of commands) {
    t.notRegex((await succeed(t, args)).stderr, /will be replaced/)
    t.regex((await succeed(t, args)).stderr, /will be replaced/)
  }
})
