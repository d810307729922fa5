/** Flags of the commands that generate text. */
import { z } from 'zod'
import type { GenerateOptions } from '../generate'

export const samplingFields = {
  max_tokens: z.int().min(1).default(200).describe('maximum number of new tokens'),
  temperature: z.number().min(0).default(1).describe('divides the logits; 0 is greedy decoding'),
  top_k: z.int().min(1).optional().describe('sample from the k most likely tokens'),
  top_p: z
    .number()
    .positive()
    .max(1)
    .default(0.9)
    .describe('sample from the most likely tokens whose probabilities add up to p'),
  repetition_penalty: z
    .number()
    .positive()
    .default(1)
    .describe('lowers the logits of tokens in the context; 1 has no effect'),
  seed: z.int().min(0).optional().describe('random seed (default: a random one, which is printed)'),
  stop: z
    .array(z.string().min(1))
    .meta({ repeat: true })
    .default([])
    .describe('stop at this text; may be repeated'),
  rolling_cache: z
    .boolean()
    .default(false)
    .describe('keep the key/value cache when the context is full: faster, but not exact'),
}

/** Returns the library's options for these flags. */
export function samplingOptions(
  flags: z.output<z.ZodObject<typeof samplingFields>>,
): GenerateOptions {
  return {
    maxTokens: flags.max_tokens,
    temperature: flags.temperature,
    ...(flags.top_k === undefined ? {} : { topK: flags.top_k }),
    topP: flags.top_p,
    repetitionPenalty: flags.repetition_penalty,
    ...(flags.seed === undefined ? {} : { seed: flags.seed }),
    stop: flags.stop,
    rollingCache: flags.rolling_cache,
  }
}
