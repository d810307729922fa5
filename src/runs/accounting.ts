/** What a run has cost so far: parameters, tokens, FLOPs, time, utilization. */
import { account } from '../account'
import type { RunConfig } from '../training/run-config'
import type { RunInfo } from './inspect'

/** The accounting of a run; unknown values are null. */
export interface RunAccounting {
  parameters: number
  flopsPerToken: number
  tokens: number
  tokensPerParameter: number
  /** Training FLOPs so far, of the model alone. */
  flops: number
  elapsedS: number | null
  /** Tokens per second over the whole time, including evaluations and samples. */
  meanTokensPerSecond: number | null
  /** FLOP/s over the same time. */
  meanFlopsPerSecond: number | null
  /** Mean model FLOPs utilization where the peak is known. */
  mfu: number | null
}

/**
 * Returns the accounting of a run.
 *
 * @param mfu - the mean over the run's metrics lines; null if they have none.
 */
export function accountingOf(config: RunConfig, info: RunInfo, mfu: number | null): RunAccounting {
  const { options } = config
  const { vocabSize, dModel, numHeads, numKvHeads, headSize, dFf, numLayers, seqLength } = options
  const { params, flops } = account({
    vocabSize,
    dModel,
    numHeads,
    dFf,
    numLayers,
    context: seqLength,
    ...(numKvHeads !== undefined && { numKvHeads }),
    ...(headSize !== undefined && { headSize }),
    tieEmbeddings: options.tieEmbeddings,
    qkvBias: options.qkvBias,
    qkNorm: options.qkNorm,
  })
  const parameters = params.total
  const tokens =
    info.tokens ?? info.steps * options.batchSize * options.seqLength * options.accumulate
  const { elapsedS } = info
  const rate = elapsedS !== null && elapsedS > 0 ? tokens / elapsedS : null
  return {
    parameters,
    flopsPerToken: flops.perToken,
    tokens,
    tokensPerParameter: tokens / parameters,
    flops: tokens * flops.perToken,
    elapsedS,
    meanTokensPerSecond: rate,
    meanFlopsPerSecond: rate === null ? null : rate * flops.perToken,
    mfu,
  }
}
