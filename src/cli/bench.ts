/** Timings of the native core, as a training script would meet it: what `kindling bench` prints. */
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { flopsPerToken } from '../account'
import { knownPeak, mfuOf, resolveDevice } from '../device'
import { call, settle } from '../errors'
import { native } from '../native'
import { AdamW } from '../optimizer'
import { PRESETS, type Preset } from '../training/presets'
import { fileOperation } from '../training/run-folder'
import { availableThreads, peakRssMib } from '../system'
import { TokenStore } from '../token-store'
import { Tokenizer } from '../tokenizer'
import { Transformer, type OpProfile, type TransformerOptions } from '../transformer'

/** What the engine's benchmarks take. */
export interface EngineOptions {
  preset: string
  dtype: 'f32' | 'bf16'
  /** `auto`, `cpu`, `cuda` or `cuda:N`. */
  device: string
  tf32?: boolean | undefined
  threads?: number | undefined
}

const RANDOM_TOKENS = 2_000_000

function presetOf({ preset }: EngineOptions): Preset {
  return PRESETS[preset]!
}

function modelOf(options: EngineOptions, more: Partial<TransformerOptions> = {}): Transformer {
  const preset = presetOf(options)
  return new Transformer({
    vocabSize: preset.vocab_size,
    dModel: preset.d_model,
    numHeads: preset.num_heads,
    dFf: preset.d_ff,
    numLayers: preset.num_layers,
    maxSeqLength: preset.context,
    device: options.device,
    dtype: options.dtype,
    tf32: options.tf32 ?? false,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...more,
  })
}

/** What a training benchmark measures; the fields of its JSON line. */
export interface TrainBenchmark {
  preset: string
  dtype: string
  device: string
  threads: number
  params: number
  /** Of the median step. */
  tokens_per_second: number
  step_ms: number
  peak_rss_mib: number
  peak_device_mib: number | null
  loss_first: number
  loss_last: number
  flops_per_token: number
  /** null where the peak of the device is unknown. */
  mfu: number | null
  /** Where the time of a step goes, with `profile`: the ops, the longest first, and what lies between them. */
  profile?: ProfileLine[]
}

/** An op's part of a step. */
export interface ProfileLine {
  op: string
  calls_per_step: number
  ms_per_step: number
  /** Of the whole step. */
  share: number
  /** Speed of its products, null where it has none. */
  gflops: number | null
}

