/**
 * The training loop: batch, forward and backward, clip, schedule, update; evaluation, samples, metrics and checkpoints
 * where they are due. A run continued from a checkpoint is the run, bit for bit.
 */
import { EventEmitter } from 'node:events'
import type { BatchLoader } from './batch-loader'
import { Checkpoint } from '../checkpoint'
import {
  fromCamelCase,
  resolveOptions,
  type ResolvedOptions,
  type TrainOptions,
  type TrainerOptions,
} from './config'
import { openData, type DataSource } from './data-source'
import { flopsPerToken } from '../account'
import { knownPeak, unusedGpu } from '../device'
import { KindlingError } from '../errors'
import { evaluate } from './evaluate'
import { generateBatch } from '../generate'
import type { Optimizer } from '../optimizer'
import { RunFolder, type LoopState, type MetricsLine, type RunConfig } from './run-folder'
import { batchesOf, build, continued, describe, scheduleOf } from './run-plan'
import { TokenStore } from '../token-store'
import { TrainingClock } from './clock'
import { TrainingLosses } from './losses'
import type { Transformer } from '../transformer'

/** How a run ended. */
export interface TrainSummary {
  /** Updates made. */
  steps: number
  /** Mean training loss of the last line of metrics, null where no update was made. */
  loss: number | null
  /** Last validation loss, null where there was none. */
  val_loss: number | null
  /** The run's folder. */
  run: string
  /** The run had been finished before. */
  already_finished: boolean
  /** The signal ended it early; a checkpoint was saved. */
  interrupted: boolean
}

/** After an update. */
export interface StepEvent {
  step: number
  totalSteps: number
  /** On a GPU, which is not waited for at every update, the mean of those that were read last; gradNorm likewise. */
  loss: number
  lr: number
  gradNorm: number
  tokensPerSecond: number
  /** Share of the device's peak that the speed is, null where the peak is unknown. */
  mfu: number | null
  /** Milliseconds of a step, since the last line of metrics. */
  msPerStep: number
}

/** What a Trainer tells. */
export interface TrainerEvents {
  /** A sentence for people: resuming, starting over, finished. */
  message: [text: string]
  /** A corpus is being read. */
  progress: [what: string, done: number, total: number]
  /** The run is about to begin. */
  start: [config: RunConfig, numParameters: number]
  step: [event: StepEvent]
  metrics: [line: MetricsLine]
  evaluation: [step: number, loss: number]
  sample: [step: number, text: string]
  checkpoint: [step: number, path: string]
  done: [summary: TrainSummary]
}

/** Tokens of a sample during training. */
const SAMPLE_TOKENS = 60

/** What one run works with. */
interface Session {
  options: TrainOptions
  config: RunConfig
  folder: RunFolder
  data: DataSource
  batches: BatchLoader
  model: Transformer
  optimizer: Optimizer
  state: LoopState
  /** Updates made so far. */
  step: number
}

/**
 * `kindling train` as an object.
 *
 * @example
 * const trainer = new Trainer({ corpus: 'book.txt', dModel: 128, numHeads: 4, run: 'runs/book' })
 * trainer.on('metrics', (line) => console.log(line.step, line.loss))
 * const { val_loss } = await trainer.run()
 */
export class Trainer extends EventEmitter<TrainerEvents> {
  readonly #resolved: ResolvedOptions

  /**
   * @param options - the options of `kindling train`, in camelCase.
   * @throws KindlingError `ERR_USAGE`, `ERR_INVALID_CONFIG`.
   */
  constructor(options: TrainerOptions | ResolvedOptions) {
    super()
    this.#resolved = isResolved(options) ? options : resolveOptions(fromCamelCase(options))
  }

  /**
   * Trains to the end, or until `signal` is aborted: the update under way is finished and a checkpoint saved.
   *
   * @throws KindlingError see docs/errors.md; checkpoints saved before stay whole.
   */
  async run({ signal }: { signal?: AbortSignal } = {}): Promise<TrainSummary> {
    const session = await this.#open()
    try {
      const summary = await this.#train(session, signal)
      this.emit('done', summary)
      return summary
    } finally {
      session.batches.close()
      await session.model.close()
      await session.optimizer.close()
    }
  }

  async #train(session: Session, signal: AbortSignal | undefined): Promise<TrainSummary> {
    const { options, config, data, model, optimizer, state } = session
    const schedule = scheduleOf(options, config.total_steps)
    const total = config.total_steps
    const tokensPerStep = options.batch_size * options.seq_length * options.accumulate
    const end = Math.min(options.stop_at_step ?? total, total)
    const clock = new TrainingClock(state.elapsed_s, await workOf(session))
    const losses = new TrainingLosses(model, session.folder, state)
    const readsAll = model.options.device === 'cpu'
    const first = session.step + 1
    let gradNorm = NaN
    let lastLine: MetricsLine | null = null
    let valLoss: number | null = null
    let saved = session.step

