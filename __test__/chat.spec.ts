/** Chat templates against those of transformers, and conversations on the command line. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  ChatTemplate,
  KindlingError,
  Tokenizer,
  Transformer,
  exportModel,
  generate,
  generateBatch,
  load,
  type ChatMessage,
  type GenerateResult,
  type LoadedModel,
} from '../src'
import { renderBounded } from '../src/exchange/bounded-template'
import { failed, kindling } from './command-line'
import { TINY, temporaryFolder, writeCorpus } from './helpers'

interface Case {
  name: string
  /** Contents of tokenizer_config.json. */
  config: { chat_template: string }
  messages: ChatMessage[]
  /** Null if the template refuses the conversation. */
  text: string | null
}

/** Results of transformers, written by scripts/fixtures/chat_templates.py. */
const CASES = JSON.parse(
  readFileSync(join(__dirname, 'fixtures/chat-templates.json'), 'utf8'),
) as Case[]

const SYSTEM = 'Speak of the sea.'

test('conversations are rendered as transformers renders them', (t) => {
  t.is(CASES.filter(({ text }) => text === null).length, 2)
  for (const { name, config, messages, text } of CASES) {
    const companions = { 'tokenizer_config.json': JSON.stringify(config) }
    const template = new ChatTemplate({ tokenizer: null, companions })
    if (text !== null) t.is(template.render(messages), text, name)
    else t.throws(() => template.render(messages), { code: 'ERR_UNSUPPORTED', message: /altern/ })
  }
})

test('a template is found in its own file, and among several', (t) => {
  const render = (companions: Record<string, string>): string =>
    new ChatTemplate({ tokenizer: null, companions }).render([{ role: 'user', content: 'sea' }])
  const chat_template = [
    { name: 'tool_use', template: 'tools' },
    { name: 'default', template: '{{ messages[0].content }}' },
  ]
  const several = { 'tokenizer_config.json': JSON.stringify({ chat_template }) }
  t.is(render(several), 'sea')
  t.is(render({ ...several, 'chat_template.jinja': 'file' }), 'file')
})

test('a model without a template, or with one that is not Jinja, is refused', (t) => {
  const of = (companions: Record<string, string>) => () =>
    new ChatTemplate({ tokenizer: null, companions })
  const code = { code: 'ERR_UNSUPPORTED', instanceOf: KindlingError }
  t.regex(t.throws(of({}), code).message, /no chat template/)
  t.throws(of({ 'tokenizer_config.json': '{' }), code)
  t.throws(of({ 'chat_template.jinja': '{% for %}' }), code)
  t.throws(of({ 'chat_template.jinja': ' '.repeat(1 << 19) }), code)
})

test('a template that loops or fills memory is an error, and the next one is rendered', (t) => {
  const nested = 'abc'.split('').map((name) => `{% for ${name} in range(10000) %}`)
  for (const template of [nested.join(''), '{% for i in range(1000000000) %}']) {
    const ends = '{% endfor %}'.repeat(template.split('{%').length - 1)
    t.throws(() => renderBounded(`${template}${ends}`, {}, 500), { message: /more than 0.5 s/ })
    t.is(renderBounded('{{ a }}', { a: 'sea' }), 'sea')
  }
  const text = `{% set all = namespace(text='x') %}${'{% set all.text = all.text + all.text %}'.repeat(25)}`
  t.throws(() => renderBounded(`${text}{{ all.text }}`, {}), { message: /too long/ })
})

/** Writes a model with random weights, these special tokens, and these companion files. */
async function writeModel(
  t: ExecutionContext,
  specialTokens: string[],
  companions: Record<string, string> = {},
): Promise<string> {
  const folder = temporaryFolder(t)
  const tokenizer = await Tokenizer.train([writeCorpus(folder)], { vocabSize: 280, specialTokens })
  const sizes = { ...TINY, vocabSize: tokenizer.vocabSize, maxSeqLength: 96, seed: 5 }
  const model = new Transformer(sizes)
  // Large weights, so that every token of a context matters.
  const weights = await model.stateDict()
  for (const { data } of Object.values(weights)) data.forEach((w, i) => (data[i] = 3 * w))
  await model.loadStateDict(weights)
  const out = join(folder, 'model')
  await exportModel(out, { model, tokenizer, companions })
  return out
}

