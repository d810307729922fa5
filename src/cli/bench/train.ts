/** `kindling bench train`: times whole training steps on random tokens. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { flopsPerToken } from '../../account'
import { knownPeak, mfuOf } from '../../device'
import { withTemporaryFolder } from '../../files'
import { AdamW } from '../../optimizer'
import { availableThreads, peakRssMib } from '../../system'
import { TokenStore } from '../../token-store'
import type { Transformer } from '../../transformer'
import { buildModel, median, presetOf, round, type EngineOptions } from './engine'
import { profileLines, type ProfileLine } from './profile'

export interface TrainBenchmarkOptions extends EngineOptions {
  /** Sequences per step. Default: the preset's batch size. */
  batch?: number | undefined
  /** Timed steps. Default: 300 for `char`, else 6. */
  steps?: number | undefined
  /** Steps before the timed ones. */
  warmup: number
  recompute?: boolean
  /** Peak of the device in TFLOP/s, for `mfu`. Default: that of a known GPU. */
  peak_tflops?: number | undefined
  profile?: boolean
  /** Awaited before each step and not timed, so that several benchmarks can take turns. */
  beforeStep?: (step: number) => Promise<void>
}

/** Result of a training benchmark. */
export interface TrainBenchmark {
  preset: string
  dtype: string
  device: string
  threads: number
  params: number
  /** At the speed of a typical step; see `stepMs`. */
  tokensPerSecond: number
  stepMs: number
  peakRssMib: number
  /** null on the CPU. */
  peakDeviceMib: number | null
  lossFirst: number
  lossLast: number
  flopsPerToken: number
  /** Fraction of the device's peak; null if the peak is unknown. */
  mfu: number | null
  /** Time of a step by op, with the option `profile`. */
  profile?: ProfileLine[]
}

const RANDOM_TOKENS = 2_000_000

/** Times training steps: batch, forward and backward pass, gradient clipping, AdamW. */
export async function benchTrain(options: TrainBenchmarkOptions): Promise<TrainBenchmark> {
  return withTemporaryFolder('bench', async (folder) => {
    const store = await writeRandomStore(folder, presetOf(options).vocab_size)
    const model = buildModel(options, { recompute: options.recompute ?? false })
    const timing = await timeSteps(options, model, store)
    return summarize(options, model, timing)
  })
}

interface Timing {
  /** Milliseconds of the timed steps, one by one. */
  times: number[]
  /** Milliseconds of a typical step: the median if steps are timed one by one, else the mean. */
  stepMs: number
  lossFirst: number
  lossLast: number
}

async function timeSteps(
  options: TrainBenchmarkOptions,
  model: Transformer,
  store: TokenStore,
): Promise<Timing> {
  const { context: seqLength, batch_size } = presetOf(options)
  const batchSize = options.batch ?? batch_size
  const { warmup } = options
  const last = warmup + stepsOf(options)
  const optimizer = new AdamW(model, { betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.01 })
  // On a GPU, as in training, a step is queued while the previous one runs. Single steps then have
  // no meaningful time, and the timed steps are measured together.
  const isTimedAlone = model.options.device === 'cpu' || options.profile === true
  const times: number[] = []
  let [lossFirst, lossLast] = [NaN, NaN]
  let startOfAll = performance.now()
  for (let step = 1; step <= last; step++) {
    await options.beforeStep?.(step)
    if (options.profile && step === warmup + 1) await model.startProfile()
    const started = performance.now()
    const readLoss = step === 1 || step === last
    const batch = store.batch({ batchSize, seqLength, step })
    const { loss } = await model.forwardBackward(batch, { readLoss })
    if (step === 1) lossFirst = loss!
    if (readLoss) lossLast = loss!
    await optimizer.clipGradNorm(1, { read: false })
    await optimizer.step({ lr: 1e-3 })
    if (isTimedAlone || step === warmup) await model.synchronize()
    times.push(performance.now() - started)
    if (step === warmup) startOfAll = performance.now()
  }
  await model.synchronize()
  const timed = times.slice(warmup)
  const mean = (performance.now() - startOfAll) / timed.length
  return { times: timed, stepMs: isTimedAlone ? median(timed) : mean, lossFirst, lossLast }
}

function stepsOf({ steps, preset }: TrainBenchmarkOptions): number {
  return steps ?? (preset === 'char' ? 300 : 6)
}

async function summarize(
  options: TrainBenchmarkOptions,
  model: Transformer,
  { times, stepMs, lossFirst, lossLast }: Timing,
): Promise<TrainBenchmark> {
  const preset = presetOf(options)
  const tokens = (options.batch ?? preset.batch_size) * preset.context
  const tokensPerSecond = (1000 * tokens) / stepMs
  const flops = flopsPerToken({
    vocabSize: preset.vocab_size,
    dModel: preset.d_model,
    dFf: preset.d_ff,
    numLayers: preset.num_layers,
    context: preset.context,
  })
  const { device, dtype, tf32 } = model.options
  const { name, peakBytes } = await model.deviceState()
  const known = name === undefined ? null : knownPeak(name, { dtype, tf32 })
  const mfu = mfuOf(flops, tokensPerSecond, options.peak_tflops ?? known)
  return {
    preset: options.preset,
    dtype: options.dtype,
    device,
    threads: options.threads ?? availableThreads(),
    params: model.numParameters,
    tokensPerSecond: round(tokensPerSecond, 1),
    stepMs: round(stepMs, 2),
    peakRssMib: Math.round(peakRssMib()),
    peakDeviceMib: peakBytes === undefined ? null : Math.round(peakBytes / 2 ** 20),
    lossFirst: round(lossFirst, 4),
    lossLast: round(lossLast, 4),
    flopsPerToken: flops,
    mfu: mfu === null ? null : round(mfu, 4),
    ...(options.profile && { profile: profileLines(await model.stopProfile(), times) }),
  }
}

/** Writes a store of pseudo-random ids, the same ones each time. */
async function writeRandomStore(folder: string, vocabSize: number): Promise<TokenStore> {
  const ids = new Int32Array(RANDOM_TOKENS)
  let state = 1
  for (let i = 0; i < ids.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    ids[i] = Math.floor((state / 2 ** 32) * vocabSize)
  }
  await writeFile(join(folder, 'encoded_tokens_chunk_0.dat'), ids)
  return TokenStore.open(folder)
}