    for (let step = first; step <= end; step++) {
      if (signal?.aborted) break
      const evaluationDue = data.valid !== null && isDue(step, options.eval_interval, total)
      const sampleDue = data.tokenizer !== null && isDue(step, options.sample_interval, total)
      const lineDue = evaluationDue || sampleDue || isDue(step, options.log_interval, total)
      const saveDue = step === end || isDue(step, options.save_interval, total)
      const reads = readsAll || step === first || lineDue || saveDue

      losses.add(await this.#gradients(session, step, readsAll), step)
      const norm = await optimizer.clipGradNorm(options.max_norm, { read: reads })
      gradNorm = norm ?? gradNorm
      const lr = schedule(step)
      await optimizer.step({ lr })
      session.step = step
      if (reads) await losses.read(step)

      clock.count(tokensPerStep)
      const tokensPerSecond = clock.rate()
      const msPerStep = (1000 * tokensPerStep) / tokensPerSecond
      const { latest: loss } = losses
      const speed = { tokensPerSecond, msPerStep, mfu: clock.mfu() }
      this.emit('step', { step, totalSteps: total, loss, lr, gradNorm, ...speed })

      if (lineDue) {
        const line = clock.line(step, tokensPerStep, state, { lr, grad_norm: gradNorm })
        if (evaluationDue) Object.assign(line, await this.#evaluation(session))
        if (sampleDue) line.sample = await this.#sample(session)
        await session.folder.appendMetrics(line)
        this.emit('metrics', line)
        clock.restart()
        state.loss_sum = 0
        state.loss_count = 0
        lastLine = line
        valLoss = line.val_loss ?? valLoss
      }
      if (saveDue) {
        await this.#save(session, clock)
        saved = step
      }
    }
    if (saved !== session.step) {
      await losses.read(session.step)
      await this.#save(session, clock)
    }
    return {
      steps: session.step,
      loss: lastLine?.loss ?? null,
      val_loss: valLoss,
      run: session.folder.path,
      already_finished: false,
      interrupted: session.step < end,
      ...(await this.#alreadyFinished(session, lastLine)),
    }
  }

  /** The gradients of an update's batches; their mean loss where it is read, else null. */
  async #gradients(session: Session, step: number, readLoss: boolean): Promise<number | null> {
    const { options, batches, model } = session
    const { accumulate } = options
    let mean: number | null = null
    for (let microBatch = 0; microBatch < accumulate; microBatch++) {
      const batch = await batches.next({ step, microBatch })
      const { loss } = await model.forwardBackward(batch, { scale: 1 / accumulate, readLoss })
      if (loss !== null) mean = (mean ?? 0) + loss / accumulate
    }
    return mean
  }

  /** A run that had nothing left to do reports its last line. */
  async #alreadyFinished(
    session: Session,
    lastLine: MetricsLine | null,
  ): Promise<Partial<TrainSummary>> {
    if (lastLine !== null || session.step < session.config.total_steps) return {}
    const lines = await session.folder.readMetrics()
    const evaluated = lines.filter((line) => line.val_loss !== undefined).pop()
    return {
      already_finished: true,
      loss: lines.at(-1)?.loss ?? null,
      val_loss: evaluated?.val_loss ?? null,
    }
  }