/** Times whole training steps on random tokens: batch, forward and backward, clipping, AdamW. */
export async function benchTrain(
  options: EngineOptions & {
    batch?: number | undefined
    steps?: number | undefined
    warmup: number
    recompute?: boolean
    peak_tflops?: number | undefined
    profile?: boolean
  },
): Promise<TrainBenchmark> {
  const preset = presetOf(options)
  const batchSize = options.batch ?? preset.batch_size
  const seqLength = preset.context
  const steps = options.steps ?? (options.preset === 'char' ? 300 : 6)
  const folder = await mkdtemp(join(tmpdir(), 'kindling-bench-'))
  try {
    const store = await randomStore(folder, preset.vocab_size)
    const model = modelOf(options, { recompute: options.recompute ?? false })
    const optimizer = new AdamW(model, { betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.01 })
    const times: number[] = []
    let [first, last] = [NaN, NaN]
    // On a GPU a step is queued while the one before it runs, as in training: the steps that count are timed together.
    const alone = model.options.device === 'cpu' || options.profile === true
    let whole = performance.now()
    for (let step = 1; step <= options.warmup + steps; step++) {
      if (options.profile && step === options.warmup + 1) await model.startProfile()
      const started = performance.now()
      const readLoss = step === 1 || step === options.warmup + steps
      const batch = store.batch({ batchSize, seqLength, step })
      const { loss } = await model.forwardBackward(batch, { readLoss })
      if (step === 1) first = loss!
      if (readLoss) last = loss!
      await optimizer.clipGradNorm(1, { read: false })
      await optimizer.step({ lr: 1e-3 })
      if (alone || step === options.warmup) await model.synchronize()
      times.push(performance.now() - started)
      if (step === options.warmup) whole = performance.now()
    }
    await model.synchronize()
    const counted = times.slice(options.warmup)
    const together = (performance.now() - whole) / counted.length
    const stepMs = alone ? median(counted) : together
    const tokensPerSecond = (1000 * batchSize * seqLength) / stepMs
    const flops = flopsPerToken({
      vocabSize: preset.vocab_size,
      dModel: preset.d_model,
      dFf: preset.d_ff,
      numLayers: preset.num_layers,
      context: seqLength,
    })
    const { device, dtype, tf32 } = model.options
    const { name, peakBytes } = await model.deviceState()
    const peak =
      options.peak_tflops ?? (name === undefined ? null : knownPeak(name, { dtype, tf32 }))
    const mfu = mfuOf(flops, tokensPerSecond, peak)
    const profile = options.profile ? profileLines(await model.stopProfile(), counted) : undefined
    return {
      preset: options.preset,
      dtype: options.dtype,
      device,
      threads: options.threads ?? availableThreads(),
      params: model.numParameters,
      tokens_per_second: round(tokensPerSecond, 1),
      step_ms: round(stepMs, 2),
      peak_rss_mib: Math.round(peakRssMib()),
      peak_device_mib: peakBytes === undefined ? null : Math.round(peakBytes / 2 ** 20),
      loss_first: round(first, 4),
      loss_last: round(last, 4),
      flops_per_token: flops,
      mfu: mfu === null ? null : round(mfu, 4),
      ...(profile && { profile }),
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** The ops' parts of a step, and last what lies between them: the batch, JavaScript, waiting for the engine's thread. */
function profileLines(ops: OpProfile[], times: number[]): ProfileLine[] {
  const total = times.reduce((sum, time) => sum + time, 0)
  const line = (op: string, calls: number, ms: number, flops: number): ProfileLine => ({
    op,
    calls_per_step: calls / times.length,
    ms_per_step: round(ms / times.length, 3),
    share: round(ms / total, 4),
    gflops: flops > 0 ? round(flops / ms / 1e6, 1) : null,
  })
  const lines = ops.map(({ op, calls, seconds, flops }) => line(op, calls, 1000 * seconds, flops))
  const inside = ops.reduce((sum, { seconds }) => sum + 1000 * seconds, 0)
  return [...lines, line('between the ops', times.length, total - inside, 0)]
}

async function randomStore(folder: string, vocabSize: number): Promise<TokenStore> {
  const ids = new Int32Array(RANDOM_TOKENS)
  let state = 1
  for (let i = 0; i < ids.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    ids[i] = Math.floor((state / 2 ** 32) * vocabSize)
  }
  await writeFile(join(folder, 'encoded_tokens_chunk_0.dat'), ids)
  return TokenStore.open(folder)
}

/** One product timed. */
export interface GemmBenchmark {
  name: string
  /** Which of the three products of a layer. */
  pass: 'forward' | 'backward_input' | 'backward_weight'
  rows: number
  inputs: number
  outputs: number
  gflops: number
}

/** Times the products of a model's layers on a batch. */
export async function benchGemm(
  options: EngineOptions & { steps: number; warmup: number },
): Promise<GemmBenchmark[]> {
  const { d_model: d, d_ff: f, vocab_size: v, batch_size, context } = presetOf(options)
  const rows = batch_size * context
  const shapes: [string, number, number][] = [
    ['qkv', d, 3 * d],
    ['o', d, d],
    ['w1w3', d, 2 * f],
    ['w2', f, d],
    ['output', d, v],
  ]
  const results: GemmBenchmark[] = []
  for (const [name, inputs, outputs] of shapes) {
    // The output layer works in blocks of rows; a few hundred show its speed.
    const height = name === 'output' ? Math.min(rows, 512) : rows
    for (const pass of ['forward', 'backward_input', 'backward_weight'] as const) {
      const seconds = await settle(() =>
        native.benchGemm({
          rows: height,
          inputs,
          outputs,
          pass,
          dtype: options.dtype,
          device: resolveDevice(options.device),
          tf32: options.tf32 ?? false,
          threads: options.threads ?? availableThreads(),
          warmup: options.warmup,
          repeats: options.steps,
        }),
      )
      const gflops = (2 * height * inputs * outputs) / median(seconds) / 1e9
      results.push({ name, pass, rows: height, inputs, outputs, gflops: round(gflops, 1) })
    }
  }
  return results
}

/** What a tokenizer's benchmark measures. */
export interface TextBenchmark {
  mb_per_second: number
  mb_per_second_warm: number
  seconds: number
  tokens: number
  peak_rss_mib: number
}

/** Times the encoding of a file, first with empty caches, then again. */
export async function benchEncode(
  path: string,
  tokenizer: Tokenizer,
  threads: number | undefined,
): Promise<TextBenchmark> {
  const { size } = await fileOperation(path, () => stat(path))
  const more = threads === undefined ? {} : { threads }
  return textBenchmark(size, 3, async () => (await tokenizer.countTokens([path], more)).tokens)
}

/** Times the training of a tokenizer on a file. */
export async function benchBpe(
  path: string,
  vocabSize: number,
  threads: number | undefined,
): Promise<TextBenchmark> {
  const { size } = await fileOperation(path, () => stat(path))
  // Once: nothing is kept for another training, and the peak is that of one.
  return textBenchmark(size, 1, async () => {
    const specialTokens = ['<|endoftext|>']
    const more = threads === undefined ? {} : { threads }
    return (await Tokenizer.train([path], { vocabSize, specialTokens, ...more })).vocabSize
  })
}

async function textBenchmark(
  bytes: number,
  repeats: number,
  work: () => Promise<number>,
): Promise<TextBenchmark> {
  const times: number[] = []
  let tokens = 0
  for (let i = 0; i < repeats; i++) {
    const started = performance.now()
    tokens = await work()
    times.push((performance.now() - started) / 1000)
  }
  return {
    mb_per_second: round(bytes / 1e6 / times[0]!, 2),
    mb_per_second_warm: round(bytes / 1e6 / Math.min(...times), 2),
    seconds: round(times[0]!, 3),
    tokens,
    peak_rss_mib: Math.round(peakRssMib()),
  }
}

const PROMPT_TOKENS = 16

/** Times decoding with random weights: a prompt in one pass, then greedy tokens one by one. */
export async function benchGenerate(
  options: EngineOptions & { max_tokens: number; profile?: boolean },
): Promise<GenerateBenchmark> {
  const model = modelOf(options)
  const { vocab_size: vocabSize } = presetOf(options)
  const prompt = Uint32Array.from({ length: PROMPT_TOKENS }, (_, i) => (i * 7919) % vocabSize)
  const decode = async (maxTokens: number): Promise<number> => {
    const generator = call(
      () =>
        new native.Generator(Transformer.toNative(model), [prompt], {
          maxTokens,
          temperature: 0,
          topP: 1,
          repetitionPenalty: 1,
          seed: 0,
          stopIds: [],
          rollingCache: false,
        }),
    )
    const started = performance.now()
    for (;;) {
      const [row] = await settle(() => generator.next(1000))
      if (row!.ended) break
    }
    generator.close()
    return (performance.now() - started) / 1000
  }
  await decode(2)
  const first = median([await decode(1), await decode(1), await decode(1)])
  const whole = Math.min(await decode(options.max_tokens), await decode(options.max_tokens))
  let profile: ProfileLine[] | undefined
  if (options.profile) {
    await model.startProfile()
    const seconds = await decode(options.max_tokens)
    const times = Array.from(
      { length: options.max_tokens },
      () => (1000 * seconds) / options.max_tokens,
    )
    profile = profileLines(await model.stopProfile(), times)
  }
  const bandwidth = await settle(() => native.benchMemory(options.threads ?? availableThreads()))
  return {
    tokens_per_second: round(options.max_tokens / whole, 1),
    prompt_tokens_per_second: round(PROMPT_TOKENS / first, 1),
    memory_gb_per_second: round(bandwidth / 1e9, 1),
    tokens_per_second_bound: round(bandwidth / weightBytes(options), 1),
    ...(profile && { profile }),
  }
}

/** What a decoding benchmark measures; the fields of its JSON line. */
export interface GenerateBenchmark {
  tokens_per_second: number
  prompt_tokens_per_second: number
  /** Speed of reading a large array with the same threads. */
  memory_gb_per_second: number
  /** Tokens a second if reading each weight once were all the work. */
  tokens_per_second_bound: number
  /** Where the time of a token goes, with `profile`. */
  profile?: ProfileLine[]
}

/** Bytes of the weights read for one token: all but the embedding, of which it reads a row. */
function weightBytes(options: EngineOptions): number {
  const { d_model: d, d_ff: f, num_layers: layers, vocab_size: vocabulary } = presetOf(options)
  const weights = layers * (4 * d * d + 3 * d * f + 2 * d) + d + d * vocabulary
  return weights * (options.dtype === 'bf16' ? 2 : 4)
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[sorted.length >> 1]!
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
