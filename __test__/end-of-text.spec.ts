/** Which documents end with `<|endoftext|>`, and where text starts if none does. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  END_OF_TEXT,
  TokenStore,
  Tokenizer,
  Trainer,
  type EncodeOptions,
  type KindlingError,
} from '../src'
import { hasEndOfText, startPrompt } from '../src/training/document-start'
import { succeed, words } from './command-line'
import { rejectsWith, temporaryFolder } from './helpers'

const LINE = 'the old whale sank a white ship and the captain said so '
/** Options of a run of one step, with a sample. */
const ONE_STEP = {
  ...{ dModel: 16, numHeads: 2, dFf: 24, numLayers: 1, maxSeqLength: 16, seqLength: 16 },
  ...{ batchSize: 2, threads: 1, vocabSize: 280, maxSteps: 1, sampleInterval: 1 },
}

interface Files {
  folder: string
  tokenizer: Tokenizer
  text: string
  other: string
  lines: string
}

async function writeFiles(t: ExecutionContext): Promise<Files> {
  const folder = temporaryFolder(t)
  const at = (name: string): string => join(folder, name)
  const files = { text: at('a.txt'), other: at('b.txt'), lines: at('c.jsonl') }
  writeFileSync(files.text, LINE.repeat(60))
  writeFileSync(files.other, LINE.repeat(30))
  writeFileSync(files.lines, `${JSON.stringify({ text: LINE.repeat(9) })}\n`.repeat(7))
  const tokenizer = await Tokenizer.train([files.text], {
    vocabSize: 280,
    specialTokens: [END_OF_TEXT],
  })
  return { folder, tokenizer, ...files }
}

/** Encodes files into a store; returns the positions of `<|endoftext|>` in it, and its length. */
async function endsIn(
  { folder, tokenizer }: Files,
  files: string[],
  options: EncodeOptions = {},
): Promise<{ ends: number[]; length: number }> {
  const store = await TokenStore.encode(files, tokenizer, join(folder, 'x_chunks'), options)
  const ids = [...store.loadByRange(0, store.length)]
  return { ends: ids.flatMap((id, i) => (id === 0 ? [i] : [])), length: ids.length }
}

test('documents of JSON Lines and of several files are ended by default, a single text is not', async (t) => {
  const files = await writeFiles(t)
  const { text, other, lines } = files
  t.deepEqual((await endsIn(files, [text])).ends, [])
  const marked = await endsIn(files, [text], { appendEot: true })
  t.deepEqual(marked.ends, [marked.length - 1])
  const two = await endsIn(files, [text, other])
  t.deepEqual(two.ends, [marked.length - 1, two.length - 1])
  t.is((await endsIn(files, [lines])).ends.length, 7)
  t.deepEqual((await endsIn(files, [lines], { appendEot: false })).ends, [])
  t.deepEqual((await endsIn(files, [text, other], { appendEot: false })).ends, [])
  const characters = await Tokenizer.train([text], { type: 'chars' })
  t.is((await endsIn({ ...files, tokenizer: characters }, [text, other])).length, LINE.length * 90)
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () =>
    endsIn({ ...files, tokenizer: characters }, [text, other], { appendEot: true }),
  )
})

test('encode says that it ends documents, and the flags decide', async (t) => {
  const { folder, tokenizer, lines } = await writeFiles(t)
  await tokenizer.save(join(folder, 'tok'))
  const encode = ['encode', lines, '--tokenizer', join(folder, 'tok'), '--json', '--out']
  const tokens = async (name: string, flag: string[]): Promise<[number, string]> => {
    const { json, stderr } = await succeed(t, [...encode, join(folder, name), ...flag])
    return [Number(json.at(-1)!['tokens']), stderr]
  }
  const [byDefault, said] = await tokens('d', [])
  const [without, silent] = await tokens('n', ['--no-append-eot'])
  const [asked] = await tokens('y', ['--append-eot'])
  t.deepEqual([byDefault, asked], [without + 7, without + 7])
  t.regex(said, /added <\|endoftext\|> after every document .*--no-append-eot/)
  t.notRegex(silent, /endoftext/)
})

