/**
 * The training loop: gradients of the step's batches, clip, update; then metrics, evaluation,
 * samples and checkpoints where they are due. A run resumed from a checkpoint continues bit for
 * bit.
 */
import { EventEmitter } from 'node:events'
import { flopsPerToken } from '../account'
import { toSnakeCase } from '../case'
import { Checkpoint } from '../checkpoint'
import { knownPeak } from '../device'
import { generateBatch } from '../generate'
import { TrainingClock } from './clock'
import { fromCamelCase, resolveOptions, type ResolvedOptions, type TrainerOptions } from './config'
import { evaluate } from './evaluate'
import { TrainingLosses } from './losses'
import type { MetricsLine, RunConfig } from './run-folder'
import { scheduleOf, tokensPerStep } from './run-plan'
import { openSession, type TrainingSession } from './session'

/** Outcome of a run. */
export interface TrainSummary {
  /** Updates done, including those before a resume. */
  steps: number
  /** Training loss of the last metrics line, null if there is none. */
  loss: number | null
  /** Last validation loss, null if there is none. */
  valLoss: number | null
  /** The run's folder. */
  run: string
  /** The run was complete already; nothing was done. */
  alreadyFinished: boolean
  /** The signal ended the run early; a checkpoint was saved. */
  interrupted: boolean
}

/** Emitted after each update. */
export interface StepEvent {
  step: number
  totalSteps: number
  /**
   * Loss of the update. On a GPU, the mean of the losses read last, since not every update is read.
   */
  loss: number
  lr: number
  /** Gradient norm before clipping; on a GPU, the one read last. */
  gradNorm: number
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

/**
 * `kindling train` as an object.
 *
 * @example
 * const trainer = new Trainer({ corpus: 'book.txt', dModel: 128, numHeads: 4, run: 'runs/book' })
 * trainer.on('metrics', (line) => console.log(line.step, line.loss))
 * const { valLoss } = await trainer.run()
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
   * Trains to the end. If `signal` is aborted, finishes the current update, saves a checkpoint and
   * returns.
   *
   * @throws KindlingError see docs/errors.md; checkpoints saved so far stay intact.
   */
  async run({ signal }: { signal?: AbortSignal } = {}): Promise<TrainSummary> {
    const session = await openSession(this.#resolved, {
      message: (text) => this.emit('message', text),
      progress: (...progress) => this.emit('progress', ...progress),
    })
    this.emit('start', session.config, session.model.numParameters)
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

  async #train(session: TrainingSession, signal: AbortSignal | undefined): Promise<TrainSummary> {
    const { options, config, folder, model, optimizer, state } = session
    const { totalSteps } = config
    const end = Math.min(options.stopAtStep ?? totalSteps, totalSteps)
    const learningRate = scheduleOf(options, totalSteps)
    const losses = new TrainingLosses(model, folder.path, state)
    const clock = new TrainingClock(state.elapsedS, await workOf(session))
    let gradNorm = NaN
    let lastLine: MetricsLine | null = null
    let valLoss: number | null = null
    let savedStep = session.step

    for (let step = session.step + 1; step <= end; step++) {
      if (signal?.aborted) break
      const due = dueAt(step, session)
      const saves = due.checkpoint || step === end
      const reads = losses.shouldRead(due.metrics || saves)

      losses.add(await this.#accumulateGradients(session, step, losses.readsEveryBatch), step)
      gradNorm = (await optimizer.clipGradNorm(options.maxNorm, { read: reads })) ?? gradNorm
      const lr = learningRate(step)
      await optimizer.step({ lr })
      session.step = step
      if (reads) await losses.read(step)
      clock.count(tokensPerStep(options))
      this.#emitStep(session, clock, { loss: losses.latest, lr, gradNorm })

      if (due.metrics) {
        const update = { loss: losses.takeMean(), lr, gradNorm }
        lastLine = await this.#writeMetrics(session, clock, update, due)
        valLoss = lastLine.valLoss ?? valLoss
      }
      if (saves) {
        await this.#save(session, losses, clock)
        savedStep = step
      }
    }
    if (savedStep !== session.step) {
      await losses.read(session.step)
      await this.#save(session, losses, clock)
    }
    return {
      steps: session.step,
      loss: lastLine?.loss ?? null,
      valLoss,
      run: folder.path,
      alreadyFinished: false,
      interrupted: session.step < end,
      ...(lastLine === null && session.step >= totalSteps && (await finishedBefore(session))),
    }
  }