  async #evaluation(session: Session): Promise<Partial<MetricsLine>> {
    const { options, model, data } = session
    const result = await evaluate(model, data.valid!, {
      seqLength: options.seq_length,
      batchSize: options.batch_size,
      maxTokens: options.eval_tokens,
    })
    this.emit('evaluation', session.step, result.loss)
    return {
      val_loss: result.loss,
      perplexity: result.perplexity,
      bits_per_byte: result.bitsPerByte,
    }
  }

  async #sample({ options, model, data, step }: Session): Promise<string> {
    const tokenizer = data.tokenizer!
    const [first] = Object.keys(tokenizer.specialTokens)
    // A tokenizer without a token that starts a document starts a line.
    const prompt = options.sample_prompt ?? (first === undefined ? '\n' : '')
    const [result] = await generateBatch(model, tokenizer, [prompt], {
      maxTokens: SAMPLE_TOKENS,
      temperature: 0.8,
      seed: options.seed + step,
    })
    this.emit('sample', step, result!.text)
    return result!.text
  }

  async #save(session: Session, clock: TrainingClock): Promise<void> {
    const { folder, model, optimizer, step, state, options } = session
    const path = folder.checkpointPath(step)
    await Checkpoint.save(path, model, optimizer, step, { ...state, elapsed_s: clock.elapsed() })
    await folder.setLatest(step, options.keep)
    this.emit('checkpoint', step, path)
  }

  /** Everything before the first update: the options of a run that is resumed, its data, model and optimizer. */
  async #open(): Promise<Session> {
    const { options, given } = this.#resolved
    if (options.resume) return this.#resume()
    const folder = new RunFolder(options.run ?? defaultRun())
    if (folder.exists) {
      throw new KindlingError(
        'ERR_RUN_EXISTS',
        `${folder.path} exists; add --resume to continue it, or choose another --run`,
      )
    }
    const data = await openData(options, given, (...progress) => this.emit('progress', ...progress))
    const config = await describe(options, data)
    const batches = batchesOf(options, data)
    const session = { ...(await build(options, config)), options, config, folder, data, batches }
    this.#sayArithmetic(session)
    // The model takes its memory and its device now: a run that cannot begin leaves no folder.
    await session.model.zeroGradients()
    await folder.create(config, data.tokenizer)
    this.emit('start', config, session.model.numParameters)
    return session
  }

  /** auto and bf16 are wishes: a GPU may be too old, and a CPU without instructions for it computes in f32. */
  #sayArithmetic({ options, model }: Session): void {
    const unused = unusedGpu(options.device)
    if (unused !== null) this.emit('message', unused)
    if (options.dtype === 'bf16' && model.arithmetic === 'f32') {
      this.emit(
        'message',
        'this CPU has no bf16 instructions (AVX512-BF16 or AMX): products are computed in f32',
      )
    }
  }

  async #resume(): Promise<Session> {
    const { options: asked, given } = this.#resolved
    if (asked.run === undefined) throw new KindlingError('ERR_USAGE', '--resume needs --run RUN')
    const folder = new RunFolder(asked.run)
    const config = await folder.readConfig()
    // Runs of before have no value for options that came later.
    const saved = { ...resolveOptions({}).options, ...config.options }
    const options = continued(saved, asked, given)
    const { train, mixture = [{ path: train, weight: 1 }], valid } = config.data
    const data = {
      train: await Promise.all(
        mixture.map(async ({ path, weight }) => ({ store: await TokenStore.open(path), weight })),
      ),
      valid: valid === null ? null : await TokenStore.open(valid),
      tokenizer: await folder.openTokenizer(),
    }
    const batches = batchesOf(options, data)
    const session = { ...(await build(options, config)), options, config, folder, data, batches }
    this.#sayArithmetic(session)
    const latest = await folder.latest()
    if (latest) {
      session.step = await Checkpoint.load(latest.path, session.model, session.optimizer)
      session.state = await folder.readLoopState(session.step)
      const finished = session.step >= config.total_steps
      this.emit(
        'message',
        finished
          ? `${folder.path} is finished: ${session.step} of ${config.total_steps} steps done`
          : `resuming ${folder.path} at step ${session.step} of ${config.total_steps}`,
      )
    } else {
      this.emit('message', `${folder.path} has no checkpoint; starting over`)
    }
    await folder.cutMetrics(session.step)
    this.emit('start', config, session.model.numParameters)
    return session
  }
}

/** FLOPs a token of a run, and the peak of its device in TFLOP/s: the one given, else that of a known GPU, else null. */
async function workOf({
  options,
  model,
}: Session): Promise<{ flopsPerToken: number; peakTflops: number | null }> {
  const { vocabSize, dModel, dFf, numLayers, dtype, tf32 } = model.options
  const context = options.seq_length
  const { name } = await model.deviceState()
  const known = name === undefined ? null : knownPeak(name, { dtype, tf32 })
  return {
    flopsPerToken: flopsPerToken({ vocabSize, dModel, dFf, numLayers, context }),
    peakTflops: options.peak_tflops ?? known,
  }
}

function isResolved(options: TrainerOptions | ResolvedOptions): options is ResolvedOptions {
  return 'given' in options
}

/** Whether something that happens every `interval` steps (0: never) and at the last one happens now. */
function isDue(step: number, interval: number, total: number): boolean {
  return interval > 0 && (step % interval === 0 || step === total)
}

function defaultRun(): string {
  const stamp = new Date().toISOString().slice(0, 19).replace('T', '-').replaceAll(':', '')
  return `runs/${stamp}`
}