test('a killed encoding is not continued if its documents end differently', async (t) => {
  const files = await writeFiles(t)
  const document = `${JSON.stringify({ text: LINE.repeat(90) })}\n`
  const out = join(files.folder, 'x_chunks')
  const encode = (options: EncodeOptions) =>
    TokenStore.encodeFiles([files.lines], files.tokenizer, out, options)
  const kill = async (): Promise<void> => {
    // On a busy machine a small text is encoded before the abort arrives.
    for (let documents = 2000; documents < 100_000; documents *= 2) {
      writeFileSync(files.lines, document.repeat(documents))
      const controller = new AbortController()
      const onProgress = (done: number): void => void (done > 2e6 && controller.abort())
      const options = { signal: controller.signal, keepWhenAborted: true, threads: 1, onProgress }
      try {
        await encode(options)
      } catch (error) {
        t.is((error as KindlingError).code, 'ERR_CANCELLED')
        return
      }
      rmSync(out, { recursive: true })
    }
    t.fail('no call was aborted in time')
  }
  await kill()
  t.is((await encode({ appendEot: false })).resumedBytes, 0)
  await kill()
  t.true((await encode({})).resumedBytes > 0)
})

test('a corpus is encoded again if its documents end differently', async (t) => {
  const { folder, lines } = await writeFiles(t)
  const dataDir = join(folder, 'data')
  const appended = async (name: string, more: object): Promise<unknown[]> => {
    await new Trainer({
      ...ONE_STEP,
      corpus: lines,
      dataDir,
      run: join(folder, name),
      ...more,
    }).run()
    const text = readFileSync(join(folder, name, 'config.json'), 'utf8')
    const config = JSON.parse(text) as { end_of_text: boolean; data: { train: { path: string }[] } }
    const stores = dirname(config.data.train[0]!.path)
    const record = readFileSync(join(stores, 'corpus.json'), 'utf8')
    return [(JSON.parse(record) as { append_eot: boolean }).append_eot, config.end_of_text]
  }
  t.deepEqual(await appended('r1', {}), [true, true])
  t.deepEqual(await appended('r2', { appendEot: false }), [false, false])
})

test('if no document ends, samples and texts without a prompt start from a line break', async (t) => {
  const { folder, text, other } = await writeFiles(t)
  const train = async (corpus: string[], name: string): Promise<[string[], string]> => {
    const run = join(folder, name)
    const trainer = new Trainer({ ...ONE_STEP, corpus, dataDir: join(folder, 'data'), run })
    const messages: string[] = []
    let sample = ''
    trainer.on('message', (message) => messages.push(message))
    trainer.on('sample', (_step, written) => (sample = written))
    await trainer.run()
    return [messages, sample]
  }
  const [messages, sample] = await train([text], 'plain')
  t.true(messages.some((message) => message.includes('has no <|endoftext|>: samples start')))
  t.is(sample[0], '\n')
  const generate = words('--max-tokens 3 --seed 1 --json')
  const plain = await succeed(t, ['generate', '--run', join(folder, 'plain'), ...generate])
  t.regex(plain.stderr, /not seen <\|endoftext\|>/)
  t.is(plain.json[0]!['prompt'], '\n')
  const [silent] = await train([text, other], 'ended')
  t.false(silent.some((message) => message.includes('endoftext')))
  const ended = await succeed(t, ['generate', '--run', join(folder, 'ended'), ...generate])
  t.is(ended.json[0]!['prompt'], '')
})

test('a text starts with something that the tokenizer knows', async (t) => {
  const files = await writeFiles(t)
  const { folder, text, tokenizer } = files
  t.is(startPrompt(tokenizer, true), '')
  t.is(startPrompt(tokenizer, undefined), '')
  t.is(startPrompt(tokenizer, false), '\n')
  const characters = await Tokenizer.train([text], { type: 'chars' })
  t.is(startPrompt(characters, undefined), ' ')
  writeFileSync(join(folder, 'abc.txt'), 'abc')
  const letters = await Tokenizer.train([join(folder, 'abc.txt')], { type: 'chars' })
  t.is(startPrompt(letters, undefined), 'a')
  const store = await TokenStore.encode([text], tokenizer, join(folder, 'y_chunks'))
  t.false(hasEndOfText([store], tokenizer))
  const ended = await TokenStore.encode([files.lines], tokenizer, join(folder, 'z_chunks'))
  t.true(hasEndOfText([store, ended], tokenizer))
  t.false(hasEndOfText([store], characters))
})
