/** Estimates what a run needs, before anything is allocated: parameters, memory and time. */
import { account, flopsPerToken, type Account } from '../account'
import { availableThreads } from '../system'
import { machineSpeed } from './machine-speed'
import type { RunConfig, RunOptions } from './run-config'
import { modelOptions, tokensPerStep } from './run-plan'

/** Returns the number of parameters of a run's model. */
export function parametersOf(options: RunOptions): number {
  return accountOf(options).params.total
}

/** Returns the peak memory of training in bytes, as the engine plans it. */
export function peakBytes(options: RunOptions): number {
  return accountOf(options).memory.total
}

/** Estimates the time of all updates in seconds, from the typical speed of such a machine. */
export function estimatedSeconds({ options, totalSteps }: RunConfig): number {
  const { device, dtype, threads = availableThreads(), seqLength: context } = options
  const perToken = flopsPerToken({ ...modelOptions(options), context })
  const { flops } = machineSpeed(device, threads, dtype)
  return (totalSteps * tokensPerStep(options) * perToken) / flops
}

function accountOf(options: RunOptions): Account {
  const { vocabSize, dModel, numHeads, numKvHeads, dFf, numLayers } = modelOptions(options)
  return account({
    ...{ vocabSize, dModel, numHeads, dFf, numLayers },
    ...(numKvHeads !== undefined && { numKvHeads }),
    ...(options.headSize !== undefined && { headSize: options.headSize }),
    tieEmbeddings: options.tieEmbeddings,
    qkvBias: options.qkvBias,
    qkNorm: options.qkNorm,
    dtype: options.dtype,
    recompute: options.recompute,
    context: options.seqLength,
    batchSize: options.batchSize,
    device: options.device.startsWith('cuda') ? 'cuda' : 'cpu',
  })
}
