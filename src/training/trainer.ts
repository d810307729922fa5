/**
 * The training loop: gradients of the step's batches, clip, update; then metrics, evaluation,
 * samples and checkpoints where they are due. A run resumed from a checkpoint continues bit for
 * bit.
 */
import { EventEmitter } from 'node:events'
import { z } from 'zod'
import { flopsPerToken } from '../account'
import { toSnakeCase } from '../case'
import { Checkpoint } from '../checkpoint'
import { knownPeak } from '../device'
import { KindlingError, fromNative } from '../errors'
import { generateBatch } from '../generate'
import { abortSignal, checked } from '../options'
import { TrainingClock } from './clock'
import { fromCamelCase, resolveOptions, type ResolvedOptions, type TrainerOptions } from './config'
import { evaluate } from './evaluate'
import { TrainingLosses } from './losses'
import { explainNonFinite } from './non-finite'
import { memoryOf, recordSession } from './run-machine'
import type { SavedLoop } from './run-checkpoints'
import type { RunConfig } from './run-config'
import type { MetricsLine } from './metrics'
import { scheduleOf, tokensPerStep } from './run-plan'
import { closeSession, openSession, type TrainingSession } from './session'

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
  start: [config: RunConfig, numParameters: number, run: string]
  step: [event: StepEvent]
  metrics: [line: MetricsLine]
  evaluation: [step: number, loss: number]
  sample: [step: number, text: string]
  checkpoint: [step: number, path: string]
  done: [summary: TrainSummary]
}

