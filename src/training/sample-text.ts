/** The text samples of a training run. */
import { generateBatch } from '../generate'
import type { TrainingSession } from './session'

/** Tokens of a sample. */
const SAMPLE_TOKENS = 60
const TEMPERATURE = 0.8

/** Generates the sample of a step; its seed is that of the run plus the step. */
export async function sampleText(
  { options, model, data, step }: TrainingSession,
  signal: AbortSignal | undefined,
): Promise<string> {
  const tokenizer = data.tokenizer!
  const [firstSpecial] = Object.keys(tokenizer.specialTokens)
  // A tokenizer without special tokens cannot start a document, so the sample starts a line.
  const prompt = options.samplePrompt ?? (firstSpecial === undefined ? '\n' : '')
  const [result] = await generateBatch(model, tokenizer, [prompt], {
    maxTokens: SAMPLE_TOKENS,
    temperature: TEMPERATURE,
    seed: options.seed + step,
    ...(signal && { signal }),
  })
  return result!.text
}
