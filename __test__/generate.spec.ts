/** Text generation: prompts, pieces, sampling, stopping. */
import test from 'ava'
import { KindlingError, Tokenizer, Transformer, generate, generateBatch } from '../src'
import type { GenerateOptions, GenerateResult, TransformerOptions } from '../src'
import { StopSequenceMatcher } from '../src/stop-sequences'
import { TINY, rejectsWith, temporaryFolder, writeCorpus } from './helpers'

interface Subject {
  model: Transformer
  tokenizer: Tokenizer
}

async function untrained(
  t: Parameters<typeof temporaryFolder>[0],
  sizes: Partial<TransformerOptions> = {},
  specialTokens = ['<|endoftext|>'],
): Promise<Subject> {
  const corpus = writeCorpus(temporaryFolder(t))
  const tokenizer = await Tokenizer.train([corpus], { vocabSize: 300, specialTokens })
  return {
    tokenizer,
    model: new Transformer({ ...TINY, vocabSize: 300, maxSeqLength: 24, ...sizes }),
  }
}

async function read(
  { model, tokenizer }: Subject,
  prompt: string,
  options: GenerateOptions = {},
): Promise<{ pieces: string[]; result: GenerateResult }> {
  const pieces: string[] = []
  const texts = generate(model, tokenizer, prompt, options)
  for (;;) {
    const next = await texts.next()
    if (next.done) return { pieces, result: next.value }
    pieces.push(next.value)
  }
}

test('the text starts with the prompt unless echo is false', async (t) => {
  const subject = await untrained(t)
  const options = { maxTokens: 5, seed: 1 }
  const { pieces, result } = await read(subject, 'the whale', options)
  t.true(result.text.startsWith('the whale'))
  t.is(pieces.join(''), result.text)
  const silent = await read(subject, 'the whale', { ...options, echo: false })
  t.is(`the whale${silent.result.text}`, result.text)
})

test('pieces hold whole characters even when tokens are single bytes', async (t) => {
  const subject = await untrained(t)
  const { pieces, result } = await read(subject, 'the sea', { maxTokens: 60, seed: 2, echo: false })
  const bytes = subject.tokenizer.decodeBytes(result.ids)
  t.is(pieces.join(''), new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes))
})

test('the text depends on the seed, and a random seed is reported', async (t) => {
  const subject = await untrained(t)
  const text = async (seed?: number) =>
    (await read(subject, 'old', { maxTokens: 20, ...(seed === undefined ? {} : { seed }) })).result
  t.is((await text(1)).text, (await text(1)).text)
  t.not((await text(1)).text, (await text(2)).text)
  const drawn = await text()
  t.is((await text(drawn.seed)).text, drawn.text)
})

test('temperature 0 picks the highest logit of a fresh pass', async (t) => {
  // Without <|endoftext|>, the text outgrows the context.
  const subject = await untrained(t, {}, [])
  const { result } = await read(subject, 'the captain', { maxTokens: 40, temperature: 0, seed: 1 })
  const context = [...subject.tokenizer.encode('the captain')]
  for (const id of result.ids) {
    const window = Uint32Array.from(context.slice(-24))
    const logits = (await subject.model.logits(window)).slice(-300)
    const best = logits.indexOf(logits.reduce((most, score) => Math.max(most, score), -Infinity))
    t.is(id, best)
    context.push(id)
  }
  t.is(result.ids.length, 40)
})

test('topK 1 and a tiny topP are greedy', async (t) => {
  const subject = await untrained(t)
  const text = async (options: GenerateOptions) =>
    (await read(subject, 'ship', { maxTokens: 10, seed: 3, ...options })).result.text
  const greedy = await text({ temperature: 0 })
  t.is(await text({ topK: 1 }), greedy)
  t.is(await text({ topP: 1e-9 }), greedy)
})

test('generation ends after maxTokens', async (t) => {
  const { result } = await read(await untrained(t), 'sea', { maxTokens: 7, seed: 4 })
  t.is(result.stopReason, 'max_tokens')
  t.is(result.ids.length, 7)
})

test('generation ends at <|endoftext|>, which is not part of the text', async (t) => {
  const subject = await untrained(t)
  const end = subject.tokenizer.tokenId('<|endoftext|>')!
  // With an output layer of zeros, all logits are equal and the lowest id wins: <|endoftext|>.
  const state = await subject.model.stateDict()
  const output = state['final_layer.linear_matrix']!
  const gain = state['final_norm.g']!
  output.data.fill(0)
  const row = await subject.model.logits(Uint32Array.of(1))
  t.is(row.length, 300)
  gain.data.fill(1)
  await subject.model.loadStateDict(state)
  t.is(end, 0)
  const { result } = await read(subject, 'old man', { temperature: 0, seed: 1 })
  t.is(result.stopReason, 'end_of_text')
  t.is(result.text, 'old man')
  t.is(result.ids.length, 0)
})

