/**
 * What a run is made of before its first update: the number of updates and their schedule, what config.json says, the model,
 * the optimizer and the batches; and the options of a run that is continued.
 */
import { resolve } from 'node:path'
import { BatchLoader } from './batch-loader'
import { CHANGEABLE, type TrainOptions } from './config'
import { DEFAULT_VOCAB_SIZE, trainingTokens, type DataSource } from './data-source'
import { KindlingError } from '../errors'
import { AdamW, Sgd, type Optimizer } from '../optimizer'
import { type LoopState, type RunConfig } from './run-folder'
import { cosineSchedule } from './schedule'
import { Transformer, type TransformerOptions } from '../transformer'

/** Updates of a run: floor(num_epochs x tokens / (batch_size x seq_length x accumulate)) unless max_steps says. */
export function totalSteps(options: TrainOptions, tokens: number): number {
  if (options.max_steps !== undefined) return options.max_steps
  const perStep = options.batch_size * options.seq_length * options.accumulate
  const steps = Math.floor((options.num_epochs * tokens) / perStep)
  if (steps >= 1) return steps
  throw new KindlingError(
    'ERR_STORE_TOO_SHORT',
    `${tokens} tokens x ${options.num_epochs} epochs make no step of ${perStep} tokens; lower batch_size or seq_length, or give --max-steps`,
  )
}

/** The schedule of a run: Tw = floor(warmup_ratio x steps), Tc = floor(warmfix_ratio x steps). */
export function scheduleOf(options: TrainOptions, steps: number): (step: number) => number {
  return cosineSchedule({
    lrMax: options.lr,
    lrMin: options.lr_min,
    warmupSteps: Math.floor(options.warmup_ratio * steps),
    cosineSteps: Math.floor(options.warmfix_ratio * steps),
  })
}

/** The training batches, made ahead. */
export function batchesOf(options: TrainOptions, data: DataSource): BatchLoader {
  const {
    batch_size: batchSize,
    seq_length: seqLength,
    seed,
    accumulate,
    sampling,
    prefetch,
  } = options
  return new BatchLoader(data.train, { batchSize, seqLength, seed, accumulate, sampling, prefetch })
}

/** What config.json will say. */
export async function describe(options: TrainOptions, data: DataSource): Promise<RunConfig> {
  const known = data.tokenizer?.vocabSize
  const vocabSize = options.vocab_size ?? known ?? DEFAULT_VOCAB_SIZE
  if (known !== undefined && vocabSize < known) {
    throw new KindlingError(
      'ERR_INVALID_CONFIG',
      `vocab_size ${vocabSize} is below the tokenizer's ${known}; leave it out or raise it`,
    )
  }
  const stores = data.train.map(({ store }) => store)
  for (const store of data.valid ? [...stores, data.valid] : stores) {
    store.numWindows(options.seq_length)
    await store.checkVocab(vocabSize)
  }
  const model: TransformerOptions = {
    vocabSize,
    dModel: options.d_model,
    numHeads: options.num_heads,
    numKvHeads: options.num_kv_heads ?? options.num_heads,
    dFf: options.d_ff,
    numLayers: options.num_layers,
    maxSeqLength: options.max_seq_length,
    theta: options.theta,
    tieEmbeddings: options.tie_embeddings,
    qkvBias: options.qkv_bias,
    seed: options.seed,
  }
  return {
    format_version: 1,
    options,
    model,
    data: {
      train: resolve(stores[0]!.path),
      valid: data.valid ? resolve(data.valid.path) : null,
      ...(stores.length > 1 && {
        mixture: data.train.map(({ store, weight }) => ({ path: resolve(store.path), weight })),
      }),
    },
    tokenizer_hash: data.tokenizer?.hash ?? null,
    total_steps: totalSteps(options, trainingTokens(data)),
  }
}

/** The model and optimizer of a run at step 0. */
export async function build(
  options: TrainOptions,
  config: RunConfig,
): Promise<{ model: Transformer; optimizer: Optimizer; step: number; state: LoopState }> {
  const model = new Transformer({
    ...config.model,
    device: options.device,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    dtype: options.dtype,
    tf32: options.tf32,
    recompute: options.recompute,
  })
  const { weight_decay: weightDecay, betas, eps } = options
  // Weight decay on matrices only: gains and biases go without.
  const undecayed = [{ pattern: '*.g' }, ...(options.qkv_bias ? [{ pattern: '*.bias' }] : [])]
  const groups =
    options.decay === 'matrices' ? undecayed.map((g) => ({ ...g, weightDecay: 0 })) : []
  const optimizer =
    options.optimizer === 'sgd'
      ? new Sgd(model, { lr: options.lr, weightDecay, groups })
      : new AdamW(model, {
          lr: options.lr,
          weightDecay,
          betas: [betas[0]!, betas[1]!],
          eps,
          groups,
        })
  return { model, optimizer, step: 0, state: { loss_sum: 0, loss_count: 0, elapsed_s: 0 } }
}

/** The options of a run that is resumed: its own, but for those that may change. */
export function continued(
  saved: TrainOptions,
  asked: TrainOptions,
  given: ReadonlySet<string>,
): TrainOptions {
  const names = [...given] as (keyof TrainOptions)[]
  const different = names.filter(
    (name) => !CHANGEABLE.has(name) && JSON.stringify(asked[name]) !== JSON.stringify(saved[name]),
  )
  if (different.length > 0) {
    const list = different.map(
      (n) => `${n} is ${JSON.stringify(asked[n])} but the run has ${JSON.stringify(saved[n])}`,
    )
    throw new KindlingError(
      'ERR_RESUME_MISMATCH',
      `${list.join('; ')}; a resumed run keeps its options`,
    )
  }
  const changes = names.filter((name) => CHANGEABLE.has(name)).map((name) => [name, asked[name]])
  const kept = { ...saved }
  delete kept.stop_at_step
  return { ...kept, ...(Object.fromEntries(changes) as Partial<TrainOptions>) }
}
