/**
 * Warnings at the start of a run about options that the user may not have intended, each with
 * advice.
 */
import { MOST_PASSES } from '../training/auto-sizes'
import { bf16Speedup } from '../training/machine-speed'
import { trainingTokensOf, type RunConfig } from '../training/run-config'
import { tokensPerStep } from '../training/run-plan'
import { count } from '../format'

/**
 * Returns the warnings of a run.
 *
 * @param faster - the instructions or the device that make bf16 faster than f32 here, if any.
 */
export function startWarnings(
  config: RunConfig,
  numParameters: number,
  faster: string | null = bf16Speedup(config.options.device),
): string[] {
  const { options, totalSteps } = config
  const { dtype, seqLength, maxSeqLength } = options
  const tokens = trainingTokensOf(config)
  const seen = totalSteps * tokensPerStep(options)
  const warnings: string[] = []
  if (tokens !== undefined && numParameters > tokens && seen > MOST_PASSES * tokens) {
    warnings.push(
      `the model has more parameters (${count(numParameters)}) than the data has tokens ` +
        `(${count(tokens)}), and passes over them ${Math.round(seen / tokens)} times: it will learn ` +
        'the text by heart; choose a smaller model, more text or fewer --max-steps',
    )
  }
  // A pretrained model has already seen them.
  if (options.from === undefined && maxSeqLength > seqLength) {
    warnings.push(
      `positions from ${seqLength} to ${maxSeqLength} are never trained ` +
        `(max_seq_length is above seq_length): text longer than ${seqLength} tokens will be poor`,
    )
  }
  if (dtype === 'f32' && faster !== null) {
    warnings.push(`bf16 is faster than f32 here (${faster}): add --dtype bf16`)
  }
  return warnings
}
