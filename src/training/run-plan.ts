/**
 * Plans a run from its options and its data: vocabulary size, number of updates, schedule, batches,
 * model and optimizer. Merges the options of a resumed run with the saved ones.
 */
import { resolve } from 'node:path'
import { snakeCaseName } from '../case'
import { KindlingError } from '../errors'
import { AdamW, Sgd, type Optimizer } from '../optimizer'
import { Transformer } from '../transformer'
import type { RopeScaling, TransformerOptions } from '../transformer-options'
import { BatchLoader } from './batch-loader'
import { CHANGEABLE_ON_RESUME, type ResolvedOptions, type TrainOptions } from './config'
import { DEFAULT_VOCAB_SIZE, trainingTokens, type DataSource } from './data-source'
import { hasEndOfText } from './document-start'
import type { RunConfig, RunOptions } from './run-config'
import { cosineSchedule } from './schedule'
import { identitiesOf } from './store-identity'

/**
 * Computes the contents of config.json, and checks that the stores fit the model.
 *
 * @throws KindlingError `ERR_INVALID_CONFIG` (vocabulary smaller than the tokenizer's),
 * `ERR_STORE_TOO_SHORT`, `ERR_TOKEN_OUT_OF_RANGE`.
 */
export async function planRun(
  resolved: ResolvedOptions,
  data: DataSource,
  signal?: AbortSignal,
): Promise<RunConfig> {
  const { options } = resolved
  const vocabSize = modelVocabSize(resolved, data)
  const stores = data.train.map(({ store }) => store)
  for (const store of data.valid ? [...stores, data.valid] : stores) {
    store.numWindows(options.seqLength)
    await store.checkVocab(vocabSize, { ...(signal && { signal }) })
  }
  return {
    formatVersion: 1,
    options: { ...options, vocabSize },
    data: {
      train: data.train.map(({ store, weight }) => ({ path: resolve(store.path), weight })),
      valid: data.valid ? resolve(data.valid.path) : null,
    },
    identity: identitiesOf(data),
    tokenizerHash: data.tokenizer?.hash ?? null,
    ...(data.tokenizer && { endOfText: hasEndOfText(stores, data.tokenizer) }),
    totalSteps: totalSteps(options, trainingTokens(data)),
  }
}

/**
 * Returns the vocabulary size of the model: the size the user asked for, which must cover every id
 * of the tokenizer and may exceed it (padding); else the tokenizer's; without a tokenizer, the
 * preset's or the default.
 */
function modelVocabSize({ options, given }: ResolvedOptions, { tokenizer }: DataSource): number {
  const { vocabSize = DEFAULT_VOCAB_SIZE } = options
  if (tokenizer === null) return vocabSize
  if (!given.has('vocabSize')) return tokenizer.vocabSize
  if (vocabSize >= tokenizer.vocabSize) return vocabSize
  throw new KindlingError(
    'ERR_INVALID_CONFIG',
    `vocab_size ${vocabSize} is below the tokenizer's ${tokenizer.vocabSize}; omit or raise it`,
  )
}

/**
 * The number of updates: max_steps, or floor(num_epochs x tokens / (batch_size x seq_length x
 * accumulate)).
 *
 * @throws KindlingError `ERR_STORE_TOO_SHORT` if that is 0, `ERR_INVALID_CONFIG` if it is 2^53 or
 * more.
 */
export function totalSteps(options: TrainOptions, tokens: number): number {
  if (options.maxSteps !== undefined) return options.maxSteps
  const perStep = tokensPerStep(options)
  const steps = Math.floor((options.numEpochs * tokens) / perStep)
  if (steps > Number.MAX_SAFE_INTEGER) {
    // The run would train, but nothing could read its config.json.
    throw new KindlingError(
      'ERR_INVALID_CONFIG',
      `num_epochs ${options.numEpochs} are more steps than can be counted; lower num_epochs`,
    )
  }
  if (steps >= 1) return steps
  throw new KindlingError(
    'ERR_STORE_TOO_SHORT',
    `${tokens} tokens x ${options.numEpochs} epochs are less than one step of ${perStep} tokens; ` +
      'lower batch_size or seq_length, or give --max-steps',
  )
}

/** Tokens that one update trains on. */
export function tokensPerStep({ batchSize, seqLength, accumulate }: TrainOptions): number {
  return batchSize * seqLength * accumulate
}

/**
 * Returns the learning rate as a function of the step, with Tw = floor(warmup_ratio x steps) and Tc
 * = floor(warmfix_ratio x steps); see `cosineSchedule`.
 */
