/** The machine that a run trains on, for those who look at the run: its system and its memory. */
import { recordSystem } from '../runs/system'
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
