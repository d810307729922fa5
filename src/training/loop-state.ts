/** The state of the training loop between two steps, and the summary of a finished run. */
import type { TensorboardLog } from '../tensorboard/log'
import type { CheckpointWriter } from './checkpoint-writer'
import type { TrainingClock } from './clock'
import type { TrainSummary } from './events'
import type { TrainingLosses } from './losses'
import type { MetricsLine } from './metrics'
import type { SavedLoop } from './run-checkpoints'
import type { TrainingSession } from './session'
import type { SpikeDetector } from './spikes'

/**
 * Records the step of a metrics line as the best checkpoint if its validation loss is the lowest so
 * far. Returns whether it is.
 */
export function noteBest(state: SavedLoop, line: MetricsLine | null): boolean {
  if (line?.valLoss === undefined) return false
  const isBest = state.best === undefined || line.valLoss < state.best.valLoss
  if (isBest) state.best = { step: line.step, valLoss: line.valLoss }
  return isBest
}

/** State that the methods of the loop share. */
export interface Progress {
  session: TrainingSession
  signal: AbortSignal | undefined
  learningRate: (step: number) => number
  losses: TrainingLosses
  clock: TrainingClock
  writer: CheckpointWriter
  log: TensorboardLog | null
  /** Null if no updates are skipped. */
  spikes: SpikeDetector | null
  /** Updates skipped since the last metrics line. */
  skippedUpdates: number
  /** Losses of the current step's batches that have been read. */
  batchLosses: number[]
  /** Gradient norm before clipping; on a GPU, the one read last. */
  gradNorm: number
  /** The last line written to metrics.jsonl. */
  lastLine: MetricsLine | null
  /** The last validation loss. */
  valLoss: number | null
  /** The step of the last checkpoint; null if it was saved before its metrics line was complete. */
  savedStep: number | null
}

/**
 * Returns the summary of a run that was already complete when it was opened, with the last losses
 * in its metrics.
 */
export function finishedBefore({ folder }: TrainingSession): Partial<TrainSummary> {
  const lines = folder.readMetrics()
  const evaluated = lines.filter((line) => line.valLoss !== undefined).pop()
  return {
    alreadyFinished: true,
    loss: lines.at(-1)?.loss ?? null,
    valLoss: evaluated?.valLoss ?? null,
  }
}
