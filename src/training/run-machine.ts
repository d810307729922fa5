/**
 * What a run records about its surroundings: the machine, the memory in use, and TensorBoard's
 * event files.
 */
import { toSnakeCase } from '../case'
import { recordSystem } from '../runs/system'
import { TensorboardLog } from '../tensorboard/log'
import type { MetricsLine } from './metrics'
import type { TrainingSession } from './session'

const MIB = 2 ** 20

/** Records the machine, the device and its arithmetic in the run's folder. */
export async function recordSession({ folder, model, options }: TrainingSession): Promise<void> {
  const { device, name } = await model.deviceState()
  await recordSystem(folder.path, {
    device: name === undefined ? device : `${device} (${name})`,
    dtype: options.dtype,
    arithmetic: model.arithmetic,
  })
}

/** Returns the memory in use, for a metrics line. */
export async function memoryOf({
  model,
}: TrainingSession): Promise<Pick<MetricsLine, 'memoryMib' | 'deviceMemoryMib'>> {
  const { peakBytes } = await model.deviceState()
  return {
    memoryMib: Math.round(process.memoryUsage.rss() / MIB),
    ...(peakBytes !== undefined && { deviceMemoryMib: Math.round(peakBytes / MIB) }),
  }
}

/** Opens the event files of a run, null if it writes none. */
export function openEventLog(
  { folder, options, step, state }: TrainingSession,
  say: (text: string) => void,
): TensorboardLog | null {
  if (options.log !== 'tensorboard') return null
  // If the run was interrupted during an evaluation, the line of this step has yet to be written.
  const firstStep = state.unfinishedLine === undefined ? step + 1 : step
  return new TensorboardLog(
    folder.path,
    firstStep,
    JSON.stringify(toSnakeCase(options), null, 2),
    say,
  )
}
