/** The lines of a run's metrics.jsonl. */

/** One line of metrics.jsonl. */
export interface MetricsLine {
  /** Updates so far. */
  step: number
  /** Tokens trained on so far. */
  tokens: number
  /** Mean training loss since the previous line, in nats per token. */
  loss: number
  /** Learning rate of the last update. */
  lr: number
  /** Gradient norm of the last update, before clipping. */
  gradNorm: number
  /** Updates skipped since the previous line, because the loss or the gradient norm spiked. */
  skippedUpdates?: number
  /** Tokens per second since the previous line, excluding evaluations and samples. */
  tokensPerSecond: number
  /** Fraction of the device's peak; absent if the peak is unknown. */
  mfu?: number
  /** Seconds since the start of the run, including those before a resume. */
  elapsedS: number
  /** Resident memory of the process in MiB. */
  memoryMib?: number
  /** Peak memory of the GPU in MiB; absent on the CPU. */
  deviceMemoryMib?: number
  /** Validation loss in nats per token, if this step was evaluated. */
  valLoss?: number
  /** exp(valLoss), if this step was evaluated. */
  perplexity?: number
  /** Validation loss in bits per byte of the text, null if the bytes are unknown. */
  bitsPerByte?: number | null
  /** Generated text, if a sample was due. */
  sample?: string
}