export function scheduleOf(options: TrainOptions, steps: number): (step: number) => number {
  return cosineSchedule({
    lrMax: options.lr,
    lrMin: options.lrMin,
    warmupSteps: Math.floor(options.warmupRatio * steps),
    cosineSteps: Math.floor(options.warmfixRatio * steps),
  })
}

/** The loader of the training batches. */
export function batchesOf(options: TrainOptions, data: DataSource): BatchLoader {
  const { batchSize, seqLength, seed, accumulate, sampling, prefetch } = options
  return new BatchLoader(data.train, { batchSize, seqLength, seed, accumulate, sampling, prefetch })
}

/** The sizes and the seed of a run's model, without device and precision. */
export function modelOptions(options: RunOptions): TransformerOptions {
  return {
    vocabSize: options.vocabSize,
    dModel: options.dModel,
    numHeads: options.numHeads,
    numKvHeads: options.numKvHeads ?? options.numHeads,
    dFf: options.dFf,
    numLayers: options.numLayers,
    maxSeqLength: options.maxSeqLength,
    theta: options.theta,
    tieEmbeddings: options.tieEmbeddings,
    qkvBias: options.qkvBias,
    ...(options.headSize !== undefined && { headSize: options.headSize }),
    normEps: options.normEps,
    qkNorm: options.qkNorm,
    ropeScaling: ropeScalingOf(options),
    seed: options.seed,
  }
}

/** Names the four numbers of the option. */
function ropeScalingOf({ ropeScaling }: RunOptions): RopeScaling | null {
  if (ropeScaling === undefined) return null
  const [factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings] = ropeScaling as [
    number,
    number,
    number,
    number,
  ]
  return { factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings }
}

/**
 * Builds the model of a run with its initial weights, and freezes the parameters that `freeze`
 * names.
 */
export function buildModel(options: RunOptions): Transformer {
  const model = new Transformer({
    ...modelOptions(options),
    device: options.device,
    ...(options.threads !== undefined && { threads: options.threads }),
    dtype: options.dtype,
    tf32: options.tf32,
    recompute: options.recompute,
    detectAnomaly: options.detectAnomaly,
  })
  for (const pattern of options.freeze ?? []) model.freeze(pattern)
  return model
}

/** Where a loaded model runs, and in what precision; by default the run's. */
export interface LoadedPlace {
  device: string
  threads?: number | undefined
  dtype?: 'f32' | 'bf16' | undefined
}

/** Builds the model of a run without its training options; its weights are read next. */
export function buildLoadedModel(options: RunOptions, place: LoadedPlace): Transformer {
  const { device, threads, dtype = options.dtype } = place
  return new Transformer({
    ...modelOptions(options),
    device,
    dtype,
    tf32: options.tf32,
    ...(threads !== undefined && { threads }),
  })
}

/**
 * Builds the optimizer of a run. With `decay: 'matrices'`, gains and biases have no weight decay.
 */
export function buildOptimizer(model: Transformer, options: TrainOptions): Optimizer {
  const { lr, weightDecay, betas, eps } = options
  const vectors = ['*.g', ...(options.qkvBias ? ['*.bias'] : [])]
  const groups =
    options.decay === 'matrices' ? vectors.map((pattern) => ({ pattern, weightDecay: 0 })) : []
  return options.optimizer === 'sgd'
    ? new Sgd(model, { lr, weightDecay, groups })
    : new AdamW(model, { lr, weightDecay, betas: [betas[0]!, betas[1]!], eps, groups })
}

/**
 * Returns the options of a resumed run: the saved ones, overridden by those that were given and may
 * change.
 *
 * @throws KindlingError `ERR_RESUME_MISMATCH` naming every given option that differs and may not
 * change.
 */
export function resumedOptions(saved: RunOptions, { options, given }: ResolvedOptions): RunOptions {
  const names = [...given] as (keyof TrainOptions)[]
  const different = names.filter(
    (name) =>
      !CHANGEABLE_ON_RESUME.has(name) &&
      JSON.stringify(options[name]) !== JSON.stringify(saved[name]),
  )
  if (different.length > 0) {
    const list = different.map((name) => {
      const [asked, had] = [options[name], saved[name]].map((value) => JSON.stringify(value))
      return `${snakeCaseName(name)} is ${asked} but the run has ${had}`
    })
    throw new KindlingError(
      'ERR_RESUME_MISMATCH',
      `${list.join('; ')}; a resumed run keeps its options`,
    )
  }
  const changes = names
    .filter((name) => CHANGEABLE_ON_RESUME.has(name))
    .map((name) => [name, options[name]])
  const { stopAtStep: _, ...kept } = saved
  return { ...kept, ...(Object.fromEntries(changes) as Partial<TrainOptions>) } as typeof saved
}