const runSchema = z.strictObject({ signal: abortSignal.optional() })

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
    const given = checked('Trainer', z.looseObject({}), options) as typeof options
    this.#resolved = isResolved(given) ? given : resolveOptions(fromCamelCase(given))
  }

  /**
   * Trains to the end. If `signal` is aborted, finishes the current update, saves a checkpoint and
   * returns; before the first update it throws `ERR_CANCELLED`.
   *
   * @throws KindlingError `ERR_CANCELLED`, `ERR_RUN_LOCKED`; see docs/errors.md; checkpoints saved so far stay intact.
   */
  async run(options: { signal?: AbortSignal } = {}): Promise<TrainSummary> {
    const { signal } = checked('run', runSchema, options)
    const session = await openSession(this.#resolved, {
      message: (text) => this.emit('message', text),
      progress: (...progress) => this.emit('progress', ...progress),
      signal,
    })
    try {
      await recordSession(session)
      this.emit('start', session.config, session.model.numParameters, session.folder.path)
      const summary = await this.#train(session, signal)
      this.emit('done', summary)
      return summary
    } finally {
      await closeSession(session)
      session.folder.release()
    }
  }

  async #train(session: TrainingSession, signal: AbortSignal | undefined): Promise<TrainSummary> {
    const { options, config, folder, model, optimizer, state } = session
    const { totalSteps } = config
    const end = Math.min(options.stopAtStep ?? totalSteps, totalSteps)
    const learningRate = scheduleOf(options, totalSteps)
    const losses = new TrainingLosses(model, folder.path, state, session.step)
    const clock = new TrainingClock(state.elapsedS, await workOf(session))
    const progress: Progress = { session, losses, clock, signal, batchLosses: [], gradNorm: NaN }
    let lastLine = await this.#finishLine(progress)
    let valLoss = lastLine?.valLoss ?? null
    let savedStep = lastLine === null ? session.step : null

    for (let step = session.step + 1; step <= end; step++) {
      if (signal?.aborted) break
      const due = dueAt(step, session)
      const saves = due.checkpoint || step === end
      const reads = losses.shouldRead(due.metrics || saves)
      await this.#watched(progress, step, async () => {
        losses.add(await this.#accumulateGradients(progress, step), step)
        const norm = await optimizer.clipGradNorm(options.maxNorm, { read: reads })
        progress.gradNorm = norm ?? progress.gradNorm
        const lr = learningRate(step)
        await optimizer.step({ lr })
        session.step = step
        if (reads) await losses.read(step)
        clock.count(tokensPerStep(options))
        const { gradNorm } = progress
        this.#emitStep(session, clock, { loss: losses.latest, lr, gradNorm })
        if (due.metrics) {
          const update = { loss: losses.takeMean(), lr, gradNorm }
          lastLine = await this.#writeMetrics(progress, update, due)
          valLoss = lastLine?.valLoss ?? valLoss
        }
        if (saves && state.unfinishedLine === undefined) {
          await this.#save(progress)
          savedStep = step
        }
      })
      if (state.unfinishedLine !== undefined) break
    }
    if (savedStep !== session.step) {
      await this.#watched(progress, session.step, async () => {
        await losses.read(session.step)
        await this.#save(progress)
      })
    }
    return {
      steps: session.step,
      loss: lastLine?.loss ?? null,
      valLoss,
      run: folder.path,
      alreadyFinished: false,
      interrupted: session.step < end || state.unfinishedLine !== undefined,
      ...(lastLine === null && session.step >= totalSteps && (await finishedBefore(session))),
    }
  }

  /** Runs a part of a step; writes what it saw to the run if a number in it is not finite. */
  async #watched(progress: Progress, step: number, work: () => Promise<void>): Promise<void> {
    const { session, losses, batchLosses, gradNorm } = progress
    const firstStep = Math.min(losses.firstUnread, step)
    try {
      await work()
    } catch (error) {
      if (!(error instanceof KindlingError) || error.code !== 'ERR_NON_FINITE') throw error
      const sighting = { step, firstStep, losses: batchLosses, gradNorm }
      throw await explainNonFinite(session, error, sighting)
    }
  }

  /**
   * Adds up the gradients of a step's batches; returns the mean loss, or null if the losses stay on
   * the device.
   */
  async #accumulateGradients(progress: Progress, step: number): Promise<number | null> {
    const { options, batches, model } = progress.session
    const { accumulate } = options
    const readLoss = progress.losses.readsEveryBatch
    progress.batchLosses.length = 0
    for (let microBatch = 0; microBatch < accumulate; microBatch++) {
      const batch = await batches.next({ step, microBatch })
      const { loss } = await model.forwardBackward(batch, { scale: 1 / accumulate, readLoss })
      if (loss !== null) progress.batchLosses.push(loss)
    }
    if (!readLoss) return null
    return progress.batchLosses.reduce((mean, loss) => mean + loss / accumulate, 0)
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

  /**
   * Writes a metrics line, with an evaluation and a sample if they are due. If the signal cuts these
   * off, the line waits in the checkpoint for the run to be resumed, and the result is null.
   */
  async #writeMetrics(
    progress: Progress,
    update: { loss: number; lr: number; gradNorm: number },
    due: { evaluation: boolean; sample: boolean },
  ): Promise<MetricsLine | null> {
    const { session, clock } = progress
    const tokens = session.step * tokensPerStep(session.options)
    const line = { step: session.step, tokens, ...update, ...clock.line() }
    return this.#completeLine(progress, line, due)
  }

  /** Completes the line of a run that was interrupted in an evaluation; null if there is none. */
  async #finishLine(progress: Progress): Promise<MetricsLine | null> {
    const { session } = progress
    const line = session.state.unfinishedLine
    if (line === undefined) return null
    delete session.state.unfinishedLine
    return this.#completeLine(progress, line, dueAt(session.step, session))
  }

  async #completeLine(
    { session, clock, signal }: Progress,
    line: MetricsLine,
    due: { evaluation: boolean; sample: boolean },
  ): Promise<MetricsLine | null> {
    const whole = { ...line, ...(await memoryOf(session)) }
    try {
      if (due.evaluation) Object.assign(whole, await this.#evaluate(session, signal))
      if (due.sample) whole.sample = await this.#sample(session, signal)
    } catch (error) {
      if (!signal?.aborted || fromNative(error).code !== 'ERR_CANCELLED') throw error
      session.state.unfinishedLine = line
      return null
    }
    await session.folder.appendMetrics(whole)
    this.emit('metrics', whole)
    clock.restart()
    return whole
  }

  async #evaluate(
    { options, model, data, step }: TrainingSession,
    signal: AbortSignal | undefined,
  ): Promise<Partial<MetricsLine>> {
    const { loss, perplexity, bitsPerByte } = await evaluate(model, data.valid!, {
      seqLength: options.seqLength,
      batchSize: options.batchSize,
      maxTokens: options.evalTokens,
      signal,
    })
    this.emit('evaluation', step, loss)
    return { valLoss: loss, perplexity, bitsPerByte }
  }

  async #sample(
    { options, model, data, step }: TrainingSession,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const tokenizer = data.tokenizer!
    const [firstSpecial] = Object.keys(tokenizer.specialTokens)
    // A tokenizer without special tokens cannot start a document, so the sample starts a line.
    const prompt = options.samplePrompt ?? (firstSpecial === undefined ? '\n' : '')
    const [result] = await generateBatch(model, tokenizer, [prompt], {
      maxTokens: SAMPLE_TOKENS,
      temperature: 0.8,
      seed: options.seed + step,
      ...(signal && { signal }),
    })
    this.emit('sample', step, result!.text)
    return result!.text
  }

  /** @throws KindlingError `ERR_NON_FINITE` if the update made a weight overflow. */
  async #save({ session, losses, clock }: Progress): Promise<void> {
    const { folder, model, optimizer, step, options } = session
    if ((await model.nonFiniteWeight()) !== null) {
      throw new KindlingError(
        'ERR_NON_FINITE',
        `the weights are not finite after step ${step} and were not saved; lower the learning ` +
          `rate; the checkpoints in ${folder.path} are intact`,
      )
    }
    folder.verifyLock()
    const path = folder.checkpoints.path(step)
    const { unfinishedLine } = session.state
    const state: SavedLoop = {
      ...losses.state,
      elapsedS: clock.elapsed(),
      ...(unfinishedLine && { unfinishedLine }),
    }
    await Checkpoint.save(path, model, optimizer, step, toSnakeCase({ ...state }))
    await folder.checkpoints.setLatest(step, options)
    this.emit('checkpoint', step, path)
  }
}

/** What the methods of the loop share. */
interface Progress {
  session: TrainingSession
  losses: TrainingLosses
  clock: TrainingClock
  signal: AbortSignal | undefined
  /** Losses of the current step's batches, as far as they are read. */
  batchLosses: number[]
  /** Gradient norm before clipping; on a GPU, the one read last. */
  gradNorm: number
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
  const { dtype, tf32 } = model.options
  const { name } = await model.deviceState()
  const known = name === undefined ? null : knownPeak(name, { dtype, tf32 })
  return {
    flopsPerToken: flopsPerToken({ ...model.options, context: options.seqLength }),
    peakTflops: options.peakTflops ?? known,
  }
}

function isResolved(options: TrainerOptions | ResolvedOptions): options is ResolvedOptions {
  return 'given' in options && options.given instanceof Set
}