const CHATML = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
const GREEDY = ['--temperature', '0', '--max-tokens', '6', '--threads', '1']
const LONG = ['--temperature', '0', '--max-tokens', '60', '--threads', '1']

/** Returns the answer of the library to a conversation. */
async function answerTo(loaded: LoadedModel, messages: ChatMessage[]): Promise<GenerateResult> {
  const template = new ChatTemplate(loaded)
  const pieces = generate(loaded.model, loaded.tokenizer!, template.render(messages), {
    temperature: 0,
    maxTokens: 6,
    echo: false,
    addSpecialTokens: false,
    stopIds: template.stopIds,
  })
  let next = await pieces.next()
  while (!next.done) next = await pieces.next()
  return next.value
}

test('a conversation keeps its turns, and drops the oldest when the context is full', async (t) => {
  const model = await writeModel(t, CHATML)
  const lines = ['the whale', '', 'the old man and the sea', 'a white mast '.repeat(4)]
  const args = ['chat', model, ...GREEDY, '--system', SYSTEM, '--json']
  const { code, json, stderr } = await kindling(args, () => {}, lines.join('\n'))
  t.is(code, 0, stderr)
  const asked = lines.filter((line) => line !== '')
  t.deepEqual(
    json.map((line) => line['message']),
    asked,
  )
  const loaded = await load(model, { threads: 1 })
  const { tokenizer } = loaded
  t.true(new ChatTemplate(loaded).stopIds.includes(tokenizer!.tokenId('<|im_end|>')!))
  let turns: ChatMessage[] = []
  let dropped = 0
  for (const [i, content] of asked.entries()) {
    turns.push({ role: 'user', content })
    const all = (): ChatMessage[] => [{ role: 'system', content: SYSTEM }, ...turns]
    const length = (): number => tokenizer!.encode(new ChatTemplate(loaded).render(all())).length
    for (; length() + 6 > 96 && turns.length > 1; dropped++) turns = turns.slice(2)
    const { ids, text } = await answerTo(loaded, all())
    t.deepEqual(json[i]!['ids'], [...ids], content)
    t.is(json[i]!['text'], text)
    turns.push({ role: 'assistant', content: text })
  }
  t.true(dropped > 0)
})

test('a prompt that starts with the bos token does not get a second one', async (t) => {
  const template = '{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}'
  const tokens = { bos_token: '<|endoftext|>', eos_token: '<|endoftext|>', add_bos_token: true }
  const companions = {
    'tokenizer_config.json': JSON.stringify({ ...tokens, chat_template: template }),
  }
  const model = await writeModel(t, ['<|endoftext|>'], companions)
  const loaded = await load(model, { threads: 1 })
  const bos = loaded.tokenizer!.tokenId('<|endoftext|>')!
  t.deepEqual(loaded.tokenizer!.template, { before: [bos], after: [] })
  const { code, json } = await kindling(['chat', model, ...LONG, '--json'], () => {}, 'the sea')
  t.is(code, 0)
  const greedy = { temperature: 0, maxTokens: 60, echo: false, stopIds: [bos] }
  const idsOf = async (prompt: string): Promise<number[]> => {
    const options = { ...greedy, addSpecialTokens: false }
    const [result] = await generateBatch(loaded.model, loaded.tokenizer!, [prompt], options)
    return [...result!.ids]
  }
  t.deepEqual(json[0]!['ids'], await idsOf('<|endoftext|>the sea'))
  t.notDeepEqual(json[0]!['ids'], await idsOf('<|endoftext|><|endoftext|>the sea'))
})

test('answers are text on standard output; a model that cannot converse is an error', async (t) => {
  const model = await writeModel(t, CHATML)
  const { code, stdout } = await kindling(['chat', model, ...GREEDY], () => {}, 'the sea\n')
  t.is(code, 0)
  const { text } = await answerTo(await load(model), [{ role: 'user', content: 'the sea' }])
  t.is(stdout, `${text}\n`)
  const plain = await kindling(['chat', await writeModel(t, ['<|endoftext|>'])], () => {}, 'sea\n')
  failed(t, plain, { exit: 1, code: 'ERR_UNSUPPORTED', message: /no chat template/ })
  const none = await kindling(['chat'], () => {}, 'sea\n')
  failed(t, none, { exit: 2, code: 'ERR_USAGE', message: /--run/ })
})
