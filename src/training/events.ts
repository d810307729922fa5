/** What a training run reports while it runs, and at its end. */
import type { MetricsLine } from './metrics'
import type { BestCheckpoint } from './run-checkpoints'
import type { RunConfig } from './run-config'

/** Outcome of a run. */
export interface TrainSummary {
  /** Updates done, including those before a resume. */
  steps: number
  /** Training loss of the last metrics line in nats per token, null if there is none. */
  loss: number | null
  /** Last validation loss in nats per token, null if there is none. */
  valLoss: number | null
  /** The checkpoint with the lowest validation loss, null if no evaluated step was saved. */
  best: BestCheckpoint | null
  /** The run's folder. */
  run: string
  /** The run was complete already; nothing was done. */
  alreadyFinished: boolean
  /** The signal ended the run early; a checkpoint was saved. */
  interrupted: boolean
}

/** Emitted after each update. */
export interface StepEvent {
  /** Updates so far. */
  step: number
  /** Updates of the whole run. */
  totalSteps: number
  /**
   * Loss of the update. On a GPU losses are not read after every update: the mean of those read
   * last.
   */
  loss: number
  /** Learning rate of the update. */
  lr: number
  /** Gradient norm before clipping; on a GPU, the one read last. */
  gradNorm: number
  /** Training speed since the last metrics line, in tokens per second. */
  tokensPerSecond: number
  /** Fraction of the device's peak, null if the peak is unknown. */
  mfu: number | null
  /** Mean milliseconds per step since the last metrics line. */
  msPerStep: number
}

/** Events of a Trainer, with their arguments. */
export interface TrainerEvents {
  /** A sentence for people: resuming, starting over, finished. */
  message: [text: string]
  /** A corpus is being read. */
  progress: [what: string, done: number, total: number]
  /** The first update is about to begin. */
  start: [config: RunConfig, numParameters: number, run: string]
  /** An update was made. */
  step: [event: StepEvent]
  /** A line was written to metrics.jsonl. */
  metrics: [line: MetricsLine]
  /** An evaluation has processed `done` of `total` tokens. */
  evaluating: [done: number, total: number]
  /** The validation loss was computed, in nats per token. */
  evaluation: [step: number, loss: number]
  /** A text was generated. */
  sample: [step: number, text: string]
  /** A checkpoint was saved in the folder `path`. */
  checkpoint: [step: number, path: string]
  /** The run ended, or was interrupted. */
  done: [summary: TrainSummary]
}