  /**
   * Adds up the gradients of a step's batches; returns the mean loss, or null without `readLoss`.
   */
  async #accumulateGradients(
    { options: { accumulate }, batches, model }: TrainingSession,
    step: number,
    readLoss: boolean,
  ): Promise<number | null> {
    let mean = 0
    for (let microBatch = 0; microBatch < accumulate; microBatch++) {
      const batch = await batches.next({ step, microBatch })
      const { loss } = await model.forwardBackward(batch, { scale: 1 / accumulate, readLoss })
      mean += (loss ?? 0) / accumulate
    }
    return readLoss ? mean : null
  }

  #emitStep(
    { options, config, step }: TrainingSession,
    clock: TrainingClock,
    update: { loss: number; lr: number; gradNorm: number },
  ): void {
    const speed = clock.speed()
    const msPerStep = (1000 * tokensPerStep(options)) / speed.tokensPerSecond
    this.emit('step', { step, totalSteps: config.totalSteps, ...update, ...speed, msPerStep })
  }

  /** Writes a metrics line, with an evaluation and a sample if they are due. */
  async #writeMetrics(
    session: TrainingSession,
    clock: TrainingClock,
    update: { loss: number; lr: number; gradNorm: number },
    due: { evaluation: boolean; sample: boolean },
  ): Promise<MetricsLine> {
    const { step, options, folder } = session
    const tokens = step * tokensPerStep(options)
    const line: MetricsLine = { step, tokens, ...update, ...clock.line() }
    if (due.evaluation) Object.assign(line, await this.#evaluate(session))
    if (due.sample) line.sample = await this.#sample(session)
    await folder.appendMetrics(line)
    this.emit('metrics', line)
    clock.restart()
    return line
  }

  async #evaluate({ options, model, data, step }: TrainingSession): Promise<Partial<MetricsLine>> {
    const { loss, perplexity, bitsPerByte } = await evaluate(model, data.valid!, {
      seqLength: options.seqLength,
      batchSize: options.batchSize,
      maxTokens: options.evalTokens,
    })
    this.emit('evaluation', step, loss)
    return { valLoss: loss, perplexity, bitsPerByte }
  }

  async #sample({ options, model, data, step }: TrainingSession): Promise<string> {
    const tokenizer = data.tokenizer!
    const [firstSpecial] = Object.keys(tokenizer.specialTokens)
    // A tokenizer without special tokens cannot start a document, so the sample starts a line.
    const prompt = options.samplePrompt ?? (firstSpecial === undefined ? '\n' : '')
    const [result] = await generateBatch(model, tokenizer, [prompt], {
      maxTokens: SAMPLE_TOKENS,
      temperature: 0.8,
      seed: options.seed + step,
    })
    this.emit('sample', step, result!.text)
    return result!.text
  }

  async #save(
    { folder, model, optimizer, step, options }: TrainingSession,
    losses: TrainingLosses,
    clock: TrainingClock,
  ): Promise<void> {
    const path = folder.checkpointPath(step)
    const state = toSnakeCase({ ...losses.state, elapsedS: clock.elapsed() })
    await Checkpoint.save(path, model, optimizer, step, state)
    await folder.setLatest(step, options.keep)
    this.emit('checkpoint', step, path)
  }
}

/** Returns what is due after an update. Evaluations and samples go into a metrics line. */
function dueAt(
  step: number,
  { options, config, data }: TrainingSession,
): Record<'evaluation' | 'sample' | 'metrics' | 'checkpoint', boolean> {
  // An interval of 0 means never; otherwise the last step counts too.
  const every = (interval: number): boolean =>
    interval > 0 && (step % interval === 0 || step === config.totalSteps)
  const evaluation = data.valid !== null && every(options.evalInterval)
  const sample = data.tokenizer !== null && every(options.sampleInterval)
  const metrics = evaluation || sample || every(options.logInterval)
  return { evaluation, sample, metrics, checkpoint: every(options.saveInterval) }
}

/** The summary of a run that was complete when it was opened: its last losses, from its metrics. */
async function finishedBefore({ folder }: TrainingSession): Promise<Partial<TrainSummary>> {
  const lines = await folder.readMetrics()
  const evaluated = lines.filter((line) => line.valLoss !== undefined).pop()
  return {
    alreadyFinished: true,
    loss: lines.at(-1)?.loss ?? null,
    valLoss: evaluated?.valLoss ?? null,
  }
}

/**
 * FLOPs per token, and the device's peak in TFLOP/s: the one given, else that of a known GPU, else
 * null.
 */
async function workOf({
  options,
  model,
}: TrainingSession): Promise<{ flopsPerToken: number; peakTflops: number | null }> {
  const { vocabSize, dModel, dFf, numLayers, dtype, tf32 } = model.options
  const { name } = await model.deviceState()
  const known = name === undefined ? null : knownPeak(name, { dtype, tf32 })
  return {
    flopsPerToken: flopsPerToken({
      vocabSize,
      dModel,
      dFf,
      numLayers,
      context: options.seqLength,
    }),
    peakTflops: options.peakTflops ?? known,
  }
}

function isResolved(options: TrainerOptions | ResolvedOptions): options is ResolvedOptions {
  return 'given' in options
}