test('generation ends before a stop sequence, even one that spans several tokens', async (t) => {
  const subject = await untrained(t)
  const whole = (await read(subject, 'storm', { maxTokens: 30, seed: 5, echo: false })).result.text
  const stop = whole.slice(8, 12)
  const { pieces, result } = await read(subject, 'storm', {
    maxTokens: 30,
    seed: 5,
    echo: false,
    stop: [stop],
  })
  t.is(result.stopReason, 'stop')
  t.is(result.text, whole.slice(0, whole.indexOf(stop)))
  t.is(pieces.join(''), result.text)
})

test('an empty prompt starts from <|endoftext|>', async (t) => {
  const subject = await untrained(t)
  const { result } = await read(subject, '', { maxTokens: 1, temperature: 0, seed: 1 })
  const logits = await subject.model.logits(
    Uint32Array.of(subject.tokenizer.tokenId('<|endoftext|>')!),
  )
  t.is(
    result.ids[0],
    logits.indexOf(logits.reduce((most, score) => Math.max(most, score), -Infinity)),
  )
})

test('greedy texts of a batch equal those generated one by one', async (t) => {
  const subject = await untrained(t)
  const prompts = ['the whale', 'a', 'captain of the white ship']
  const options = { maxTokens: 12, temperature: 0, seed: 1 }
  const batch = await generateBatch(subject.model, subject.tokenizer, prompts, options)
  t.deepEqual(
    batch.map((result) => result.prompt),
    prompts,
  )
  for (const [i, prompt] of prompts.entries()) {
    t.is(batch[i]!.text, (await read(subject, prompt, options)).result.text)
  }
})

test('an aborted generation is ERR_CANCELLED and leaves the model usable', async (t) => {
  const { model, tokenizer } = await untrained(t)
  const aborted = new AbortController()
  const texts = generate(model, tokenizer, 'sea', { maxTokens: 1_000_000, signal: aborted.signal })
  await texts.next()
  aborted.abort()
  await rejectsWith(t, 'ERR_CANCELLED', async () => {
    for await (const piece of texts) t.is(typeof piece, 'string')
  })
  t.true((await model.logits(Uint32Array.of(1))).length > 0)
})

test('leaving the loop early releases the model', async (t) => {
  const subject = await untrained(t)
  for await (const piece of generate(subject.model, subject.tokenizer, 'sea', { seed: 1 })) {
    t.is(piece, 'sea')
    break
  }
  t.true((await read(subject, 'sea', { maxTokens: 2, seed: 1 })).result.ids.length === 2)
})

const options: [string, GenerateOptions][] = [
  ['a negative temperature', { temperature: -1 }],
  ['a temperature of NaN', { temperature: NaN }],
  ['top-p above 1', { topP: 1.5 }],
  ['top-k of zero', { topK: 0 }],
  ['a repetition penalty of zero', { repetitionPenalty: 0 }],
  ['a negative number of tokens', { maxTokens: -1 }],
  ['a fractional seed', { seed: 0.5 }],
]
for (const [what, wrong] of options) {
  test(`${what} is ERR_INVALID_ARGUMENT`, async (t) => {
    const subject = await untrained(t)
    await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => read(subject, 'sea', wrong))
  })
}

test('arguments of the wrong kind are ERR_INVALID_ARGUMENT', async (t) => {
  const { model, tokenizer } = await untrained(t)
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => generate(model, {} as Tokenizer, 'sea').next())
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () =>
    generate({} as Transformer, tokenizer, 'sea').next(),
  )
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () =>
    generate(model, tokenizer, 7 as unknown as string).next(),
  )
})

test("a tokenizer larger than the model's vocabulary is a coded error", async (t) => {
  const subject = await untrained(t, { vocabSize: 260 })
  const error = await t.throwsAsync(read(subject, 'the whale sea ship captain', { maxTokens: 2 }))
  t.true(error instanceof KindlingError)
})

test('only text that may begin a stop sequence is withheld', (t) => {
  const matcher = new StopSequenceMatcher(['END', '\n\n', ''])
  t.is(matcher.push('a E'), 'a ')
  t.is(matcher.push('N'), '')
  t.is(matcher.push('X\n'), 'ENX')
  t.is(matcher.flush(), '\n')
  t.is(matcher.push('b\n'), 'b')
  t.is(matcher.push('\nc'), '')
  t.true(matcher.matched)
})
