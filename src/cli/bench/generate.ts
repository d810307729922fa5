/** `kindling bench generate`: times decoding with random weights. */
import { call, settle } from '../../errors'
import { native } from '../../native'
import { availableThreads } from '../../system'
import { Transformer } from '../../transformer'
import { buildModel, median, presetOf, round, type EngineOptions } from './engine'
import { profileLines, type ProfileLine } from './profile'

/** Result of a decoding benchmark. */
export interface GenerateBenchmark {
  tokensPerSecond: number
  promptTokensPerSecond: number
  /** Speed of reading a large array with the same threads. */
  memoryGbPerSecond: number
  /**
   * Upper bound set by memory: tokens per second if reading every weight once were all the work.
   */
  tokensPerSecondBound: number
  /** Time of a token by op, with the option `profile`. */
  profile?: ProfileLine[]
}

const PROMPT_TOKENS = 16

/** Times the prompt, which is one forward pass, and greedy decoding of one token at a time. */
export async function benchGenerate(
  options: EngineOptions & { max_tokens: number; profile?: boolean },
): Promise<GenerateBenchmark> {
  const { max_tokens: maxTokens } = options
  const model = buildModel(options)
  const { vocab_size: vocabSize } = presetOf(options)
  const prompt = Uint32Array.from({ length: PROMPT_TOKENS }, (_, i) => (i * 7919) % vocabSize)
  const decode = (tokens: number): Promise<number> => secondsOfDecoding(model, prompt, tokens)

  await decode(2)
  const first = median([await decode(1), await decode(1), await decode(1)])
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
    tokensPerSecond: round(maxTokens / whole, 1),
    promptTokensPerSecond: round(PROMPT_TOKENS / first, 1),
    memoryGbPerSecond: round(bandwidth / 1e9, 1),
    tokensPerSecondBound: round(bandwidth / weightBytes(options), 1),
    ...(profile && { profile }),
  }
}

async function secondsOfDecoding(
  model: Transformer,
  prompt: Uint32Array,
  maxTokens: number,
): Promise<number> {
  const generator = call(
    () =>
      new native.Generator(Transformer.toNative(model), [prompt], {
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
    const [row] = await settle(() => generator.next(1000))
    if (row!.ended) break
  }
  generator.close()
  return (performance.now() - started) / 1000
}

/**
 * Returns the bytes of the weights read per token: all of them, but only one row of the embedding.
 */
function weightBytes(options: EngineOptions): number {
  const { d_model: d, d_ff: f, num_layers: layers, vocab_size: vocabulary } = presetOf(options)
  const weights = layers * (4 * d * d + 3 * d * f + 2 * d) + d + d * vocabulary
  return weights * (options.dtype === 'bf16' ? 2 : 4)
}
