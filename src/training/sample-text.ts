/** The text samples of a training run. */
import { generateBatch } from '../generate'
import { startPrompt } from './document-start'
import type { TrainingSession } from './session'

/** Tokens per sample. */
const SAMPLE_TOKENS = 60
const TEMPERATURE = 0.8

/** Generates the sample of a step; its seed is that of the run plus the step. */
export async function sampleText(
  { options, config, model, data, step }: TrainingSession,
  signal: AbortSignal | undefined,
): Promise<string> {
  const tokenizer = data.tokenizer!
  const prompt = options.samplePrompt ?? startPrompt(tokenizer, config.endOfText)
  const [result] = await generateBatch(model, tokenizer, [prompt], {
    maxTokens: SAMPLE_TOKENS,
    temperature: TEMPERATURE,
    seed: options.seed + step,
    ...(signal && { signal }),
  })
  return result!.text
}
