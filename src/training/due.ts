/** What is due after an update, and the figures that MFU is computed from. */
import { flopsPerToken } from '../account'
import { knownPeak } from '../device'
import type { TrainingSession } from './session'

/**
 * Returns what is due after an update. An evaluation or a sample makes a metrics line due as well.
 */
export function dueAt(
  step: number,
  { options, config, data }: TrainingSession,
): Record<'evaluation' | 'sample' | 'metrics' | 'checkpoint', boolean> {
  // An interval of 0 means never; otherwise the last step counts too.
  const every = (interval: number): boolean =>
    interval > 0 && (step % interval === 0 || step === config.totalSteps)
  const evaluation = data.valid !== null && every(options.evalInterval)
  const sample = data.tokenizer !== null && every(options.sampleInterval)
  const metrics = evaluation || sample || every(options.logInterval)
  return { evaluation, sample, metrics, checkpoint: every(options.saveInterval) }
}

/** What is due after an update. */
export type Due = ReturnType<typeof dueAt>

/**
 * Returns the FLOPs per token and the device's peak in TFLOP/s: the peak that was given, else that
 * of a known GPU, else null.
 */
export async function workOf({
  options,
  model,
}: TrainingSession): Promise<{ flopsPerToken: number; peakTflops: number | null }> {
  const { dtype, tf32 } = model.options
  const { name } = await model.deviceState()
  const known = name === undefined ? null : knownPeak(name, { dtype, tf32 })
  return {
    flopsPerToken: flopsPerToken({ ...model.options, context: options.seqLength }),
    peakTflops: options.peakTflops ?? known,
  }
}
