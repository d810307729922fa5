/** `kindling bench generate`: times decoding with random weights. */
import { call, settle } from '../../errors'
import { native } from '../../native'
import { availableThreads } from '../../system'
import { Transformer } from '../../transformer'
import { buildModel, median, presetOf, round, type EngineOptions } from './engine'
import { profileLines, type ProfileLine } from './profile'

/** Result of a decoding benchmark. */
export interface GenerateBenchmark {
  /** Speed of decoding, over all prompts. */
  tokensPerSecond: number
  /** Speed of processing a prompt as long as the context. */
  promptTokensPerSecond: number
  /** Speed of reading a large array with the same threads. */
  memoryGbPerSecond: number
  /**
   * Upper bound set by memory bandwidth: tokens per second if a step, which decodes one token per
   * prompt, did nothing but read every weight once.
   */
  tokensPerSecondBound: number
  /** Time of a step by op, with the option `profile`. */
  profile?: ProfileLine[]
}

/** Length of the prompts to continue, in tokens. */
const PROMPT_TOKENS = 16

/**
 * Times a prompt that fills the context, which is one forward pass, and greedy decoding of `batch`
 * short prompts.
 */
export async function benchGenerate(
  options: EngineOptions & { batch: number; max_tokens: number; profile?: boolean },
): Promise<GenerateBenchmark> {
  const { batch, max_tokens: maxTokens } = options
  const { vocab_size: vocabSize, context } = presetOf(options)
  const model = buildModel(options)
  const promptOf = (row: number, length: number): Uint32Array =>
    Uint32Array.from({ length }, (_, i) => ((i + 1) * 7919 + row * 104_729) % vocabSize)
  const prompts = Array.from({ length: batch }, (_, row) => promptOf(row, PROMPT_TOKENS))
  const decode = (tokens: number): Promise<number> => secondsOfDecoding(model, prompts, tokens)
  const prefill = (): Promise<number> => secondsOfDecoding(model, [promptOf(0, context)], 1)

  await prefill()
  const prompt = median([await prefill(), await prefill(), await prefill()])
  await decode(2)
  const whole = Math.min(await decode(maxTokens), await decode(maxTokens))
  let profile: ProfileLine[] | undefined
  if (options.profile) {
    await model.startProfile()
    const seconds = await decode(maxTokens)
    const times = Array.from({ length: maxTokens }, () => (1000 * seconds) / maxTokens)
    profile = profileLines(await model.stopProfile(), times)
  }
  const bandwidth = await settle(() => native.benchMemory(options.threads ?? availableThreads()))
  return {
    tokensPerSecond: round((batch * maxTokens) / whole, 1),
    promptTokensPerSecond: round(context / prompt, 1),
    memoryGbPerSecond: round(bandwidth / 1e9, 1),
    tokensPerSecondBound: round((batch * bandwidth) / weightBytes(options), 1),
    ...(profile && { profile }),
  }
}

async function secondsOfDecoding(
  model: Transformer,
  prompts: Uint32Array[],
  maxTokens: number,
): Promise<number> {
  const generator = call(
    () =>
      new native.Generator(Transformer.toNative(model), prompts, {
        maxTokens,
        temperature: 0,
        topP: 1,
        repetitionPenalty: 1,
        seed: 0,
        stopIds: [],
        rollingCache: false,
      }),
  )
  const started = performance.now()
  for (;;) {
    const rows = await settle(() => generator.next(1000))
    if (rows.every((row) => row.ended)) break
  }
  generator.close()
  return (performance.now() - started) / 1000
}

/**
 * Returns the bytes of the weights read per step: all of them except the embedding, of which only
 * the rows of the tokens are read.
 */
function weightBytes(options: EngineOptions): number {
  const { d_model: d, d_ff: f, num_layers: layers, vocab_size: vocabulary } = presetOf(options)
  const weights = layers * (4 * d * d + 3 * d * f + 2 * d) + d + d * vocabulary
  return weights * (options.dtype === 'bf16' ? 2 : 4)
}
